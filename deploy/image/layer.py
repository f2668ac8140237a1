"""OCI layers that are written, and checked, in one pass; the same files give the same bytes.

The tar archive is deterministic: the caller gives the order, the owner is 0:0, the time is 0 and
the modes are 0755 and 0644. It is not compressed, because weights hardly get smaller, and because
its digest is then its diff id too. Source: OCI image spec, layer.md.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Protocol, TypeVar

from deploy.archive import create_header, pad
from deploy.cache import CHUNK

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
_END = 2 * tarfile.BLOCKSIZE


class Sink(Protocol):
    """A writer that gets the bytes of a layer."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Write the next bytes."""


class Member(Protocol):
    """A file of a layer: its path below the root, and its size in bytes."""

    @property
    def path(self) -> PurePosixPath:
        """The path."""

    @property
    def size(self) -> int:
        """The size."""


M = TypeVar("M", bound=Member)


@dataclass(frozen=True)
class Entry:
    """A file of a layer: its path below the root, its size in bytes, and its content in chunks."""

    path: PurePosixPath
    size: int
    chunks: Iterable[bytes | memoryview]


def write_layer(entries: Iterable[Entry], sink: Sink) -> None:
    """Write files, and the folders above them, as a tar archive.

    The memory that this takes does not depend on the sizes of the files.

    Raises:
        ValueError: the chunks of an entry have another length than its size.
    """
    for part in _lay_out(entries):
        if isinstance(part, bytes):
            sink.write(part)
        else:
            _write_content(part, sink)


def _lay_out(members: Iterable[M]) -> Iterator[bytes | M]:
    """Yield the parts of a layer in their order: each file itself in place of its content."""
    total = 0
    folders: set[PurePosixPath] = set()
    for member in members:
        for folder in reversed(member.path.parents):
            if folder.name and folder not in folders:
                folders.add(folder)
                header = create_header(str(folder), 0, kind=tarfile.DIRTYPE, mode=0o755)
                total += len(header)
                yield header
        header = create_header(str(member.path), member.size)
        padding = pad(member.size)
        total += len(header) + member.size + len(padding)
        yield header
        yield member
        yield padding
    yield bytes(_END + -(total + _END) % tarfile.RECORDSIZE)


def _write_content(entry: Entry, sink: Sink) -> None:
    size = 0
    for chunk in entry.chunks:
        sink.write(chunk)
        size += len(chunk)
    if size != entry.size:
        raise ValueError(f"{entry.path} has {size} bytes, not {entry.size}")


def read_exact_layer(
    members: Iterable[M], stream: IO[bytes]
) -> Iterator[tuple[M, Iterator[bytes]]]:
    """Yield the files of a layer that is byte for byte as `write_layer` makes it of such files.

    Nothing else can be in it then: no other file or folder, no link or device, no other owner or
    mode. The chunks of each file must be read before the caller asks for the next.

    Raises:
        ValueError: the layer has other bytes around the contents of its files.
    """
    for part in _lay_out(members):
        if not isinstance(part, bytes):
            yield part, _read_chunks(stream, part.size)
        elif stream.read(len(part)) != part:
            raise ValueError("the layer has another form")
    if stream.read(1):
        raise ValueError("the layer has more bytes")


def _read_chunks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (chunk := stream.read(min(size, CHUNK))):
        size -= len(chunk)
        yield chunk


def read_layer(stream: IO[bytes]) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Yield the files of a layer in their order; no more is read than the caller asks for.

    Each file must be read before the caller asks for the next.

    Raises:
        tarfile.TarError: the bytes are not a tar archive.
    """
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isreg() and (content := archive.extractfile(member)) is not None:
                yield PurePosixPath(member.name), content
