from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from app import bundle, classifier
from app.bundle import ModelError

Alter = Callable[[Callable[[dict[str, Any]], object]], Path]


def test_model_answers_alike_alone_and_in_a_crowd(whole_model: Path) -> None:
    """A picture's guesses do not depend on the others that are scored with it."""
    loaded = classifier.load(bundle.read(whole_model))
    noise = list(np.random.default_rng(0).random((19, 1, 8, 8), np.float32) * 16)
    together = loaded.classify(noise)
    assert [loaded.classify([one])[0] for one in noise] == together


def test_guesses_are_three_in_order(whole_model: Path) -> None:
    """The best three come, the likeliest first, in percent of two decimals."""
    (guesses,) = classifier.load(bundle.read(whole_model)).classify(
        [np.full((1, 8, 8), 3, np.float32)]
    )
    percents = [guess.percent for guess in guesses]
    assert len(guesses) == 3
    assert percents == sorted(percents, reverse=True)
    assert all(0 <= percent <= 100 and round(percent, 2) == percent for percent in percents)


def test_runtime_does_not_report_its_use() -> None:
    """The runtime's telemetry is switched off wherever this application runs."""
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


FAKES = {
    "empty": b"",
    "text": b"not a model",
    "pickle": pickle.dumps({"weights": [1, 2]}),
    "torch": b"\x80\x02\x8a\x0a" * 50,
}


@pytest.mark.parametrize("raw", FAKES.values(), ids=FAKES.keys())
def test_file_that_is_no_model_is_refused(
    model_dir: Path, relist: Callable[[], Path], raw: bytes
) -> None:
    """Other bytes under the name of a model are refused, whatever their checksum says."""
    (model_dir / "model.onnx").write_bytes(raw)
    with pytest.raises(ModelError, match=r"model\.onnx: expected"):
        classifier.load(bundle.read(relist()))


@pytest.mark.parametrize(
    ("mutation", "fault"),
    [
        (lambda i: i["input"].update(name="image"), "inputs: expected only image, found picture"),
        (
            lambda i: i["input"].update(dtype="uint8") or i["preprocessing"].update(scale=1.0),
            r"input picture: expected tensor\(uint8\), found tensor\(float\)",
        ),
        (lambda i: i["input"].update(shape=[None, 1, 28, 28]), "input picture: expected shape"),
        (
            lambda i: i["input"].update(shape=[None, 8, 8, 1], layout="NHWC"),
            "input picture: expected shape",
        ),
        (
            lambda i: i["output"].update(name="probabilities"),
            "outputs: expected probabilities, found logits",
        ),
    ],
)
def test_interface_is_held_against_the_model(
    alter: Alter, mutation: Callable[[dict[str, Any]], object], fault: str
) -> None:
    """What the manifest says and the model does not do is refused with both."""
    directory = alter(lambda document: mutation(document["interface"]))
    with pytest.raises(ModelError, match=fault):
        classifier.load(bundle.read(directory))


def test_class_count_is_held_against_the_model(
    model_dir: Path, alter: Alter, relist: Callable[[], Path]
) -> None:
    """As many labels as the manifest says do not help if the model has fewer classes."""
    (model_dir / "labels.txt").write_text("label\n" * 12, encoding="utf-8")
    alter(lambda document: document["interface"]["output"].update(shape=[None, 12]))
    with pytest.raises(ModelError, match="output logits: expected shape"):
        classifier.load(bundle.read(relist()))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "weights.bin"])
def test_weights_outside_the_bundle_are_refused(
    model_dir: Path, relist: Callable[[], Path], tmp_path: Path, location: str
) -> None:
    """A model that loads weights which its manifest does not list is refused."""
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 10))
    (model_dir / "model.onnx").write_bytes(_graph(location=location))
    with pytest.raises(ModelError, match=r"model\.onnx: expected an ONNX model"):
        classifier.load(bundle.read(relist()))


def test_listed_weights_beside_the_model_are_loaded(
    model_dir: Path, relist: Callable[[], Path]
) -> None:
    """External data is served if the manifest lists it."""
    (model_dir / "weights.bin").write_bytes(bytes(4 * 10))
    (model_dir / "model.onnx").write_bytes(_graph(location="weights.bin"))
    assert classifier.load(bundle.read(relist())).bundle.name == "digits"


def test_model_that_gives_nan_is_refused(model_dir: Path, relist: Callable[[], Path]) -> None:
    """The run at the start shows a model that gives no numbers."""
    (model_dir / "model.onnx").write_bytes(_graph(value=float("nan")))
    with pytest.raises(ModelError, match="finite numbers"):
        classifier.load(bundle.read(relist()))


def test_model_that_fails_to_run_is_refused(model_dir: Path, relist: Callable[[], Path]) -> None:
    """A graph that loads and cannot run is a bad model, not a crash."""
    (model_dir / "model.onnx").write_bytes(_graph(columns=7))
    with pytest.raises(ModelError, match=r"model\.onnx"):
        classifier.load(bundle.read(relist()))


def _graph(location: str | None = None, value: float = 0.0, columns: int = 10) -> bytes:
    """Make a model with the interface of digits that adds a table, in a file if wanted."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [columns], [value] * columns)
    if location is not None:
        table.ClearField("float_data")
        table.data_location = TensorProto.EXTERNAL
        table.external_data.add(key="location", value=location)
        table.external_data.add(key="offset", value="0")
        table.external_data.add(key="length", value=str(4 * columns))
    bounds = [
        helper.make_tensor(name, TensorProto.INT64, [1], [number])
        for name, number in (("from", 0), ("to", 10), ("axis", 1))
    ]
    nodes = [
        helper.make_node("Flatten", ["picture"], ["levels"]),
        helper.make_node("Slice", ["levels", "from", "to", "axis"], ["ten"]),
        helper.make_node("Add", ["ten", "table"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "adds",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [table, *bounds],
    )
    return bytes(
        onnx.ModelProto.SerializeToString(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        )
    )
