"""The model at work: an ONNX Runtime session that is held to what the manifest says of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

# The runtime reports its use to its maker unless this is set before it is imported. A service must
# not call out of the network that it runs in.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime  # type: ignore[import-untyped]  # it carries no types

from app.bundle import Bundle, ModelError

if TYPE_CHECKING:
    from app.interface import Input, Output

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
_TOP = 3
# Larger batches gain little on a CPU, and a session keeps the memory of its largest.
_LARGEST_BATCH = 8
# More threads for one picture gain little, and cost memory.
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True)
class Guess:
    """A label and how sure the model is of it, in percent with two decimals."""

    label: str
    percent: float


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model that is loaded, checked and warmed up; may be called from many threads."""

    bundle: Bundle
    session: onnxruntime.InferenceSession

    def classify(self, pictures: list[npt.NDArray[Any]]) -> list[list[Guess]]:
        """Return the best three guesses for each prepared picture, the likeliest first."""
        size = self.bundle.interface.input.batch or _LARGEST_BATCH
        batches = (
            np.ascontiguousarray(np.stack(pictures[at : at + size]))
            for at in range(0, len(pictures), size)
        )
        return [self._best(row) for batch in batches for row in self._run(batch)]

    def _run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        wanted = self.bundle.interface
        (scores,) = self.session.run([wanted.output.name], {wanted.input.name: batch})
        if scores.shape != (len(batch), wanted.output.classes) or not np.isfinite(scores).all():
            raise ModelError(
                f"{self.bundle.model}: output {wanted.output.name}",
                f"finite numbers of shape {(len(batch), wanted.output.classes)}",
                f"shape {scores.shape}" if np.isfinite(scores).all() else "NaN or infinity",
            )
        return _softmax(scores) if wanted.output.activation == "softmax" else scores

    def _best(self, row: npt.NDArray[np.float32]) -> list[Guess]:
        order = np.argsort(-row, kind="stable")[:_TOP]
        return [
            Guess(self.bundle.labels[index], round(100 * float(row[index]), 2)) for index in order
        ]


def load(bundle: Bundle) -> Classifier:
    """Open the model, hold it to its interface and run it once on a blank picture.

    Raises:
        ModelError: The file is no ONNX model, or differs from what the manifest says.
    """
    classifier = Classifier(bundle, _session(bundle))
    _check_input(bundle, classifier.session)
    _check_output(bundle, classifier.session)
    tensor = bundle.interface.input
    try:
        classifier.classify([np.zeros(tensor.shape[1:], tensor.dtype)])
    except ModelError:
        raise
    except Exception as error:  # The runtime's own errors have no common base but Exception.
        raise ModelError(str(bundle.model), "a model that runs", _line(error)) from error
    return classifier


def _session(bundle: Bundle) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # A single request uses up to that many cores. Threads that wait for work must sleep: by
    # default they spin, which takes the cores from other requests and from other replicas.
    options.intra_op_num_threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Errors are raised as well, and reported in one line. The runtime logs fatal ones only.
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)
    try:
        return onnxruntime.InferenceSession(
            bundle.model, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # The runtime's own errors have no common base but Exception.
        raise ModelError(str(bundle.model), "an ONNX model", _line(error)) from error


def _check_input(bundle: Bundle, session: onnxruntime.InferenceSession) -> None:
    tensor: Input = bundle.interface.input
    names = [actual.name for actual in session.get_inputs()]
    if names != [tensor.name]:
        raise ModelError(
            f"{bundle.model}: inputs", f"only {tensor.name}", ", ".join(names) or "none"
        )
    _check_tensor(
        f"{bundle.model}: input {tensor.name}",
        _TYPES[tensor.dtype],
        tensor.shape,
        session.get_inputs()[0],
    )


def _check_output(bundle: Bundle, session: onnxruntime.InferenceSession) -> None:
    tensor: Output = bundle.interface.output
    outputs = {actual.name: actual for actual in session.get_outputs()}
    if tensor.name not in outputs:
        raise ModelError(f"{bundle.model}: outputs", tensor.name, ", ".join(outputs) or "none")
    shape = (bundle.interface.input.batch, tensor.classes)
    _check_tensor(
        f"{bundle.model}: output {tensor.name}", _TYPES["float32"], shape, outputs[tensor.name]
    )


def _check_tensor(
    what: str, kind: str, shape: tuple[int | None, ...], actual: onnxruntime.NodeArg
) -> None:
    if actual.type != kind:
        raise ModelError(what, kind, actual.type)
    # A dimension that the model leaves open is a name or None there, and takes any size.
    fixed = [
        (said, real)
        for said, real in zip(shape, actual.shape, strict=False)
        if isinstance(real, int)
    ]
    if len(shape) != len(actual.shape) or any(said != real for said, real in fixed):
        raise ModelError(what, f"shape {list(shape)}", f"shape {actual.shape}")


def _softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers: npt.NDArray[np.float32] = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
