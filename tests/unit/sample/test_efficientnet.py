"""EfficientNet-Lite graphs are valid, run, and are the same bytes each time."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from numpy.typing import NDArray

from sample import efficientnet
from sample.efficientnet import LITE0, LITE1, Architecture, Stage
from sample.graph import ShapeError

SMALL = Architecture(
    name="small",
    size=32,
    stem=4,
    stages=(
        Stage(repeats=1, kernel=3, stride=1, expansion=1, filters=4),
        Stage(repeats=2, kernel=5, stride=2, expansion=2, filters=6),
        Stage(repeats=1, kernel=3, stride=2, expansion=2, filters=8),
    ),
    head=10,
    classes=5,
)


def norm(noise: np.random.Generator, name: str, count: int) -> dict[str, NDArray[Any]]:
    return {
        f"{name}.weight": noise.normal(size=count).astype("<f4"),
        f"{name}.bias": noise.normal(size=count).astype("<f4"),
        f"{name}.running_mean": noise.normal(size=count).astype("<f4"),
        f"{name}.running_var": noise.uniform(0.5, 2, count).astype("<f4"),
        f"{name}.num_batches_tracked": np.asarray(7, "<i8"),
    }


def random_weights(architecture: Architecture = SMALL) -> dict[str, NDArray[Any]]:
    noise = np.random.default_rng(1)
    made: dict[str, NDArray[Any]] = {}

    def layer(name: str, after: str, *shape: int) -> None:
        made[f"{name}.weight"] = noise.normal(size=shape).astype("<f4")
        made.update(norm(noise, after, shape[0]))

    layer("_conv_stem", "_bn0", architecture.stem, 3, 3, 3)
    for block in efficientnet.blocks(architecture):
        stage = block.stage
        prefix = f"_blocks.{block.index}."
        width = block.inputs * stage.expansion
        if stage.expansion != 1:
            layer(f"{prefix}_expand_conv", f"{prefix}_bn0", width, block.inputs, 1, 1)
        kernel = (stage.kernel, stage.kernel)
        layer(f"{prefix}_depthwise_conv", f"{prefix}_bn1", width, 1, *kernel)
        layer(f"{prefix}_project_conv", f"{prefix}_bn2", stage.filters, width, 1, 1)
    last = architecture.stages[-1].filters
    layer("_conv_head", "_bn1", architecture.head, last, 1, 1)
    shape = (architecture.classes, architecture.head)
    made["_fc.weight"] = noise.normal(size=shape).astype("<f4")
    made["_fc.bias"] = noise.normal(size=architecture.classes).astype("<f4")
    return made


def convolve(picture: NDArray[Any], weight: NDArray[Any], stride: int, groups: int) -> NDArray[Any]:
    """Convolve as the definition says, one position after the other."""
    outputs, inputs, kernel, _ = weight.shape
    size = -(-picture.shape[1] // stride)
    total = max((size - 1) * stride + kernel - picture.shape[1], 0)
    edge = (total // 2, total - total // 2)
    padded = np.pad(picture, ((0, 0), edge, edge))
    result = np.zeros((outputs, size, size))
    for output in range(outputs):
        first = output // (outputs // groups) * inputs
        for row in range(size):
            for column in range(size):
                top = row * stride
                left = column * stride
                window = padded[first : first + inputs, top : top + kernel, left : left + kernel]
                result[output, row, column] = np.sum(window * weight[output])
    return result


def expected(
    architecture: Architecture, made: dict[str, NDArray[Any]], picture: NDArray[Any]
) -> NDArray[Any]:
    """Compute the network in plain numpy, without folding anything."""

    def layer(
        value: NDArray[Any], name: str, after: str, stride: int = 1, groups: int = 1
    ) -> NDArray[Any]:
        value = convolve(value, made[f"{name}.weight"], stride, groups)
        parts = ("weight", "bias", "running_mean", "running_var")
        gain, bias, mean, variance = (made[f"{after}.{part}"][:, None, None] for part in parts)
        return np.asarray((value - mean) / np.sqrt(variance + 1e-3) * gain + bias)

    value = (picture.astype(float).transpose(2, 0, 1) - 127) / 128
    value = layer(value, "_conv_stem", "_bn0", 2).clip(0, 6)
    for block in efficientnet.blocks(architecture):
        entry = value
        prefix = f"_blocks.{block.index}."
        if block.stage.expansion != 1:
            value = layer(value, f"{prefix}_expand_conv", f"{prefix}_bn0").clip(0, 6)
        value = layer(
            value, f"{prefix}_depthwise_conv", f"{prefix}_bn1", block.stride, len(value)
        ).clip(0, 6)
        value = layer(value, f"{prefix}_project_conv", f"{prefix}_bn2")
        value = value + entry if block.is_residual else value
    value = layer(value, "_conv_head", "_bn1").clip(0, 6).mean((1, 2))
    logits = made["_fc.weight"] @ value + made["_fc.bias"]
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def pictures(count: int, size: int = SMALL.size) -> NDArray[np.uint8]:
    noise = np.random.default_rng(2)
    return noise.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_graph_is_valid() -> None:
    """ONNX's own checker accepts the graph, shapes included."""
    model = onnx.load_from_string(efficientnet.build(SMALL, random_weights()))

    onnx.checker.check_model(model, full_check=True)


def test_the_interface_is_pictures_in_and_probabilities_out() -> None:
    """Names, types and shapes are the ones that the bundle describes."""
    session = onnxruntime.InferenceSession(efficientnet.build(SMALL, random_weights()))

    (entry,), (result,) = session.get_inputs(), session.get_outputs()

    assert (entry.name, entry.type, entry.shape) == (
        "images",
        "tensor(uint8)",
        ["batch", 32, 32, 3],
    )
    assert (result.name, result.type, result.shape) == (
        "probabilities",
        "tensor(float)",
        ["batch", 5],
    )


@pytest.mark.parametrize("size", [32, 31])
def test_the_answers_are_those_of_the_plain_computation(size: int) -> None:
    """Folding, padding and residuals change nothing, on even and odd sizes."""
    architecture = replace(SMALL, size=size)
    made = random_weights()
    batch = pictures(2, size)
    session = onnxruntime.InferenceSession(efficientnet.build(architecture, made))

    answers = session.run(None, {"images": batch})[0]

    wanted = [expected(architecture, made, picture) for picture in batch]
    np.testing.assert_allclose(answers, wanted, atol=1e-4)


def test_the_bytes_are_the_same_each_time() -> None:
    """The order of the weights in their file does not matter either."""
    made = random_weights()
    turned = dict(reversed(made.items()))

    assert efficientnet.build(SMALL, made) == efficientnet.build(SMALL, turned)


@pytest.mark.parametrize("name", ["_conv_stem.weight", "_blocks.1._bn2.bias", "_fc.bias"])
def test_a_missing_tensor_is_named(name: str) -> None:
    """Weights that lack a tensor are refused."""
    made = random_weights()
    del made[name]

    with pytest.raises(ShapeError, match=f"{name} is missing"):
        efficientnet.build(SMALL, made)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor[:-1],
        lambda tensor: tensor.astype("<f8"),
        lambda tensor: tensor.astype("<i8"),
        lambda tensor: tensor[None],
    ],
)
def test_a_tensor_of_another_shape_or_type_is_named(change: Any) -> None:
    """Weights of another network are refused, with what was expected."""
    made = random_weights()
    made["_fc.weight"] = change(made["_fc.weight"])

    with pytest.raises(ShapeError, match=r"_fc\.weight is .* not float32 \(5, 10\)"):
        efficientnet.build(SMALL, made)


def test_a_tensor_left_over_is_named() -> None:
    """Weights of a deeper network are refused, too."""
    made = random_weights() | {"_blocks.9._bn0.weight": np.zeros(4, "<f4")}

    with pytest.raises(ShapeError, match=r"_blocks\.9\._bn0\.weight"):
        efficientnet.build(SMALL, made)


def test_lite1_is_lite0_with_more_blocks() -> None:
    """The published depth factor gives 16 and 21 blocks of the same widths."""
    zero, one = (list(efficientnet.blocks(each)) for each in (LITE0, LITE1))

    assert (len(zero), len(one)) == (16, 21)
    assert {block.stage.filters for block in zero} == {block.stage.filters for block in one}
