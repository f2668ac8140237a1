"""Tar archives whose bytes depend on nothing but the names, modes and contents of their files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import IO


def create_member(
    name: str, size: int, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644
) -> tarfile.TarInfo:
    """Return the header of a file or folder, with the owner 0:0 and the time 0."""
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = size
    member.mode = mode
    return member


def create_header(
    name: str, size: int, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644
) -> bytes:
    """Return the bytes of such a header; long names are written as POSIX pax headers."""
    return create_member(name, size, kind=kind, mode=mode).tobuf(tarfile.PAX_FORMAT)


def pad(size: int) -> bytes:
    """Return the zeros that must follow a file of that many bytes."""
    return bytes(-size % tarfile.BLOCKSIZE)


def pack_files(files: Mapping[str, bytes], target: IO[bytes] | None = None) -> IO[bytes]:
    """Write small files to a tar archive and return it, to be read from its start.

    Args:
        files: the contents by name.
        target: an empty file for the archive; a file in memory if there is none.
    """
    packed = target or io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            archive.addfile(create_member(name, len(data)), io.BytesIO(data))
    packed.seek(0)
    return packed
