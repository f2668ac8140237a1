"""The formats of a model's files, recognized by their bytes."""

from __future__ import annotations

import io
import pickletools
import re
import warnings
from pathlib import PurePosixPath
from typing import NamedTuple

from deploy.errors import FormatMismatch
from deploy.git_lfs import is_pointer
from deploy.model.manifest import ModelDescription

_HEAD_BYTES = 512
_SHOWN_BYTES = 9
_ZIP = b"PK\x03\x04"
# torch.save writes a zip archive with this entry.
_ZIPPED_PICKLE = b"data.pkl"
_PROTOCOL = b"\x80"
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib"})
_ENOUGH_OPCODES = 8


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


class FormatCheck:
    """A check of one file of a model, which gets the file's bytes while they are read.

    The weights must have the format that the description names. No file may be a pickle, because a
    pickle runs code when it is loaded, or the pointer that Git LFS leaves in place of a file.

    Args:
        description: the description of the model.
        path: the path of the file.
    """

    def __init__(self, description: ModelDescription, path: str) -> None:
        self._description = description
        self._path = path
        self._head = b""
        self._tail = b""
        self._has_zipped_pickle = False

    def add(self, data: bytes | memoryview) -> None:
        """Look at the next bytes of the file."""
        self._head += data[: _HEAD_BYTES - len(self._head)]
        if self._head.startswith(_ZIP) and not self._has_zipped_pickle:
            window = self._tail + data
            self._has_zipped_pickle = _ZIPPED_PICKLE in window
            self._tail = window[-len(_ZIPPED_PICKLE) :]

    def require(self) -> None:
        """Refuse the file, of which all bytes were added, if it may not be part of the model.

        Raises:
            FormatMismatch: the weights are not of their format, or the file is a pickle or a
                pointer.
        """
        if is_pointer(self._head):
            raise self._error(
                "a file is a Git LFS pointer, not the file itself",
                next="run `git lfs pull` in the folder of the model, then publish it again",
            )
        if self._path == self._description.weights:
            self._require_weights()
        elif self._pickle:
            raise self._error(
                f"a file is {self._pickle}, which runs code when it is loaded",
                next="export it to a format without code, such as safetensors or JSON, "
                "or take it out; then publish under a new version",
            )

    def _require_weights(self) -> None:
        expected = _FORMATS[self._description.format]
        if expected.signature.match(self._head):
            return
        kind = "a zip archive" if self._head.startswith(_ZIP) else "something else"
        start = self._head[:_SHOWN_BYTES].hex(" ") or "an empty file"
        raise self._error(
            f"the model manifest says {self._description.format}, "
            f"the file is {self._pickle or kind}",
            next=f"export the model to {expected.title} and publish it under a new version",
            detail=f"  expected {expected.description}\n  actual   {start}",
        )

    @property
    def _pickle(self) -> str:
        """The kind of pickle that the file is; empty if it is none."""
        if self._has_zipped_pickle:
            return "a pickle in a zip archive (as torch.save writes)"
        if _begins_pickle(self._head):
            return "a pickle"
        is_named = PurePosixPath(self._path).suffix.lower() in _PICKLE_SUFFIXES
        return "a pickle by its name" if is_named else ""

    def _error(self, what: str, *, next: str, detail: str = "") -> FormatMismatch:  # noqa: A002 - as errors call it
        place = f"{self._path} of {self._description.name}@{self._description.version}"
        return FormatMismatch(what, on=place, next=next, detail=detail)


def _begins_pickle(head: bytes) -> bool:
    """Return whether a file begins with the opcodes of a pickle (protocols 2 to 5).

    Arrays can begin with the same two bytes, so that the opcodes after them are read, too.
    """
    if not _PICKLE.match(head):
        return False
    stream = io.BytesIO(head)
    count = 0
    try:
        with warnings.catch_warnings():
            # The texts in other bytes may have escapes that Python will no longer have.
            warnings.simplefilter("ignore")
            for _ in pickletools.genops(stream):
                count += 1
    except ValueError:
        # The head ends within an opcode, or has something else in place of the next one.
        return stream.tell() == len(head) or count >= _ENOUGH_OPCODES
    # What follows a whole pickle is another one (as torch.save wrote them), or nothing.
    return head[stream.tell() :][:1] in (b"", _PROTOCOL)
