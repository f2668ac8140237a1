"""What a model takes and gives, as its manifest tells it. Owns the words of the manifest's ``interface``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.documents import Node

_COLOURS = {"RGB": 3, "BGR": 3, "L": 1}
_LARGEST_SIDE = 4096
_MOST_CLASSES = 1_000_000
_RGB = 3


@dataclass(frozen=True, slots=True)
class Input:
    """The tensor that the model takes: pictures of one size, ``batch`` of them (None: any number)."""

    name: str
    dtype: str
    layout: str
    batch: int | None
    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int | None, int, int, int]:
        """The shape in the order of the layout."""
        if self.layout == "NHWC":
            return (self.batch, self.height, self.width, self.channels)
        return (self.batch, self.channels, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Output:
    """The tensor that the model gives: a number for each class, made a probability by ``activation``."""

    name: str
    classes: int
    activation: str


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes numbers: flattened, cropped, resized, then (x * scale - mean) / std in each channel."""

    colour: str
    background: tuple[int, int, int]
    crop: float
    interpolation: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """The whole of it; ``model`` and ``labels`` are paths of files in the bundle."""

    model: str
    labels: str
    input: Input
    output: Output
    preprocessing: Preprocessing


def read(node: Node) -> Interface:
    """Read the manifest's ``interface``.

    Raises:
        DocumentError: A key is missing, unknown or holds what this application cannot serve.
    """
    members = node.exactly({"task", "model", "input", "output", "preprocessing", "labels"})
    members["task"].choice("image-classification")
    tensor = _input(members["input"])
    preprocessing = _preprocessing(members["preprocessing"], tensor)
    return Interface(
        members["model"].text(),
        members["labels"].text(),
        tensor,
        _output(members["output"]),
        preprocessing,
    )


def _input(node: Node) -> Input:
    members = node.exactly({"name", "dtype", "shape", "layout"})
    layout = members["layout"].choice("NHWC", "NCHW")
    shape = members["shape"].items()
    if len(shape) != len(layout):
        members["shape"].refuse(f"a dimension for each letter of {layout}")
    sides = dict(zip(layout, shape, strict=True))
    channels = sides["C"].whole(1, 3)
    if channels not in _COLOURS.values():
        sides["C"].refuse("1 or 3")
    return Input(
        name=members["name"].text(),
        dtype=members["dtype"].choice("uint8", "float32"),
        layout=layout,
        batch=_batch(sides["N"]),
        height=sides["H"].whole(1, _LARGEST_SIDE),
        width=sides["W"].whole(1, _LARGEST_SIDE),
        channels=channels,
    )


def _batch(node: Node) -> int | None:
    # A fixed batch above one would need padding pictures; no model here has asked for it.
    return None if node.value is None else node.whole(1, 1)


def _output(node: Node) -> Output:
    members = node.exactly({"name", "dtype", "shape", "activation"})
    members["dtype"].choice("float32")
    shape = members["shape"].items()
    if len(shape) != len(("pictures", "classes")):
        members["shape"].refuse("two dimensions, pictures and classes")
    _batch(shape[0])
    return Output(
        members["name"].text(),
        shape[1].whole(1, _MOST_CLASSES),
        members["activation"].choice("none", "softmax"),
    )


def _preprocessing(node: Node, tensor: Input) -> Preprocessing:
    members = node.exactly(
        {"color", "background", "crop", "interpolation"}, {"scale", "mean", "std"}
    )
    colour = members["color"].choice(*_COLOURS)
    if _COLOURS[colour] != tensor.channels:
        members["color"].refuse(f"a colour of as many channels as the input, {tensor.channels}")
    crop = members["crop"].number()
    if not 0 < crop <= 1:
        members["crop"].refuse("a share above 0 and up to 1")
    scale, mean, std = _arithmetic(members, tensor)
    return Preprocessing(
        colour=colour,
        background=_background(members["background"]),
        crop=crop,
        interpolation=members["interpolation"].choice("nearest", "bilinear", "bicubic", "lanczos"),
        scale=scale,
        mean=mean,
        std=std,
    )


def _background(node: Node) -> tuple[int, int, int]:
    levels = [level.whole(0, 255) for level in node.items()]
    if len(levels) != _RGB:
        node.refuse("red, green and blue")
    return (levels[0], levels[1], levels[2])


def _arithmetic(
    members: dict[str, Node], tensor: Input
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    scale = members["scale"].number() if "scale" in members else 1.0
    mean = (
        _numbers(members["mean"], tensor.channels)
        if "mean" in members
        else (0.0,) * tensor.channels
    )
    std = (
        _numbers(members["std"], tensor.channels) if "std" in members else (1.0,) * tensor.channels
    )
    if 0.0 in std:
        members["std"].refuse("numbers other than 0")
    if tensor.dtype == "uint8" and (scale != 1.0 or any(mean) or set(std) != {1.0}):
        changed = next(members[key] for key in ("scale", "mean", "std") if key in members)
        changed.refuse("no arithmetic on a uint8 input")
    return scale, mean, std


def _numbers(node: Node, channels: int) -> tuple[float, ...]:
    numbers = tuple(item.number() for item in node.items())
    # A three-channel neutral value for a grey model is what a manifest with all keys spelt out holds.
    if len(numbers) == _RGB and channels == 1 and len(set(numbers)) == 1:
        return numbers[:1]
    if len(numbers) != channels:
        node.refuse(f"a number for each of the {channels} channels")
    return numbers
