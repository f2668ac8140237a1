from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from app import interface
from app.documents import DocumentError, Node

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGENET: dict[str, Any] = {
    "task": "image-classification",
    "model": "model.onnx",
    "input": {"name": "images", "dtype": "uint8", "shape": [None, 224, 200, 3], "layout": "NHWC"},
    "output": {
        "name": "probabilities",
        "dtype": "float32",
        "shape": [None, 1000],
        "activation": "none",
    },
    "preprocessing": {
        "color": "RGB",
        "background": [255, 255, 255],
        "crop": 0.875,
        "interpolation": "bicubic",
    },
    "labels": "labels.txt",
}


def test_uint8_model_is_read() -> None:
    """Dimensions are taken by the letters of the layout."""
    tensor = interface.read(Node(IMAGENET)).input
    assert (tensor.batch, tensor.height, tensor.width, tensor.channels) == (None, 224, 200, 3)


def test_neutral_arithmetic_is_allowed_on_uint8() -> None:
    """Spelling out that nothing is to be done is no fault."""
    spelt: dict[str, Any] = copy.deepcopy(IMAGENET)
    spelt["preprocessing"] |= {"scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1]}
    assert interface.read(Node(spelt)).preprocessing == interface.read(Node(IMAGENET)).preprocessing


@pytest.mark.parametrize(
    ("mutation", "at"),
    [
        (lambda d: d.update(task="speech"), "task"),
        (lambda d: d["input"].update(dtype="int8"), "input/dtype"),
        (lambda d: d["input"].update(layout="NWHC"), "input/layout"),
        (lambda d: d["input"].update(shape=[None, 224, 224]), "input/shape"),
        (lambda d: d["input"].update(shape=[None, 224, 224, 2]), "input/shape/3"),
        (lambda d: d["input"].update(shape=[None, 224, 224, 4]), "input/shape/3"),
        (lambda d: d["input"].update(shape=[None, 0, 224, 3]), "input/shape/1"),
        (lambda d: d["input"].update(shape=[None, 10**9, 224, 3]), "input/shape/1"),
        (lambda d: d["input"].update(shape=[8, 224, 224, 3]), "input/shape/0"),
        (lambda d: d["output"].update(shape=[None]), "output/shape"),
        (lambda d: d["output"].update(shape=[None, None]), "output/shape/1"),
        (lambda d: d["output"].update(activation="relu"), "output/activation"),
        (lambda d: d["preprocessing"].update(color="L"), "preprocessing/color"),
        (lambda d: d["preprocessing"].update(crop=0), "preprocessing/crop"),
        (lambda d: d["preprocessing"].update(crop=1.1), "preprocessing/crop"),
        (lambda d: d["preprocessing"].update(background=[0, 0]), "preprocessing/background"),
        (lambda d: d["preprocessing"].update(background=[0, 0, 256]), "preprocessing/background/2"),
        (lambda d: d["preprocessing"].update(interpolation="area"), "preprocessing/interpolation"),
        (lambda d: d["preprocessing"].update(scale=0.5), "preprocessing/scale"),
        (lambda d: d["preprocessing"].update(std=[1, 0, 1]), "preprocessing/std"),
        (lambda d: d["preprocessing"].update(mean=[1, 0]), "preprocessing/mean"),
        (lambda d: d["preprocessing"].update(blur=1), "preprocessing/blur"),
        (lambda d: d.pop("labels"), "labels"),
    ],
)
def test_bad_key_is_named(mutation: Callable[[dict[str, Any]], object], at: str) -> None:
    """What cannot be served is refused with its path."""
    document = copy.deepcopy(IMAGENET)
    mutation(document)
    with pytest.raises(DocumentError) as caught:
        interface.read(Node(document))
    assert caught.value.at == at
