"""The cache of this machine: blobs by their digest, and small records by name.

    <root>/blobs/sha256/<hex>          a blob; it is written to tmp, synced, and then renamed
    <root>/notes/<kind>/<name>.json    a record about digests, which saves time in later runs
    <root>/tmp/<owner>@<machine>@...   unfinished files; removed when their process has ended

A process that is killed leaves no incomplete file under a final name. A cache that is lost costs
time but never a release.
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
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote

from deploy.errors import BlobCorrupt, disk_full_error, is_disk_full
from deploy.machine.process import ProcessId, has_ended, machine_id

CHUNK = 1 << 20
_STALE_SECONDS = 24 * 3600.0


class BlobWriter:
    """A file that hashes what is written to it, and becomes a blob of the cache by `commit`.

    At the end of the `with` block a file that was not committed is removed.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._hash = hashlib.sha256()
        with translate_full_disk(cache.root):
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed in __exit__
                dir=cache.temporary, prefix=owner_prefix(), delete=False
            )
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes.

        Raises:
            DiskFull: the cache's file system has no space left.
        """
        with translate_full_disk(self._cache.root):
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        """The digest of the bytes that were written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def commit(self) -> str:
        """Store the bytes in the cache under their digest, and return the digest.

        Raises:
            DiskFull: the cache's file system has no space left.
        """
        self.move_to(self._cache.path(self.digest))
        return self.digest

    def move_to(self, target: Path) -> None:
        """Move the file to its final name in one step; nothing can be written afterwards.

        Raises:
            DiskFull: the cache's file system has no space left.
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
    """The cache in one folder, which is created if it is missing.

    Args:
        root: the folder; any number of processes may share it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary = root / "tmp"
        with translate_full_disk(root):
            for folder in (root / "blobs" / "sha256", root / "notes", self.temporary):
                folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()

    def path(self, digest: str) -> Path:
        """Return where the blob of that digest is, or would be."""
        return self.root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has(self, digest: str, size: int) -> bool:
        """Return whether the cache has that blob; a blob of another size does not count."""
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def open(self, digest: str) -> BufferedReader:
        """Open a blob; the caller closes it.

        Raises:
            BlobCorrupt: the cache does not have it.
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
        """Return a small blob, checked against its digest.

        Raises:
            BlobCorrupt: the cache does not have it, or it is damaged; a damaged blob is dropped, so
                that the next run makes it again.
        """
        with self.open(digest) as file:
            data = file.read()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self.drop(digest)
            raise BlobCorrupt(
                "a cached blob does not have its digest; it was dropped from the cache",
                on=digest,
                next="run again",
            )
        return data

    def put(self, data: bytes) -> str:
        """Store a small blob and return its digest."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def writer(self) -> BlobWriter:
        """Return a writer for a new blob, to be used in a `with` block."""
        return BlobWriter(self)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Create a folder for unfinished files; it is removed at the end of the `with` block.

        Raises:
            DiskFull: the cache's file system has no space left.
        """
        with translate_full_disk(self.root):
            folder = tempfile.TemporaryDirectory(
                dir=self.temporary, prefix=owner_prefix(), ignore_cleanup_errors=True
            )
        with folder as name:
            yield Path(name)

    def drop(self, digest: str) -> None:
        """Remove a blob, if the cache has it."""
        self.path(digest).unlink(missing_ok=True)

    def write_note(self, kind: str, name: str, text: str) -> None:
        """Store a small record; one of the same name is replaced in one step."""
        target = self._note_path(kind, name)
        with self.writer() as writer:
            writer.write(text.encode())
            with translate_full_disk(self.root):
                target.parent.mkdir(exist_ok=True)
            writer.move_to(target)

    def read_note(self, kind: str, name: str) -> str | None:
        """Return the record of that name, or None."""
        try:
            return self._note_path(kind, name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def latest_note(self, kind: str) -> str | None:
        """Return the record of that kind that was stored last, or None."""
        notes = list((self.root / "notes" / kind).glob("*.json"))
        return (
            max(notes, key=lambda path: path.stat().st_mtime_ns).read_text(encoding="utf-8")
            if notes
            else None
        )

    def _note_path(self, kind: str, name: str) -> Path:
        return self.root / "notes" / kind / f"{quote(name, safe='')}.json"

    def _remove_abandoned(self) -> None:
        """Remove the unfinished files of killed processes."""
        for path in self.temporary.iterdir():
            with suppress(OSError):
                if _is_abandoned(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def owner_prefix() -> str:
    """Return how the names of this process's unfinished files begin."""
    owner = quote(str(replace(ProcessId.current(), user="")), safe="")
    return f"{owner}@{quote(machine_id(), safe='')}@"


def _is_abandoned(path: Path) -> bool:
    """Return whether no process will complete a file.

    Its process has ended. Where this is not known, it is older than any download takes.
    """
    owner, machine = map(unquote, f"{path.name}@@".split("@")[:2])
    return has_ended(owner, machine) or time.time() - path.stat().st_mtime > _STALE_SECONDS


@contextmanager
def translate_full_disk(place: Path) -> Iterator[None]:
    """Turn the system's error of a full disk into one that says where.

    Raises:
        DiskFull: the file system, or the user's quota on it, is full.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise disk_full_error(str(place)) from error
