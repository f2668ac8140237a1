"""The file formats of weights, recognized by their first bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

from deploy.errors import FormatMismatch
from deploy.model.manifest import ModelManifest

SIGNATURE_BYTES = 9
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"


class _Format(NamedTuple):
    title: str
    signature: re.Pattern[bytes]
    description: str


# Sources: ONNX's onnx.proto, the safetensors README, GGUF's specification.
_FORMATS = {
    "onnx": _Format("ONNX", re.compile(rb"\x08"), "a protobuf that starts with 08 (ir_version)"),
    "safetensors": _Format(
        "safetensors",
        re.compile(rb"(?s).{4}\0{4}\{"),
        "the length of a header in eight bytes, and its brace",
    ),
    "gguf": _Format("GGUF", re.compile(rb"GGUF"), "the letters GGUF"),
}


def require_format(manifest: ModelManifest, path: str, start: bytes) -> None:
    """Refuse weights that are not of the format that their model manifest names.

    A pickle in particular is refused, because it runs code when it is loaded.

    Args:
        manifest: the model manifest.
        path: the file; only the file with the weights is checked.
        start: the first `SIGNATURE_BYTES` bytes of the file.

    Raises:
        FormatMismatch: the file does not begin like a file of that format.
    """
    expected = _FORMATS[manifest.format]
    if path != manifest.weights or expected.signature.match(start):
        return
    raise FormatMismatch(
        f"the model manifest says {manifest.format}, the file is {_guess_kind(start)}",
        on=f"{path} of {manifest.model}",
        next=f"export the model to {expected.title} and publish it under a new version",
        detail=f"  expected {expected.description}\n  actual   {start.hex(' ') or 'an empty file'}",
    )


def _guess_kind(start: bytes) -> str:
    if start.startswith(_PICKLE):
        return "a pickle"
    if start.startswith(_ZIP):
        return "a zip archive (as torch.save writes)"
    return "something else"
