"""Trains the digits model and writes it as an author's directory: `python training/train.py --seed 0 --version 1 model`.

One hidden layer, gradient descent with momentum, in NumPy. Source of the pictures in digits.npz: the test set of Optical
Recognition of Handwritten Digits (UCI Machine Learning Repository, E. Alpaydin and C. Kaynak, CC BY 4.0).
"""

# ruff: noqa: INP001  a program, not part of a package

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
PROMISED = (7, 3)
SIDE = 8
LARGEST = 16
HIDDEN = 32
ROUNDS = 30
BATCH = 50
RATE = 0.03
MOMENTUM = 0.9
DOUBT = 0.1

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """The weights and biases of the hidden and of the last layer; the first of them take levels from 0 to 16."""

    arrays: tuple[Floats, Floats, Floats, Floats]

    def hidden(self, pictures: Floats) -> Floats:
        """What the hidden layer makes of flat pictures."""
        return np.asarray(np.maximum(pictures @ self.arrays[0] + self.arrays[1], 0), np.float32)

    def probabilities(self, pictures: Floats) -> Floats:
        """How likely each picture shows each digit."""
        sums = self.hidden(pictures) @ self.arrays[2] + self.arrays[3]
        powers = np.exp(sums - sums.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def train(pictures: Floats, digits: npt.NDArray[np.uint8], seed: int) -> Network:
    """A network that has seen the pictures; the same seed gives the same one."""
    random = np.random.default_rng(seed)
    # Asking for less than certainty keeps the network from claiming it.
    scaled = pictures / np.float32(LARGEST)
    wanted = np.eye(len(NAMES), dtype=np.float32)[digits] * np.float32(1 - DOUBT) + np.float32(
        DOUBT / len(NAMES)
    )
    shapes = ((SIDE * SIDE, HIDDEN), (HIDDEN,), (HIDDEN, len(NAMES)), (len(NAMES),))
    arrays = [
        random.normal(0, (2 / shape[0]) ** 0.5 if len(shape) > 1 else 0, shape).astype(np.float32)
        for shape in shapes
    ]
    speeds = [np.zeros_like(array) for array in arrays]
    for _ in range(ROUNDS):
        order = random.permutation(len(scaled))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            slopes = _slopes(arrays, scaled[chosen], wanted[chosen])
            speeds = [
                MOMENTUM * speed - RATE * slope for speed, slope in zip(speeds, slopes, strict=True)
            ]
            arrays = [array + speed for array, speed in zip(arrays, speeds, strict=True)]
    return Network((arrays[0] / np.float32(LARGEST), arrays[1], arrays[2], arrays[3]))


def _slopes(arrays: list[Floats], pictures: Floats, wanted: Floats) -> tuple[Floats, ...]:
    """How the mean loss of a batch changes with each array."""
    network = Network((arrays[0], arrays[1], arrays[2], arrays[3]))
    hidden = network.hidden(pictures)
    off = (network.probabilities(pictures) - wanted) / np.float32(len(pictures))
    behind = np.where(hidden > 0, off @ arrays[2].T, np.float32(0))
    return pictures.T @ behind, np.sum(behind, axis=0), hidden.T @ off, np.sum(off, axis=0)


def graph(network: Network) -> bytes:
    """The network in ONNX: pictures in, probabilities out."""
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

# `model` is the file that the format speaks of; all else here is between the author and the service.
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
    """Writes an author's directory; returns the share of unseen pictures that the network tells rightly."""
    with np.load(PICTURES) as file:
        pictures = file["pictures"].reshape(-1, SIDE * SIDE).astype(np.float32)
        digits = file["digits"]
    network = train(pictures[:TRAINED], digits[:TRAINED], seed)
    told = network.probabilities(pictures[TRAINED:])
    accuracy = float((told.argmax(axis=1) == digits[TRAINED:]).mean())
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph(network))
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    text = HEAD.format(version=version, seed=seed, accuracy=accuracy, side=SIDE, largest=LARGEST)
    for digit in PROMISED:
        # The first that it was not trained on and tells rightly.
        place = TRAINED + int(
            ((told.argmax(axis=1) == digit) & (digits[TRAINED:] == digit)).argmax()
        )
        levels = pictures[place].reshape(SIDE, SIDE).astype(int).tolist()
        (folder / "golden" / f"{NAMES[digit]}.json").write_text(
            json.dumps(levels) + "\n", encoding="utf-8"
        )
        text += CASE.format(
            name=NAMES[digit], digit=digit, probability=float(told[place - TRAINED, digit])
        )
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the digits model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--version", default="1")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    print(f"accuracy {write(given.folder, given.version, given.seed):.3f}")  # noqa: T201 - what the program says
