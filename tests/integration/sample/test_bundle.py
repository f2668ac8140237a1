"""Both versions of the sample are built from the real wheels and answer right."""

import base64
import hashlib
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from numpy.typing import NDArray
from PIL import Image

from sample import bundle
from sample.recipes import RECIPES

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["1", "2"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample") / version
    bundle.write(version, directory)
    return directory


def prepare(picture: bytes) -> NDArray[np.uint8]:
    """Flatten on white, cut the centre square, reduce it to 224 pixels."""
    image = Image.open(io.BytesIO(picture)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    side = round(min(image.size) * 224 / 256)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))


def score(built: Path, case: dict[str, Any]) -> tuple[str, float]:
    body = json.loads((built / case["request"]["body"]).read_bytes())
    (picture,) = json.loads(body["input"])
    session = onnxruntime.InferenceSession(built / "model.onnx")
    pictures = prepare(base64.b64decode(picture))[None]
    (answer,) = session.run(None, {"images": pictures})[0]
    labels = (built / "labels.txt").read_text(encoding="utf-8").splitlines()
    return labels[answer.argmax()], float(answer.max()) * 100


def test_the_model_has_the_pinned_bytes(version: str, built: Path) -> None:
    """The build gives the same file here as anywhere."""
    data = (built / "model.onnx").read_bytes()

    assert hashlib.sha256(data).hexdigest() == RECIPES[version].model_sha256


def test_the_golden_cases_hold(built: Path) -> None:
    """The model in ONNX Runtime answers each picture as model.toml says."""
    described = tomllib.loads((built / "model.toml").read_text(encoding="utf-8"))

    for case in described["golden"]:
        first, second = case["expect"]["json"]
        label, percent = score(built, case)

        assert label == first["equals"]
        assert percent == pytest.approx(second["near"], abs=second["tolerance"])


def test_the_labels_are_one_a_class(built: Path) -> None:
    """There are 1000 of them, and all are different."""
    labels = (built / "labels.txt").read_text(encoding="utf-8").splitlines()

    assert len(labels) == len(set(labels)) == 1000
    assert labels[404] == "n02690373 airliner"


def test_the_licences_come_along(built: Path) -> None:
    """Terms of weights, names and pictures are in the bundle."""
    text = (built / "LICENSE").read_text(encoding="utf-8")

    assert all(word in text for word in ("Apache License", "MIT License", "CC0"))
