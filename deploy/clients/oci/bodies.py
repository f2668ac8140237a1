"""The bodies of requests and answers that are too large to be held in memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

Advance = Callable[[int], None]


class FileChunk(io.RawIOBase):
    """A stretch of a file as a request body of known length that reports what was sent."""

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
        # Without a position requests takes the length for unknown, and sends chunks that not every registry takes.
        return self.sent

    def rewind(self) -> None:
        """Starts again, and takes back what was reported."""
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
    """An answer's bytes as they arrive.

    Args:
        raw: urllib3's response.
        reaching: a context that turns what can break on the way into errors of this project.
    """

    def __init__(self, raw: Any, reaching: Callable[[], AbstractContextManager[None]]) -> None:  # noqa: ANN401 - urllib3 is imported lazily
        self._raw = raw
        self._reaching = reaching

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with self._reaching():
            return bytes(self._raw.read(None if size < 0 else size))

    def close(self) -> None:
        self._raw.close()
        super().close()
