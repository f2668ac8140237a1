"""A store of models, as a protocol, and the one at a location."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from deploy.clients.stores.object_store import ObjectStore, first_line
from deploy.errors import SettingsInvalid


class Store(Protocol):
    """Named bytes. A name that is not there gives None or False; not being able to ask is an error."""

    location: str

    def size(self, name: str) -> int | None:
        """The length in bytes, or None if there is no such name."""

    def read(self, name: str, limit: int) -> bytes | None:
        """At most `limit` + 1 bytes of small content, or None if there is no such name."""

    def stream(self, name: str) -> Iterator[bytes] | None:
        """The bytes as they arrive, or None if there is no such name."""

    def create(self, name: str, data: bytes) -> bool:
        """Stores small content under a new name; False, changing nothing, if the name is taken."""

    def replace(self, name: str, data: bytes) -> None:
        """Stores small content, at once or not at all."""

    def upload(self, name: str, file: BinaryIO) -> None:
        """Stores a file's bytes, at once or not at all; memory does not grow with its size."""

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders directly below a prefix, sorted."""


def open_store(location: str, base: Path) -> Store:
    """The store at a location.

    Args:
        location: a URL, or a folder's path, relative to `base`.
        base: the folder of the application.

    Raises:
        SettingsInvalid: the URL is of a kind that is not supported.
        StoreUnreachable: the store cannot be opened.
    """
    import obstore.store
    from obstore.exceptions import BaseError

    if "://" not in location:
        try:
            folder = (base / location).resolve()
        except (ValueError, OSError) as error:
            raise SettingsInvalid(
                f"the model store's folder cannot be used: {error}",
                on=repr(location),
                next="mend `store` in [model]",
            ) from error
        return ObjectStore(
            lambda: obstore.store.LocalStore(folder, mkdir=True), str(folder), folder
        )
    try:
        found = obstore.store.from_url(location)
    except (BaseError, ValueError) as error:
        raise SettingsInvalid(
            "the model store's URL cannot be used",
            on=location,
            next="see docs/03-models.md for the forms of a store",
            detail=first_line(error),
        ) from error
    return ObjectStore(lambda: found, location)
