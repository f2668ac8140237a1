"""The cache of this machine: bytes by their digest, and small records by name.

    <root>/blobs/sha256/<hex>    complete and true when the name exists; written elsewhere, synced, then renamed
    <root>/notes/<kind>/<name>.json    what was learned about digests, so that it need not be learned again
    <root>/tmp/<owner>@<machine>@...    what is under way; removed by the next run where its process has ended

Killed at any point, it holds no half file under a final name. Losing it costs time, never a release.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote, unquote

from deploy.errors import BlobCorrupt, disk_full_error, is_disk_full
from deploy.machine.process import ProcessId, has_ended, machine_id

CHUNK = 1 << 20
_STALE_SECONDS = 24 * 3600.0


class BlobWriter:
    """A file that hashes what is written to it and takes its place in the cache only when told to.

    Leaving the `with` block without `keep` removes it.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._hash = hashlib.sha256()
        with translate_full_disk(cache.root):
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed in __exit__
                dir=cache.temporary, prefix=_mark(), delete=False
            )
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Appends bytes.

        Raises:
            DiskFull: the cache's file system has no room.
        """
        with translate_full_disk(self._cache.root):
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        """The digest of what has been written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def commit(self) -> str:
        """Puts the bytes into the cache under their digest, which it returns.

        Raises:
            DiskFull: the cache's file system has no room.
        """
        self.move_to(self._cache.path(self.digest))
        return self.digest

    def move_to(self, target: Path) -> None:
        """Gives the bytes their final name, at once or not at all; nothing can be written after it.

        Raises:
            DiskFull: the cache's file system has no room.
        """
        with translate_full_disk(self._cache.root):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            Path(self._file.name).replace(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


class Cache:
    """The cache below one folder, which is made if it is missing.

    Args:
        root: the folder; it may be shared by any number of processes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary = root / "tmp"
        with translate_full_disk(root):
            for folder in (root / "blobs" / "sha256", root / "notes", self.temporary):
                folder.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def path(self, digest: str) -> Path:
        """Where the bytes of that digest are, or would be."""
        return self.root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has(self, digest: str, size: int) -> bool:
        """Whether the bytes are here in full; an entry of another length counts as absent."""
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def open(self, digest: str) -> BinaryIO:
        """The bytes, to be read and closed by the caller.

        Raises:
            BlobCorrupt: they are not here.
        """
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise BlobCorrupt(
                "the cache has lost a blob",
                on=digest,
                next="run the stage again; it fetches what is missing",
            ) from None

    def read(self, digest: str) -> bytes:
        """Small bytes as a whole, checked against their digest.

        Raises:
            BlobCorrupt: they are not here, or not these; the entry is dropped, so that the next run makes it anew.
        """
        with self.open(digest) as file:
            data = file.read()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self.drop(digest)
            raise BlobCorrupt(
                "a cached blob has other bytes than its name says; it was dropped",
                on=digest,
                next="run again",
            )
        return data

    def put(self, data: bytes) -> str:
        """Keeps small bytes and returns their digest."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def writer(self) -> BlobWriter:
        """A new blob, to be used as a context."""
        return BlobWriter(self)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for files that are not complete yet; it is gone when the `with` block is left.

        Raises:
            DiskFull: the cache's file system has no room.
        """
        with translate_full_disk(self.root):
            made = tempfile.TemporaryDirectory(
                dir=self.temporary, prefix=_mark(), ignore_cleanup_errors=True
            )
        with made as name:
            yield Path(name)

    def drop(self, digest: str) -> None:
        """Forgets bytes that turned out not to be what they are called."""
        self.path(digest).unlink(missing_ok=True)

    def write_note(self, kind: str, name: str, text: str) -> None:
        """Keeps a small record, replacing the one of that name at once or not at all."""
        target = self._note(kind, name)
        with self.writer() as writer:
            writer.write(text.encode())
            with translate_full_disk(self.root):
                target.parent.mkdir(exist_ok=True)
            writer.move_to(target)

    def read_note(self, kind: str, name: str) -> str | None:
        """The record of that name, if one was kept."""
        try:
            return self._note(kind, name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def latest_note(self, kind: str) -> str | None:
        """The record of that kind that was kept last."""
        notes = list((self.root / "notes" / kind).glob("*.json"))
        return (
            max(notes, key=lambda path: path.stat().st_mtime_ns).read_text(encoding="utf-8")
            if notes
            else None
        )

    def _note(self, kind: str, name: str) -> Path:
        return self.root / "notes" / kind / f"{quote(name, safe='')}.json"

    def _sweep(self) -> None:
        """Removes what killed processes left behind."""
        for path in self.temporary.iterdir():
            with suppress(OSError):
                if _is_left(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mark() -> str:
    """How the names begin of what this process has under way."""
    return f"{quote(str(replace(ProcessId.current(), person='')), safe='')}@{quote(machine_id(), safe='')}@"


def _is_left(path: Path) -> bool:
    """Whether nobody goes on with it: its process has ended; or, where that cannot be told, a day is longer than any download."""
    owner, on = map(unquote, f"{path.name}@@".split("@")[:2])
    return has_ended(owner, on) or time.time() - path.stat().st_mtime > _STALE_SECONDS


@contextmanager
def translate_full_disk(place: Path) -> Iterator[None]:
    """Turns "no space left" into an error that says where.

    Raises:
        DiskFull: the file system, or the user's quota on it, is exhausted.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise disk_full_error(str(place)) from error
