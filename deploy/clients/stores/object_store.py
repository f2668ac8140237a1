"""A folder or an object store (Azure Blob, S3, Google Cloud Storage), through obstore.

Credentials come from the environment (AWS_*, GOOGLE_*), which the library reads itself; those for
Azure come from `deploy.clients.azure.blob`.
Source: obstore's documentation, "Stores" and "Authentication".
"""

from __future__ import annotations

import errno
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from deploy.cache import CHUNK
from deploy.clients.stores.refusals import is_denial, is_taken, require_container
from deploy.errors import StoreUnreachable, disk_full_error
from deploy.text import hide_queries

if TYPE_CHECKING:
    import obstore
    import obstore.store

_RANGE = 8 << 20


class ObjectStore:
    """A store of obstore.

    Args:
        connect: Returns one of the library's stores.
        location: Its path or URL; a login or a signature in it is never shown.
        folder: The folder of a local store. The first write creates it; reading creates nothing.
        readers: How many ranges of a large object are read at the same time.
    """

    def __init__(
        self,
        connect: Callable[[], obstore.store.ObjectStore],
        location: str,
        folder: Path | None = None,
        readers: int = 1,
    ) -> None:
        self._connect = connect
        self._folder = folder
        self._readers = readers
        self.location = hide_queries(location)

    @cached_property
    def _store(self) -> obstore.store.ObjectStore:
        with _translate_errors(self.location):
            return self._connect()

    @property
    def _is_missing(self) -> bool:
        with _translate_errors(self.location):
            return self._folder is not None and not self._folder.is_dir()

    def _refuse_special(self, name: str) -> None:
        """Refuse a name that is neither file nor folder: reading a pipe may never end."""
        if self._folder is None:
            return
        with (
            _translate_errors(f"{self.location}/{name}"),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            mode = (self._folder / name).stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EINVAL, "it is not a file")

    def size(self, name: str) -> int | None:
        import obstore

        if self._is_missing:
            return None
        with _translate_errors(f"{self.location}/{name}"):
            try:
                return int(obstore.head(self._store, name)["size"])
            except FileNotFoundError as error:
                require_container(error, self.location)
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

        if self._is_missing:
            return None
        self._refuse_special(name)
        with _translate_errors(f"{self.location}/{name}"):
            try:
                found = obstore.get(self._store, name)
            except FileNotFoundError as error:
                require_container(error, self.location)
                return None
        return self._read_chunks(found, name)

    def _read_chunks(self, found: obstore.GetResult, name: str) -> Iterator[bytes]:
        with _translate_errors(f"{self.location}/{name}"):
            size = found.meta["size"]
            if size <= CHUNK:
                yield bytes(found.bytes())
                return
            if self._folder is not None:
                yield from self._read_ranges(name, size)
                return
            if self._readers > 1 and size >= 2 * _RANGE:
                yield from self._read_ahead(name, size)
                return
            for chunk in found.stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    def _read_ahead(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a large object in ranges, of which some are read ahead.

        One connection does not use a fast network. A range that is cut is read again.
        """
        ahead: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(self._readers) as pool:
            try:
                for start in range(0, size, _RANGE):
                    end = min(start + _RANGE, size)
                    ahead.append(pool.submit(self._read_range, name, start, end))
                    if len(ahead) == self._readers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for one in ahead:
                    one.cancel()

    def _read_range(self, name: str, start: int, end: int) -> bytes:
        import obstore

        return bytes(obstore.get_range(self._store, name, start=start, end=end))

    def _read_ranges(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a local file in large ranges.

        The library's own stream has a tenth of the speed, because it moves small pieces between
        threads.
        """
        for start in range(0, size, CHUNK):
            yield self._read_range(name, start, min(start + CHUNK, size))

    def create(self, name: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with _translate_errors(f"{self.location}/{name}"):
            try:
                obstore.put(self._store, name, data, mode="create")
            except PreconditionError:
                return False
            except AlreadyExistsError as error:
                if not is_taken(error):
                    raise
                return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        import obstore

        with _translate_errors(f"{self.location}/{name}"):
            obstore.put(self._store, name, data)

    def upload(self, name: str, file: BinaryIO) -> None:
        import obstore

        with _translate_errors(f"{self.location}/{name}"):
            obstore.put(self._store, name, file)

    def folders(self, prefix: str) -> list[str]:
        import obstore

        if self._is_missing:
            return []
        with _translate_errors(f"{self.location}/{prefix}"):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return sorted(path.rsplit("/", 1)[-1] for path in found)


@contextmanager
def _translate_errors(on: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except PermissionError as error:
        raise _denied_error(error, on) from error
    except (BaseError, OSError) as error:
        if _has_errno(errno.EACCES, error) or is_denial(error):
            raise _denied_error(error, on) from error
        require_container(error, on)
        if any(_has_errno(number, error) for number in (errno.ENOSPC, errno.EDQUOT)):
            raise disk_full_error(on) from error
        raise StoreUnreachable(
            "the model store failed",
            on=on,
            next="check the address and the network, then run again",
            detail=first_line(error),
        ) from error


def _has_errno(number: int, error: Exception) -> bool:
    """Return whether an error has a number of the operating system; the library has it as text."""
    return getattr(error, "errno", None) == number or f"os error {number})" in str(error)


def _denied_error(error: Exception, on: str) -> StoreUnreachable:
    return StoreUnreachable(
        "the model store refused the login or the permission",
        on=on,
        next="check the account's rights",
        detail=first_line(error),
    )


def first_line(error: Exception) -> str:
    """Return the first line of the library's message; the rest is its debug output.

    It can have URLs with the store's login or signature, which are left out.
    """
    lines = hide_queries(str(error)).strip().splitlines()
    return f"  {lines[0] if lines else type(error).__name__}"
