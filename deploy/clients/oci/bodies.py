"""The bodies of requests and responses that are too large for memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from deploy.progress import Advance


class FileChunk(io.RawIOBase):
    """A part of a file as a request body of known length.

    Args:
        file: The file.
        start: The offset of its first byte.
        length: The number of its bytes.
        advance: Receives the number of bytes that were sent, and a negative number on a rewind.
    """

    def __init__(self, file: BinaryIO, start: int, length: int, advance: Advance) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._advance = advance
        self.sent = 0
        file.seek(start)

    def __len__(self) -> int:
        return self._length

    def tell(self) -> int:
        # Without a position requests cannot compute the length and sends HTTP chunks, which some
        # registries refuse.
        return self.sent

    def rewind(self) -> None:
        """Return to the start, and report the bytes as not sent."""
        self._advance(-self.sent)
        self.sent = 0
        self._file.seek(self._start)

    def read(self, size: int = -1) -> bytes:
        left = self._length - self.sent
        data = self._file.read(left if size < 0 else min(size, left))
        self.sent += len(data)
        self._advance(len(data))
        return data


class ResponseStream(io.RawIOBase):
    """A response's bytes as they arrive.

    Args:
        raw: The response of urllib3.
        translate_errors: Returns a context that translates failures into errors of this project.
    """

    def __init__(
        self,
        raw: Any,  # noqa: ANN401 - urllib3 is imported lazily
        translate_errors: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._raw = raw
        self._translate_errors = translate_errors

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with self._translate_errors():
            return bytes(self._raw.read(None if size < 0 else size))

    def close(self) -> None:
        self._raw.close()
        super().close()
