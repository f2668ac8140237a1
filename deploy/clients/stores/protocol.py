"""A store of models, as a protocol, and its opening by location."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from deploy.clients.stores import s3
from deploy.clients.stores.connections import connection_options
from deploy.clients.stores.object_store import Chunk, ObjectStore, first_line
from deploy.clients.stores.refusals import explain
from deploy.errors import SettingsInvalid
from deploy.text import hide_queries


class Store(Protocol):
    """A store of named bytes. A missing name gives None or False; a failed request is an error.

    Attributes:
        location: The path or URL, without credentials.
    """

    location: str

    def size(self, name: str) -> int | None:
        """Return the size in bytes, or None if the name is missing."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Return at most `limit` + 1 bytes of small content, or None if the name is missing."""

    def stream(self, name: str) -> Iterator[Chunk] | None:
        """Return an iterator over the bytes as they arrive, or None if the name is missing."""

    def create(self, name: str, data: bytes) -> bool:
        """Store small content under a new name; return False, and change nothing, if it exists."""

    def replace(self, name: str, data: bytes) -> None:
        """Store small content, completely or not at all."""

    def upload(self, name: str, file: BinaryIO) -> None:
        """Store a file's bytes, completely or not at all; memory does not grow with its size."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below a prefix, sorted."""


def open_store(location: str, base: Path) -> Store:
    """Open the store at a location.

    Args:
        location: A URL, or the path of a folder, relative to `base`.
        base: The folder of the application.

    Raises:
        SettingsInvalid: The path or the kind of the URL cannot be used, or variables of the login.
        StoreUnreachable: The store cannot be opened.
    """
    if "://" in location:
        return _open_service(location)
    import obstore.store

    try:
        folder = (base / location).resolve()
    except (ValueError, OSError) as error:
        raise SettingsInvalid(
            f"the model store's folder cannot be used: {error}",
            on=repr(location),
            next="correct `store` in [model]",
        ) from error
    return ObjectStore(lambda: obstore.store.LocalStore(folder, mkdir=True), str(folder), folder)


def _open_service(location: str) -> Store:
    """Open the store at a URL; no request is sent yet."""
    import obstore.store
    from obstore.exceptions import BaseError

    is_s3 = s3.is_s3_location(location)
    if is_s3:
        s3.require_usable(hide_queries(location), os.environ)
    is_plain = s3.is_plain(os.environ) if is_s3 else location.startswith("http://")
    options = connection_options(allow_http=is_plain)
    try:
        store = obstore.store.from_url(location, client_options=options)
    except (BaseError, ValueError) as error:
        raise SettingsInvalid(
            "the model store's URL cannot be used",
            on=hide_queries(location),
            next="see docs/03-models.md for the forms of a store",
            detail=first_line(error),
        ) from error
    return ObjectStore(lambda: store, location, explain=s3.explain if is_s3 else explain)
