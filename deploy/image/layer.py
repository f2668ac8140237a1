"""Files as one OCI layer, written in one pass: the same files always give the same bytes.

The tar is deterministic (order given by the caller, owner 0:0, mtime 0, modes 0755 and 0644) and uncompressed, because
weights do not compress and because its digest is then its diff id as well. Source: OCI image spec, layer.md.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Protocol

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
_BLOCK = 512
_RECORD = tarfile.RECORDSIZE


class Sink(Protocol):
    """Where the layer's bytes go."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Takes the next bytes."""


@dataclass(frozen=True)
class Entry:
    """A file of the layer: its path below the root, its size in bytes, and its bytes as they come."""

    path: PurePosixPath
    size: int
    chunks: Iterable[bytes]


def write(entries: Iterable[Entry], sink: Sink) -> None:
    """Writes the entries, and the folders above them, as a tar; memory does not grow with the sizes.

    Raises:
        ValueError: an entry's chunks do not add up to its size.
    """
    written = 0
    folders: set[PurePosixPath] = set()
    for entry in entries:
        for folder in reversed(entry.path.parents):
            if folder.name and folder not in folders:
                folders.add(folder)
                written += _send(sink, _header(folder, tarfile.DIRTYPE, 0o755, 0))
        written += _send(sink, _header(entry.path, tarfile.REGTYPE, 0o644, entry.size))
        written += _body(entry, sink)
    closing = 2 * _BLOCK
    _send(sink, bytes(closing + -(written + closing) % _RECORD))


def _body(entry: Entry, sink: Sink) -> int:
    size = sum(_send(sink, chunk) for chunk in entry.chunks)
    if size != entry.size:
        raise ValueError(f"{entry.path} has {size} bytes, not {entry.size}")
    return size + _send(sink, bytes(-size % _BLOCK))


def _send(sink: Sink, data: bytes) -> int:
    sink.write(data)
    return len(data)


def _header(path: PurePosixPath, kind: bytes, mode: int, size: int) -> bytes:
    member = tarfile.TarInfo(f"{path}")
    member.type = kind
    member.mode = mode
    member.size = size
    return member.tobuf(tarfile.PAX_FORMAT)


def read(stream: IO[bytes]) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The files of a layer in their order, each to be read before the next is asked for; stop early to read less.

    Raises:
        tarfile.TarError: the bytes are no tar.
    """
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isreg() and (content := archive.extractfile(member)) is not None:
                yield PurePosixPath(member.name), content
