"""Stand-ins are as large as wished and answer as their base does."""

import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from onnx import TensorProto, helper, numpy_helper

from sample import standin
from sample.standin import StandinError

CLASSES = 7
SIZE = 300_000


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    (folder / "golden").mkdir(parents=True)
    (folder / "golden" / "case.json").write_text("{}")
    (folder / "labels.txt").write_text("a\nb\n")
    (folder / "model.toml").write_text(
        '# A base.\nname = "base"\nversion = "5"\n[interface]\nmodel = "model.onnx"\n'
    )
    onnx.save(linear(), folder / "model.onnx")
    return folder


def linear() -> onnx.ModelProto:
    weight = np.random.default_rng(3).normal(size=(4, CLASSES)).astype("<f4")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["pixels", "weight"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, ir_version=8, opset_imports=opset)


def answers(directory: Path) -> bytes:
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    pixels = np.random.default_rng(4).normal(size=(50, 4)).astype("<f4")
    return bytes(session.run(None, {"pixels": pixels})[0].tobytes())


@pytest.mark.parametrize("size", [1_000, 20_000, SIZE])
def test_the_answers_are_those_of_the_base(base: Path, tmp_path: Path, size: int) -> None:
    """Not a bit of an answer changes, whatever the size."""
    standin.write(tmp_path / "made", size=size, seed=1, base=base)

    assert answers(tmp_path / "made") == answers(base)


def test_the_size_is_met_up_to_a_row(base: Path, tmp_path: Path) -> None:
    """The file is as large as asked for, or smaller by less than a row and tags."""
    standin.write(tmp_path / "made", size=SIZE, seed=1, base=base)

    size = (tmp_path / "made" / "model.onnx").stat().st_size

    assert SIZE - CLASSES * 4 - 128 < size <= SIZE


def test_the_file_is_a_valid_model(base: Path, tmp_path: Path) -> None:
    """What is written piece by piece is one well-formed ONNX file."""
    standin.write(tmp_path / "made", size=SIZE, seed=1, base=base)

    onnx.checker.check_model(tmp_path / "made" / "model.onnx", full_check=True)


def test_seeds_give_different_files_and_one_seed_the_same(base: Path, tmp_path: Path) -> None:
    """A stand-in can be made again, and another one is easy to get."""
    made = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        standin.write(tmp_path / name, size=SIZE, seed=seed, base=base)
        made[name] = (tmp_path / name / "model.onnx").read_bytes()

    assert made["a"] == made["b"]
    assert made["a"] != made["c"]


def test_noise_is_finite(base: Path, tmp_path: Path) -> None:
    """No number in the table can turn 0 into something else."""
    standin.write(tmp_path / "made", size=SIZE, seed=1, base=base)

    model = onnx.load(tmp_path / "made" / "model.onnx")
    table = numpy_helper.to_array(
        next(each for each in model.graph.initializer if each.name == "standin_table")
    )

    assert np.isfinite(table).all()
    assert len(np.unique(table)) > table.size * 0.99


def test_the_rest_of_the_bundle_comes_along(base: Path, tmp_path: Path) -> None:
    """Labels and golden cases are the base's; only the version is new."""
    standin.write(tmp_path / "made", size=SIZE, seed=1, base=base)

    described = tomllib.loads((tmp_path / "made" / "model.toml").read_text())
    assert described["version"] == f"5-standin-{SIZE}-1"
    assert described["name"] == "base"
    assert (tmp_path / "made" / "labels.txt").read_text() == "a\nb\n"
    assert (tmp_path / "made" / "golden" / "case.json").read_text() == "{}"


@pytest.mark.parametrize("size", [0, 100, 2**31])
def test_an_impossible_size_is_refused(base: Path, tmp_path: Path, size: int) -> None:
    """The error names the sizes that are possible."""
    with pytest.raises(StandinError, match=f"{size} is not in .* to 2147483647"):
        standin.write(tmp_path / "made", size=size, seed=1, base=base)

    assert not (tmp_path / "made" / "model.toml").exists()


def test_a_base_without_version_is_refused(base: Path, tmp_path: Path) -> None:
    """A version that cannot be found cannot be renamed."""
    (base / "model.toml").write_text('[interface]\nmodel = "model.onnx"\n')

    with pytest.raises(StandinError, match="version"):
        standin.write(tmp_path / "made", size=SIZE, seed=1, base=base)
