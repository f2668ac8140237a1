"""A model store in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import BinaryIO


class MemoryStore:
    """A model store that keeps its files in a dictionary, which tests can read and change.

    Args:
        chunk: The bytes of each piece of a stream.

    Attributes:
        files: The bytes of each name.
        streamed: The names that were streamed, in order.
        uploaded: The names that were uploaded, in order.
    """

    def __init__(self, chunk: int = 1 << 20) -> None:
        self.location = "memory"
        self.files: dict[str, bytes] = {}
        self.streamed: list[str] = []
        self.uploaded: list[str] = []
        self._chunk = chunk
        self._one = threading.Lock()

    def size(self, name: str) -> int | None:
        return len(self.files[name]) if name in self.files else None

    def read(self, name: str, limit: int) -> bytes | None:
        return self.files[name][: limit + 1] if name in self.files else None

    def stream(self, name: str) -> Iterator[bytes] | None:
        if name not in self.files:
            return None
        self.streamed.append(name)
        data = self.files[name]
        return (data[start : start + self._chunk] for start in range(0, len(data), self._chunk))

    def create(self, name: str, data: bytes) -> bool:
        with self._one:
            if name in self.files:
                return False
            self.files[name] = data
            return True

    def replace(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def upload(self, name: str, file: BinaryIO) -> None:
        data = b"".join(iter(lambda: file.read(self._chunk), b""))
        self.files[name] = data
        self.uploaded.append(name)

    def folders(self, prefix: str) -> list[str]:
        below = (
            name.removeprefix(f"{prefix}/") for name in self.files if name.startswith(f"{prefix}/")
        )
        return sorted({rest.split("/", 1)[0] for rest in below if "/" in rest})
