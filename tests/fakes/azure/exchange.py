"""A request to the stand-in for Azure, and its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True)
class Asked:
    """A request to the stand-in.

    Attributes:
        method: the HTTP method.
        url: the URL, with its query.
        form: the fields of the body and of the query.
        token: the bearer token; empty if there is none.
        headers: the headers.
        body: the bytes of the body.
    """

    method: str
    url: str
    form: Mapping[str, list[str]]
    token: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def host(self) -> str:
        """The host without its port."""
        return urlsplit(self.url).hostname or ""

    @property
    def path(self) -> str:
        """The path."""
        return urlsplit(self.url).path

    def to(self, host: str) -> Asked:
        """Return the request as it would be under the name of a service."""
        parts = urlsplit(self.url)
        return replace(self, url=urlunsplit(parts._replace(netloc=host)))

    def value(self, name: str) -> str:
        """Return a field; empty if it is missing."""
        return self.form.get(name, [""])[0]


@dataclass(frozen=True)
class Answer:
    """An answer of the stand-in.

    Attributes:
        status: the HTTP status.
        body: the bytes of the body, or what is sent as JSON.
        headers: the headers.
        cut_after: after how many bytes of the body the connection breaks; None if it does not.
    """

    status: int
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None

    @property
    def data(self) -> bytes:
        """The bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
