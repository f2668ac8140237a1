"""A folder or an object store (Azure Blob, S3, Google Cloud Storage), through obstore.

Credentials come from the environment (AWS_*, GOOGLE_*), which the library reads itself; those for
Azure come from `deploy.clients.azure.blob`. What refusals of S3 mean is in `s3`.
Source: obstore's documentation, "Stores" and "Authentication".
"""

from __future__ import annotations

import errno
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from deploy.cache import CHUNK
from deploy.clients import backoff
from deploy.clients.stores.refusals import (
    DENIED,
    Explanation,
    explain,
    is_taken,
    is_undecided,
    require_container,
)
from deploy.errors import StoreUnreachable, disk_full_error
from deploy.text import hide_queries

if TYPE_CHECKING:
    import obstore
    import obstore.store

Chunk = bytes | memoryview
"""A part of the bytes of an object; what the library has read is not copied."""

# How many ranges of a large object are read at the same time.
_READERS = 6
# How many parts of a large file are sent at the same time; of many, each would be slow.
_WRITERS = 4
_RANGE = 8 << 20
_ATTEMPTS = 5
# The tag of no object: services make their own of hexadecimal digits.
_NO_TAG = '"none"'
_CAUSE = re.compile(r'\b(?:error|message): "([^"]+)"')
_FAILED = Explanation("the model store failed", "check the address and the network, then run again")


class ObjectStore:
    """A store of obstore.

    Args:
        connect: Returns one of the library's stores.
        location: Its path or URL; a login or a signature in it is never shown.
        folder: The folder of a local store. The first write creates it; reading creates nothing.
        explain: Returns what an error of the service means; None if it is not known.
    """

    def __init__(
        self,
        connect: Callable[[], obstore.store.ObjectStore],
        location: str,
        folder: Path | None = None,
        explain: Callable[[BaseException], Explanation | None] = explain,
    ) -> None:
        self._connect = connect
        self._folder = folder
        self._explain = explain
        self.location = hide_queries(location)

    @cached_property
    def _store(self) -> obstore.store.ObjectStore:
        with self._translate_errors():
            return self._connect()

    @property
    def _is_missing(self) -> bool:
        with self._translate_errors():
            return self._folder is not None and not self._folder.is_dir()

    def _refuse_special(self, name: str) -> None:
        """Refuse a name that is neither file nor folder: reading a pipe may never end."""
        if self._folder is None:
            return
        with (
            self._translate_errors(name),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            mode = (self._folder / name).stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EINVAL, "it is not a file")

    def size(self, name: str) -> int | None:
        import obstore

        if self._is_missing:
            return None
        with self._translate_errors(name):
            try:
                return int(obstore.head(self._store, name)["size"])
            except FileNotFoundError as error:
                require_container(error, self.location)
                return None

    def read(self, name: str, limit: int) -> bytes | None:
        found = self._find(name)
        if found is None:
            return None
        data = b""
        # Nothing is read ahead: whatever the size, the first bytes are enough.
        for chunk in self._read_chunks(found, name, ahead=False):
            data += chunk
            if len(data) > limit:
                break
        return data[: limit + 1]

    def stream(self, name: str) -> Iterator[Chunk] | None:
        found = self._find(name)
        return None if found is None else self._read_chunks(found, name, ahead=True)

    def _find(self, name: str) -> obstore.GetResult | None:
        """Ask for an object, whose bytes arrive when they are read; None if there is none."""
        import obstore

        if self._is_missing:
            return None
        self._refuse_special(name)
        with self._translate_errors(name):
            try:
                return obstore.get(self._store, name)
            except FileNotFoundError as error:
                require_container(error, self.location)
                return None

    def _read_chunks(self, found: obstore.GetResult, name: str, *, ahead: bool) -> Iterator[Chunk]:
        with self._translate_errors(name):
            size = found.meta["size"]
            if size <= CHUNK:
                yield bytes(found.bytes())
                return
            if self._folder is not None:
                yield from self._read_ranges(name, size)
                return
            if ahead and size >= 2 * _RANGE:
                yield from self._read_ahead(name, size)
                return
            for chunk in found.stream(min_chunk_size=CHUNK):
                yield memoryview(chunk)

    def _read_ahead(self, name: str, size: int) -> Iterator[Chunk]:
        """Yield the bytes of a large object in ranges, of which some are read ahead.

        One connection does not use a fast network. A range that is cut is read again.
        """
        ahead: deque[Future[memoryview]] = deque()
        with ThreadPoolExecutor(_READERS) as pool:
            try:
                for start in range(0, size, _RANGE):
                    end = min(start + _RANGE, size)
                    ahead.append(pool.submit(self._read_range, name, start, end))
                    if len(ahead) == _READERS:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for one in ahead:
                    one.cancel()

    def _read_range(self, name: str, start: int, end: int) -> memoryview:
        import obstore

        return memoryview(obstore.get_range(self._store, name, start=start, end=end))

    def _read_ranges(self, name: str, size: int) -> Iterator[Chunk]:
        """Yield the bytes of a local file in large ranges.

        The library's own stream has a tenth of the speed, because it moves small pieces between
        threads.
        """
        for start in range(0, size, CHUNK):
            yield self._read_range(name, start, min(start + CHUNK, size))

    def create(self, name: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._translate_errors(name):
            attempt = 0
            while True:
                attempt += 1
                try:
                    obstore.put(self._store, name, data, mode="create")
                except PreconditionError:
                    return False
                except AlreadyExistsError as error:
                    if is_taken(error):
                        return False
                    if attempt == _ATTEMPTS or not is_undecided(error):
                        raise
                else:
                    return True
                time.sleep(backoff.delay(attempt, "", retry_after_limit=0.0, backoff_limit=4.0))

    def replace(self, name: str, data: bytes) -> None:
        import obstore

        with self._translate_errors(name):
            obstore.put(self._store, name, data)

    def require_write(self, name: str) -> None:
        """Raise if a name cannot be written; in a service of objects, nothing is written.

        A service looks at a condition once the permission is there, and this one never holds.
        """
        import obstore
        from obstore.exceptions import PreconditionError

        with self._translate_errors(name), suppress(PreconditionError):
            obstore.put(self._store, name, b"", mode={"e_tag": _NO_TAG})

    def upload(self, name: str, file: BinaryIO) -> None:
        import obstore

        with self._translate_errors(name):
            obstore.put(self._store, name, file, max_concurrency=_WRITERS)

    def folders(self, prefix: str) -> list[str]:
        import obstore

        if self._is_missing:
            return []
        with self._translate_errors(prefix):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return sorted(path.rsplit("/", 1)[-1] for path in found)

    @contextmanager
    def _translate_errors(self, name: str = "") -> Iterator[None]:
        """Translate the library's errors; those of a name are on it."""
        from obstore.exceptions import BaseError

        on = f"{self.location}/{name}" if name else self.location
        try:
            yield
        except (BaseError, OSError) as error:
            require_container(error, on)
            if _has_errno(error, errno.ENOSPC, errno.EDQUOT):
                raise disk_full_error(on) from error
            denied = DENIED if _has_errno(error, errno.EACCES, errno.EPERM) else None
            what, advice = denied or self._explain(error) or _FAILED
            raise StoreUnreachable(what, on=on, next=advice, detail=first_line(error)) from error


def _has_errno(error: Exception, *numbers: int) -> bool:
    """Return whether an error has a number of the operating system; the library has it as text."""
    return any(
        getattr(error, "errno", None) == number or f"os error {number})" in str(error)
        for number in numbers
    )


def first_line(error: Exception) -> str:
    """Return the first line of the library's message, and the cause in its debug output below.

    They can have URLs with the store's login or signature, which are left out.
    """
    text = hide_queries(str(error)).strip()
    first = text.partition("\n")[0] or type(error).__name__
    causes = _CAUSE.findall(text)
    return f"  {first}: {causes[-1]}" if causes and causes[-1] not in first else f"  {first}"
