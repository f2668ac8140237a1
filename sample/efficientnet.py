"""EfficientNet-Lite, as an ONNX graph built from its trained weights.

The graph takes uint8 pictures and gives probabilities: the normalisation is in
it, and so is the softmax. The same weights give the same bytes on every machine.

Sources: M. Tan and Q. V. Le, "EfficientNet: Rethinking Model Scaling for
Convolutional Neural Networks", 2019 (blocks, compound scaling); the Lite
variants' published table (no squeeze-and-excitation, ReLU6, fixed stem and
head); names of tensors as in the package efficientnet-lite-pytorch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnx import TensorProto, helper

from sample.graph import Graph
from sample.weights import Tensors

INPUT = "images"
OUTPUT = "probabilities"
# Pixels are normalised as (x - MEAN) / DEVIATION; both are exact in float32.
MEAN = 127.0
DEVIATION = 128.0


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind; the first of them may shrink the picture."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


@dataclass(frozen=True)
class Architecture:
    """The measures in which the networks of the family differ."""

    name: str
    size: int
    stem: int
    stages: tuple[Stage, ...]
    head: int
    classes: int


@dataclass(frozen=True)
class Block:
    """One inverted residual block, in the order of the weights' names."""

    index: int
    inputs: int
    stage: Stage
    stride: int

    @property
    def is_residual(self) -> bool:
        """Whether the block's input can be added to its output."""
        return self.stride == 1 and self.inputs == self.stage.filters


def deepen(architecture: Architecture, name: str, factor: float) -> Architecture:
    """Repeat blocks more often, save in the first and last stage."""
    first, *middle, last = architecture.stages
    deeper = (replace(stage, repeats=math.ceil(factor * stage.repeats)) for stage in middle)
    return replace(architecture, name=name, stages=(first, *deeper, last))


LITE0 = Architecture(
    name="efficientnet-lite0",
    size=224,
    stem=32,
    stages=(
        Stage(repeats=1, kernel=3, stride=1, expansion=1, filters=16),
        Stage(repeats=2, kernel=3, stride=2, expansion=6, filters=24),
        Stage(repeats=2, kernel=5, stride=2, expansion=6, filters=40),
        Stage(repeats=3, kernel=3, stride=2, expansion=6, filters=80),
        Stage(repeats=3, kernel=5, stride=1, expansion=6, filters=112),
        Stage(repeats=4, kernel=5, stride=2, expansion=6, filters=192),
        Stage(repeats=1, kernel=3, stride=1, expansion=6, filters=320),
    ),
    head=1280,
    classes=1000,
)
# Trained at 240 pixels; at 224 it has the interface of LITE0.
LITE1 = deepen(LITE0, "efficientnet-lite1", 1.1)


def blocks(architecture: Architecture) -> Iterator[Block]:
    """Yield the blocks of a network, first to last."""
    inputs = architecture.stem
    index = 0
    for stage in architecture.stages:
        for repeat in range(stage.repeats):
            yield Block(index, inputs, stage, stage.stride if repeat == 0 else 1)
            inputs = stage.filters
            index += 1


def build(architecture: Architecture, weights: Tensors) -> bytes:
    """Return the network as the bytes of an ONNX file.

    Raises:
        graph.ShapeError: A tensor is missing, has another shape or type, or is
            not part of the architecture.
    """
    graph = Graph(weights, architecture.size)
    value = _normalise(graph)
    stem = (architecture.stem, 3, 3)
    value = graph.convolve(value, ("_conv_stem", "_bn0"), stem, stride=2)
    value = _clip(graph, value)
    for block in blocks(architecture):
        value = _add_block(graph, value, block)
    head = (architecture.head, architecture.stages[-1].filters, 1)
    value = graph.convolve(value, ("_conv_head", "_bn1"), head)
    _classify(graph, _clip(graph, value), architecture)
    graph.check_all_used()
    return _serialise(graph, architecture)


def _normalise(graph: Graph) -> str:
    mean = graph.constant("mean", MEAN)
    deviation = graph.constant("deviation", DEVIATION)
    graph.constant("zero", 0.0)
    graph.constant("six", 6.0)
    value = graph.node("Transpose", [INPUT], perm=[0, 3, 1, 2])
    value = graph.node("Cast", [value], to=TensorProto.FLOAT)
    value = graph.node("Sub", [value, mean])
    return graph.node("Div", [value, deviation])


def _clip(graph: Graph, value: str) -> str:
    return graph.node("Clip", [value, "zero", "six"])


def _add_block(graph: Graph, entry: str, block: Block) -> str:
    stage = block.stage
    prefix = f"_blocks.{block.index}."
    width = block.inputs * stage.expansion
    value = entry
    if stage.expansion != 1:
        names = (f"{prefix}_expand_conv", f"{prefix}_bn0")
        value = graph.convolve(value, names, (width, block.inputs, 1))
        value = _clip(graph, value)
    names = (f"{prefix}_depthwise_conv", f"{prefix}_bn1")
    value = graph.convolve(
        value, names, (width, 1, stage.kernel), stride=block.stride, groups=width
    )
    value = _clip(graph, value)
    names = (f"{prefix}_project_conv", f"{prefix}_bn2")
    value = graph.convolve(value, names, (stage.filters, width, 1))
    return graph.node("Add", [value, entry]) if block.is_residual else value


def _classify(graph: Graph, value: str, architecture: Architecture) -> None:
    classes = architecture.classes
    features = architecture.head
    layer = (
        graph.constant("_fc.weight", graph.take("_fc.weight", classes, features)),
        graph.constant("_fc.bias", graph.take("_fc.bias", classes)),
    )
    value = graph.node("GlobalAveragePool", [value])
    value = graph.node("Flatten", [value], axis=1)
    value = graph.node("Gemm", [value, *layer], transB=1)
    graph.node("Softmax", [value], OUTPUT, axis=1)


def _serialise(graph: Graph, architecture: Architecture) -> bytes:
    size = architecture.size
    classes = architecture.classes
    pictures: list[str | int | None] = ["batch", size, size, 3]
    return graph.serialise(
        architecture.name,
        helper.make_tensor_value_info(INPUT, TensorProto.UINT8, pictures),
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]),
    )
