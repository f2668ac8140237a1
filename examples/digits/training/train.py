"""Training of the digits model, which is written as an author's directory.

Run `python training/train.py --seed 0 --version 1 model`.

The network has one hidden layer and is trained by gradient descent with momentum, in NumPy.

Source of the pictures in digits.npz: the test set of Optical Recognition of Handwritten Digits (UCI
Machine Learning Repository, E. Alpaydin and C. Kaynak, CC BY 4.0).
"""

# ruff: noqa: INP001 - a program, not part of a package

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

PICTURES = Path(__file__).parent / "digits.npz"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAINED = 1500
GOLDEN = (7, 3)
SIDE = 8
LARGEST = 16
HIDDEN = 32
ROUNDS = 30
BATCH = 50
RATE = 0.03
MOMENTUM = 0.9
SMOOTHING = 0.1

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """The weights and biases of the hidden and the last layer; the input is levels from 0 to 16."""

    arrays: tuple[Floats, Floats, Floats, Floats]

    def hidden(self, pictures: Floats) -> Floats:
        """Return the output of the hidden layer for flat pictures."""
        return np.asarray(np.maximum(pictures @ self.arrays[0] + self.arrays[1], 0), np.float32)

    def probabilities(self, pictures: Floats) -> Floats:
        """Return the probability of each digit for each picture."""
        sums = self.hidden(pictures) @ self.arrays[2] + self.arrays[3]
        powers = np.exp(sums - sums.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def train(pictures: Floats, digits: npt.NDArray[np.uint8], seed: int) -> Network:
    """Return a network trained on the pictures; the same seed gives the same network."""
    random = np.random.default_rng(seed)
    # Targets below certainty (label smoothing) keep the probabilities below it too.
    scaled = pictures / np.float32(LARGEST)
    targets = np.eye(len(NAMES), dtype=np.float32)[digits] * np.float32(1 - SMOOTHING) + np.float32(
        SMOOTHING / len(NAMES)
    )
    shapes = ((SIDE * SIDE, HIDDEN), (HIDDEN,), (HIDDEN, len(NAMES)), (len(NAMES),))
    arrays = [
        random.normal(0, (2 / shape[0]) ** 0.5 if len(shape) > 1 else 0, shape).astype(np.float32)
        for shape in shapes
    ]
    velocities = [np.zeros_like(array) for array in arrays]
    for _ in range(ROUNDS):
        order = random.permutation(len(scaled))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            gradients = _gradients(arrays, scaled[batch], targets[batch])
            velocities = [
                MOMENTUM * velocity - RATE * gradient
                for velocity, gradient in zip(velocities, gradients, strict=True)
            ]
            arrays = [array + velocity for array, velocity in zip(arrays, velocities, strict=True)]
    return Network((arrays[0] / np.float32(LARGEST), arrays[1], arrays[2], arrays[3]))


def _gradients(arrays: list[Floats], pictures: Floats, targets: Floats) -> tuple[Floats, ...]:
    """Return the gradient of a batch's mean loss with respect to each array."""
    network = Network((arrays[0], arrays[1], arrays[2], arrays[3]))
    hidden = network.hidden(pictures)
    errors = (network.probabilities(pictures) - targets) / np.float32(len(pictures))
    hidden_errors = np.where(hidden > 0, errors @ arrays[2].T, np.float32(0))
    return (
        pictures.T @ hidden_errors,
        np.sum(hidden_errors, axis=0),
        hidden.T @ errors,
        np.sum(errors, axis=0),
    )


def graph(network: Network) -> bytes:
    """Return the network as an ONNX model: pictures in, probabilities out."""
    nodes = [
        helper.make_node("Flatten", ["picture"], ["levels"]),
        helper.make_node("Gemm", ["levels", "first", "first_bias"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "last", "last_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    names = ("first", "first_bias", "last", "last_bias")
    made = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(NAMES)])],
        [
            numpy_helper.from_array(array, name)
            for array, name in zip(network.arrays, names, strict=True)
        ],
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="train"
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


HEAD = """# Made by training/train.py with seed {seed}.
name = "digits"
version = "{version}"
format = "onnx"

# `format` is that of the file `model`; only the author and the service use the other keys.
[interface]
model = "model.onnx"
names = "labels.txt"
picture = {{ side = {side}, largest = {largest} }}

[metadata]
accuracy = {accuracy:.3f}
seed = {seed}
licence = "CC-BY-4.0"
"""

CASE = """
[[golden]]
name = "{name}"
request = {{ method = "POST", path = "/predict", body = "golden/{name}.json" }}

[golden.expect]
within_ms = 2000
json = [
    {{ at = "/digit", equals = {digit} }},
    {{ at = "/probability", near = {probability:.3f}, tolerance = 0.01 }},
]
"""


def write(folder: Path, version: str, seed: int) -> float:
    """Write an author's directory; return the accuracy on pictures outside the training set."""
    with np.load(PICTURES) as file:
        pictures = file["pictures"].reshape(-1, SIDE * SIDE).astype(np.float32)
        digits = file["digits"]
    network = train(pictures[:TRAINED], digits[:TRAINED], seed)
    probabilities = network.probabilities(pictures[TRAINED:])
    accuracy = float((probabilities.argmax(axis=1) == digits[TRAINED:]).mean())
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph(network))
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    text = HEAD.format(version=version, seed=seed, accuracy=accuracy, side=SIDE, largest=LARGEST)
    for digit in GOLDEN:
        # The first picture outside the training set that the network recognises.
        index = TRAINED + int(
            ((probabilities.argmax(axis=1) == digit) & (digits[TRAINED:] == digit)).argmax()
        )
        levels = pictures[index].reshape(SIDE, SIDE).astype(int).tolist()
        (folder / "golden" / f"{NAMES[digit]}.json").write_text(
            json.dumps(levels) + "\n", encoding="utf-8"
        )
        text += CASE.format(
            name=NAMES[digit], digit=digit, probability=float(probabilities[index - TRAINED, digit])
        )
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the digits model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--version", default="1")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(f"accuracy {write(arguments.folder, arguments.version, arguments.seed):.3f}")  # noqa: T201 - the output of the program
