"""The program that makes the digits model in `tests/models/digits`.

The model is a tiny classifier with another interface than the ImageNet sample: handwritten digits
of 8x8 grey levels, one hidden layer, logits instead of probabilities, channels first. The files are
committed; run this only to change them: `python tests/models/make_digits.py`.

Source of the pictures: the test set of Optical Recognition of Handwritten Digits (UCI, E. Alpaydin
and C. Kaynak), as in scikit-learn.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # it carries no types
from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]  # as above

HERE = Path(__file__).parent / "digits"
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LARGEST_LEVEL = 16
TRAINED = 1500
HIDDEN = 32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """The weights and biases of the two layers."""

    layers: tuple[tuple[Floats, Floats], tuple[Floats, Floats]]

    def percent(self, levels: npt.NDArray[np.uint8]) -> Floats:
        """Return the probability of each digit, in percent, for grey levels from 0 to 255."""
        (first, first_bias), (second, second_bias) = self.layers
        scaled = levels.reshape(-1).astype(np.float32) * np.float32(LARGEST_LEVEL / 255)
        logits = np.maximum(scaled @ first + first_bias, 0) @ second + second_bias
        powers = np.exp(logits - logits.max())
        return np.asarray(100 * powers / powers.sum(), np.float32)


def train() -> tuple[Network, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Train on the first digits; return the network, and the other pictures and answers."""
    digits = load_digits()
    network = MLPClassifier((HIDDEN,), random_state=0, max_iter=400).fit(
        digits.data[:TRAINED], digits.target[:TRAINED]
    )
    layers = [
        (w.astype(np.float32), b.astype(np.float32))
        for w, b in zip(network.coefs_, network.intercepts_, strict=True)
    ]
    levels = np.rint(digits.images[TRAINED:] * 255 / LARGEST_LEVEL).astype(np.uint8)
    return Network((layers[0], layers[1])), levels, digits.target[TRAINED:]


def graph(network: Network) -> bytes:
    """Return the network as an ONNX model: flatten, two layers, no softmax."""
    (first, first_bias), (second, second_bias) = network.layers
    nodes = [
        helper.make_node("Flatten", ["picture"], ["levels"]),
        helper.make_node("Gemm", ["levels", "first", "first_bias"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "second", "second_bias"], ["logits"]),
    ]
    weights = {
        "first": first,
        "first_bias": first_bias,
        "second": second,
        "second_bias": second_bias,
    }
    network_graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(LABELS)])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(
        network_graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="make_digits",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def body(levels: npt.NDArray[np.uint8]) -> str:
    """Return the request that scores one picture.

    The list of pictures is a string of JSON, as the tutorial's clients send it.
    """
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", optimize=True)
    return json.dumps({"input": json.dumps([base64.b64encode(file.getvalue()).decode()])}) + "\n"


def golden(name: str, label: str, percent: float) -> str:
    """Return one golden case of `model.toml`."""
    return f"""
[[golden]]
name = "{name}"

[golden.request]
method = "POST"
path = "/score"
headers = {{ Content-Type = "application/json" }}
body = "golden/{name}.json"

[golden.expect]
status = 200
within_ms = 5000

[[golden.expect.json]]
at = "/result/0/0/0/0"
equals = "{label}"

[[golden.expect.json]]
at = "/result/0/0/0/1"
near = {percent:.2f}
tolerance = 0.5
"""


HEAD = """# Made by make_digits.py.
name = "digits"
version = "1"
format = "onnx"

[interface]
task = "image-classification"
model = "model.onnx"
labels = "labels.txt"

[interface.input]
name = "picture"
dtype = "float32"
shape = [-1, 1, 8, 8]
layout = "NCHW"

[interface.output]
name = "logits"
dtype = "float32"
shape = [-1, 10]
activation = "softmax"

[interface.preprocessing]
color = "L"
background = [0, 0, 0]
crop = 1.0
interpolation = "bilinear"
scale = {scale}
mean = [0.0]
std = [1.0]
"""

TAIL = """
[metadata]
accuracy = {accuracy:.3f}
licence = "CC-BY-4.0"
source = "Optical Recognition of Handwritten Digits, UCI Machine Learning Repository"
"""


def main() -> None:
    """Train, then write every file of the author's directory."""
    network, pictures, answers = train()
    correct = [
        int(network.percent(picture).argmax()) == answer
        for picture, answer in zip(pictures, answers, strict=True)
    ]
    (HERE / "golden").mkdir(parents=True, exist_ok=True)
    (HERE / "model.onnx").write_bytes(graph(network))
    (HERE / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    cases = ""
    for digit in (3, 7):
        picture = pictures[int(np.flatnonzero(answers == digit)[0])]
        (HERE / "golden" / f"{LABELS[digit]}.json").write_text(body(picture), encoding="utf-8")
        cases += golden(LABELS[digit], LABELS[digit], float(network.percent(picture)[digit]))
    text = (
        HEAD.format(scale=LARGEST_LEVEL / 255)
        + TAIL.format(accuracy=float(np.mean(correct)))
        + cases
    )
    (HERE / "model.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
