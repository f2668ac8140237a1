"""Model stores: a folder, or an object store by URL (Azure Blob, S3, Google Cloud Storage), through one library.

Credentials never pass through here: the library reads the environment of its cloud (AZURE_*, AWS_*, GOOGLE_*).
Source: obstore's documentation, "Stores" and "Authentication".
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from deploy.cache import CHUNK, translate_full_disk
from deploy.errors import StoreUnreachable

if TYPE_CHECKING:
    import obstore
    import obstore.store


class ObjectStore:
    """A store behind obstore.

    Args:
        connect: gives one of the library's stores.
        where: its location as a person would write it, without credentials.
        folder: for a local store, its folder; it is made by the first thing written, so that looking changes nothing.
    """

    def __init__(
        self,
        connect: Callable[[], obstore.store.ObjectStore],
        where: str,
        folder: Path | None = None,
    ) -> None:
        self._connect = connect
        self._folder = folder
        self.location = where

    @cached_property
    def _store(self) -> obstore.store.ObjectStore:
        with translate_full_disk(self._folder or Path()), _asking(self.location):
            return self._connect()

    @property
    def _absent(self) -> bool:
        with _asking(self.location):
            return self._folder is not None and not self._folder.is_dir()

    def _refuse_special(self, name: str) -> None:
        """Refuses what is neither file nor folder: a pipe would be waited for without end."""
        if self._folder is None:
            return
        with _asking(f"{self.location}/{name}"), suppress(FileNotFoundError, NotADirectoryError):
            mode = (self._folder / name).stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EINVAL, "it is no file")

    def size(self, name: str) -> int | None:
        import obstore

        if self._absent:
            return None
        with _asking(f"{self.location}/{name}"):
            try:
                return int(obstore.head(self._store, name)["size"])
            except FileNotFoundError:
                return None

    def read(self, name: str, limit: int) -> bytes | None:
        chunks = self.stream(name)
        if chunks is None:
            return None
        data = b""
        for chunk in chunks:
            data += chunk
            if len(data) > limit:
                break
        return data[: limit + 1]

    def stream(self, name: str) -> Iterator[bytes] | None:
        import obstore

        if self._absent:
            return None
        self._refuse_special(name)
        with _asking(f"{self.location}/{name}"):
            try:
                found = obstore.get(self._store, name)
            except FileNotFoundError:
                return None
        return self._chunks(found, name)

    def _chunks(self, found: obstore.GetResult, name: str) -> Iterator[bytes]:
        with _asking(f"{self.location}/{name}"):
            if self._folder is not None:
                yield from self._ranges(name, found.meta["size"])
                return
            for chunk in found.stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    def _ranges(self, name: str, size: int) -> Iterator[bytes]:
        """A local file's bytes: the library streams one in small pieces from thread to thread, at a tenth of the speed."""
        import obstore

        for start in range(0, size, CHUNK):
            yield bytes(
                obstore.get_range(self._store, name, start=start, end=min(start + CHUNK, size))
            )

    def create(self, name: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with _asking(f"{self.location}/{name}"):
            try:
                obstore.put(self._store, name, data, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        import obstore

        with _asking(f"{self.location}/{name}"):
            obstore.put(self._store, name, data)

    def upload(self, name: str, file: BinaryIO) -> None:
        import obstore

        with _asking(f"{self.location}/{name}"):
            obstore.put(self._store, name, file)

    def folders(self, prefix: str) -> list[str]:
        import obstore

        if self._absent:
            return []
        with _asking(f"{self.location}/{prefix}"):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return sorted(path.rsplit("/", 1)[-1] for path in found)


@contextmanager
def _asking(on: str) -> Iterator[None]:
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise _denied(error, on) from error
    except (BaseError, OSError) as error:
        if _is(errno.EACCES, error):
            raise _denied(error, on) from error
        if _is(errno.ENOSPC, error):
            with translate_full_disk(Path(on)):
                raise OSError(errno.ENOSPC, str(error)) from error
        raise StoreUnreachable(
            "the model store did not do what it was asked",
            on=on,
            next="check the address and the network, then run again",
            detail=first_line(error),
        ) from error


def _is(number: int, error: Exception) -> bool:
    """Whether the operating system gave that error; the library passes its own on as text."""
    return getattr(error, "errno", None) == number or f"os error {number})" in str(error)


def _denied(error: Exception, on: str) -> StoreUnreachable:
    return StoreUnreachable(
        "the model store refused the login or the permission",
        on=on,
        next="check the account's rights",
        detail=first_line(error),
    )


def first_line(error: Exception) -> str:
    """The first line of the library's message; the rest is its debug output."""
    return (
        f"  {str(error).strip().splitlines()[0]}"
        if str(error).strip()
        else f"  {type(error).__name__}"
    )
