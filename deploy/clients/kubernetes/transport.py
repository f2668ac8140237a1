"""One question to an API server, and its answer; nothing here knows what they are about, or how they travel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from deploy.clients.http import Endpoint
from deploy.errors import ClusterError

JSON = "application/json"


@dataclass(frozen=True)
class ApiRequest:
    """A request: `body` is JSON, sent as the type `content`; `require` is called each time before that, and may end it."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: object = None
    content_type: str = JSON
    require: Callable[[], None] = field(default=lambda: None, compare=False)


@dataclass(frozen=True)
class ApiResponse:
    """What the API server said.

    Attributes:
        status: of HTTP; decisions are made on it and on codes in the body, never on messages.
        text: the body.
        retry_after: how many seconds the server wants to be left alone, if it said.
        repeated: whether an earlier attempt may have been carried out, though its answer was lost.
    """

    status: int
    text: str = ""
    retry_after: str = ""
    retried: bool = False

    @property
    def is_success(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """The object in the body; empty if there is none."""
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def reason(self) -> str:
        """The reason of a Status, such as `AlreadyExists`."""
        return str(self.body.get("reason") or "")

    @property
    def message(self) -> str:
        """What a Status tells people, on one line."""
        return one_line(self.body.get("message"))

    @property
    def details(self) -> Mapping[str, Any]:
        """The details of a Status."""
        found = self.body.get("details")
        return found if isinstance(found, dict) else {}

    @property
    def causes(self) -> list[Mapping[str, Any]]:
        """The single reasons of a Status."""
        found = self.details.get("causes")
        return (
            [cause for cause in found if isinstance(cause, dict)] if isinstance(found, list) else []
        )

    @property
    def lacks_namespace(self) -> bool:
        """Whether it is the namespace that was not found."""
        return self.status == 404 and self.details.get("kind") == "namespaces"

    @property
    def conflicts(self) -> dict[str, str]:
        """The fields that somebody else owns, with the owners' names."""
        found = [cause for cause in self.causes if cause.get("reason") == "FieldManagerConflict"]
        return {
            str(cause.get("field")).removeprefix("."): _owner(str(cause.get("message")))
            for cause in found
        }


Send = Callable[[ApiRequest, tuple[float, float]], ApiResponse]
"""Asks once, as `Wire.send` does."""


class Transport(Protocol):
    """The way to an API server, with the credentials for it."""

    name: str
    """The cluster, for people: its context and server."""

    def send(self, call: ApiRequest, within: tuple[float, float]) -> ApiResponse:
        """Asks once; `within` has the seconds for a connection and for the next bytes.

        Raises:
            Lost: there was no answer.
        """

    def renew(self) -> None:
        """Loads the credentials again."""

    def endpoint(self, path: str) -> Endpoint:
        """The way to a path of the API server, with what it asks for as of now."""


class NoApiResponse(Exception):
    """A call without an answer.

    Args:
        error: what to tell if it stays so.
        passing: whether asking again may help.
    """

    def __init__(self, error: ClusterError, passing: bool) -> None:  # noqa: FBT001 - told apart by the two types
        super().__init__(error.what)
        self.error = error
        self.transient = passing


def _owner(message: str) -> str:
    """The server names the owner in its message alone, quoted."""
    found = re.search(r'"((?:[^"\\]|\\.)*)"', message)
    return found.group(1) if found else "another field manager"


def one_line(text: object) -> str:
    """Words of the server, on one line."""
    return " ".join(str(text or "").split())[:600]
