"""OCI layers that are written in one pass; the same files always give the same bytes.

The tar archive is deterministic: the caller gives the order, the owner is 0:0, the time is 0 and
the modes are 0755 and 0644. It is not compressed, because weights hardly get smaller, and because
its digest is then its diff id too. Source: OCI image spec, layer.md.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Protocol

from deploy.archive import create_header, pad

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
_END = 2 * tarfile.BLOCKSIZE


class Sink(Protocol):
    """A writer that gets the bytes of a layer."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Write the next bytes."""


@dataclass(frozen=True)
class Entry:
    """A file of a layer: its path below the root, its size in bytes, and its content in chunks."""

    path: PurePosixPath
    size: int
    chunks: Iterable[bytes]


def write_layer(entries: Iterable[Entry], sink: Sink) -> None:
    """Write files, and the folders above them, as a tar archive.

    The memory that this takes does not depend on the sizes of the files.

    Raises:
        ValueError: the chunks of an entry have another length than its size.
    """
    total = 0
    folders: set[PurePosixPath] = set()
    for entry in entries:
        for folder in reversed(entry.path.parents):
            if folder.name and folder not in folders:
                folders.add(folder)
                header = create_header(str(folder), 0, kind=tarfile.DIRTYPE, mode=0o755)
                total += _write(sink, header)
        total += _write(sink, create_header(str(entry.path), entry.size))
        total += _write_content(entry, sink)
    _write(sink, bytes(_END + -(total + _END) % tarfile.RECORDSIZE))


def _write_content(entry: Entry, sink: Sink) -> int:
    size = sum(_write(sink, chunk) for chunk in entry.chunks)
    if size != entry.size:
        raise ValueError(f"{entry.path} has {size} bytes, not {entry.size}")
    return size + _write(sink, pad(size))


def _write(sink: Sink, data: bytes) -> int:
    sink.write(data)
    return len(data)


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
