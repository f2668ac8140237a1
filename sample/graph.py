"""An ONNX graph in the making: nodes, constants, and the size of the picture.

Batch normalisation is folded into the convolution before it, in double
precision. Every operation used for that is exactly rounded, so the constants
are the same bytes on every machine.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper

from sample import SampleError
from sample.weights import Tensors

_BATCH_NORM_EPSILON = 1e-3
_OPSET = 17
_IR_VERSION = 8


class ShapeError(SampleError):
    """The weights do not belong to the architecture."""


class Graph:
    """Collects the nodes of a network and the weights that they take."""

    def __init__(self, weights: Tensors, size: int) -> None:
        self._weights = weights
        self._size = size
        self._used: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        output: str | None = None,
        **attributes: int | list[int],
    ) -> str:
        """Append an operation; return the name of its result."""
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        made = helper.make_node(kind, inputs, [name], name=name)
        made.attribute.extend(
            helper.make_attribute(key, attributes[key]) for key in sorted(attributes)
        )
        self._nodes.append(made)
        return name

    def constant(self, name: str, values: ArrayLike) -> str:
        """Add float32 numbers under a name; return the name."""
        array = np.asarray(values, dtype="<f4")
        self._constants.append(
            TensorProto(
                name=name,
                data_type=TensorProto.FLOAT,
                dims=array.shape,
                raw_data=array.tobytes(),
            )
        )
        return name

    def take(self, name: str, *shape: int) -> NDArray[np.float64]:
        """Use a trained tensor, in double precision.

        Raises:
            ShapeError: It is missing, or has another shape or type.
        """
        tensor = self._weights.get(name)
        if tensor is None:
            raise ShapeError(f"tensor {name} is missing")
        if tensor.shape != shape or tensor.dtype != np.dtype("<f4"):
            raise ShapeError(f"tensor {name} is {tensor.dtype} {tensor.shape}, not float32 {shape}")
        self._used.add(name)
        return tensor.astype(np.float64)

    def convolve(
        self,
        value: str,
        names: tuple[str, str],
        shape: tuple[int, int, int],
        *,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        """Convolve and normalise; a picture shrinks by the stride.

        Args:
            value: What to convolve.
            names: The convolution's and the normalisation's, among the weights.
            shape: Outputs, inputs of a group, and side of the kernel.
            stride: Steps between two positions of the kernel.
            groups: Parts of the input that do not see each other.

        Raises:
            ShapeError: A tensor is missing, or has another shape or type.
        """
        outputs, inputs, kernel = shape
        convolution, norm = names
        scale, shift = self._fold(norm, outputs)
        weight = self.take(f"{convolution}.weight", outputs, inputs, kernel, kernel)
        weight *= scale[:, None, None, None]
        constants = (
            self.constant(f"{convolution}.weight", weight),
            self.constant(f"{convolution}.bias", shift),
        )
        return self.node(
            "Conv",
            [value, *constants],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=self._pads(kernel, stride),
            group=groups,
        )

    def check_all_used(self) -> None:
        """Make sure that no trained tensor was left out.

        Raises:
            ShapeError: One was, so the weights are another network's.
        """
        # Batches are counted while training only.
        counts = {name for name in self._weights if name.endswith("batches_tracked")}
        unknown = sorted(self._weights.keys() - self._used - counts)
        if unknown:
            raise ShapeError(f"{len(unknown)} tensors are of no use here, such as {unknown[0]}")

    def serialise(
        self, name: str, entry: onnx.ValueInfoProto, result: onnx.ValueInfoProto
    ) -> bytes:
        """Give the model's bytes: the same for the same nodes and constants."""
        model = helper.make_model(
            helper.make_graph(self._nodes, name, [entry], [result], self._constants),
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            producer_name="twinship",
        )
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _fold(self, norm: str, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weight, bias, mean, variance = (
            self.take(f"{norm}.{part}", count)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + _BATCH_NORM_EPSILON)
        return scale, bias - mean * scale

    def _pads(self, kernel: int, stride: int) -> list[int]:
        """Pad as TensorFlow's "SAME" does: the odd pixel goes to the far side."""
        before = self._size
        self._size = math.ceil(self._size / stride)
        total = max((self._size - 1) * stride + kernel - before, 0)
        near = total // 2
        return [near, near, total - near, total - near]
