"""Bodies of requests and responses that are read piece by piece."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from deploy.clients.oci.bodies import FileChunk, ResponseStream


def part(counts: list[int], start: int = 2, length: int = 5) -> FileChunk:
    """Return a chunk of a file with ten letters."""
    return FileChunk(io.BytesIO(b"abcdefghij"), start, length, counts.append)


def test_a_chunk_gives_its_part_of_the_file_and_no_more() -> None:
    """This holds for every size of a read."""
    counts: list[int] = []
    body = part(counts)
    assert [body.read(2), body.read(100), body.read(1), body.read()] == [b"cd", b"efg", b"", b""]
    assert sum(counts) == body.sent == 5


def test_a_chunk_can_be_sent_again_and_is_counted_once() -> None:
    """A rewind reports the bytes as not sent."""
    counts: list[int] = []
    body = part(counts)
    body.read(3)
    body.rewind()
    assert sum(counts) == 0
    assert body.read() == b"cdefg"
    assert sum(counts) == 5


def test_a_chunk_has_a_known_length() -> None:
    """Some registries refuse a body of unknown length."""
    prepared = requests.Request("PUT", "http://registry.example/", data=part([])).prepare()
    assert prepared.headers["Content-Length"] == "5"
    assert "Transfer-Encoding" not in prepared.headers


class Breaking(io.BytesIO):
    """Bytes whose second read fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise ConnectionResetError
        return super().read(1)


class BrokenOffError(Exception):
    """The translated error."""


@contextmanager
def reaching() -> Iterator[None]:
    """Translate failures."""
    try:
        yield
    except OSError as error:
        raise BrokenOffError from error


def test_a_failed_read_raises_the_translated_error() -> None:
    """A close closes the response as well."""
    raw = Breaking(b"ab")
    arriving = ResponseStream(raw, reaching)
    assert arriving.read(5) == b"a"
    with pytest.raises(BrokenOffError):
        arriving.read(5)
    arriving.close()
    assert raw.closed
