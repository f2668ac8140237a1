"""One request to an API server and its response, whatever the request is about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.http import Endpoint
from deploy.errors import ClusterError

JSON = "application/json"


@dataclass(frozen=True)
class ApiRequest:
    """A request to the API server.

    Attributes:
        method: the HTTP method.
        path: the path below the server's address.
        query: the parameters of the URL.
        body: sent as JSON.
        content_type: the media type of the body.
        require: called before each attempt to send the request; an exception that it raises
            ends the attempts.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: object = None
    content_type: str = JSON
    require: Callable[[], None] = field(default=lambda: None, compare=False)


@dataclass(frozen=True)
class ApiResponse:
    """A response of the API server.

    Attributes:
        status: the HTTP status; decisions depend on it and on codes in the body, never on messages.
        text: the body.
        retry_after: the Retry-After header; empty if there is none.
        retried: whether the request was sent more than once, so that the server may have carried
            out an earlier attempt whose response was lost.
    """

    status: int
    text: str = ""
    retry_after: str = ""
    retried: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """The object in the body; empty if there is none."""
        try:
            content = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def reason(self) -> str:
        """The reason of a Status, such as `AlreadyExists`."""
        return str(self.body.get("reason") or "")

    @property
    def message(self) -> str:
        """The message of a Status, on one line."""
        return one_line(self.body.get("message"))

    @property
    def details(self) -> Mapping[str, Any]:
        """The details of a Status."""
        details = self.body.get("details")
        return details if isinstance(details, dict) else {}

    @property
    def causes(self) -> list[Mapping[str, Any]]:
        """The causes in the details of a Status."""
        causes = self.details.get("causes")
        if not isinstance(causes, list):
            return []
        return [cause for cause in causes if isinstance(cause, dict)]

    @property
    def lacks_namespace(self) -> bool:
        """Whether the server did not find the namespace itself."""
        return self.status == 404 and self.details.get("kind") == "namespaces"

    @property
    def conflicts(self) -> dict[str, str]:
        """The fields that another field manager owns, with the name of each owner."""
        return {
            str(cause.get("field")).removeprefix("."): _manager_name(str(cause.get("message")))
            for cause in self.causes
            if cause.get("reason") == "FieldManagerConflict"
        }


Send = Callable[[ApiRequest, tuple[float, float]], ApiResponse]
"""A function that sends a request once, as `Transport.send` does."""


class Transport(Protocol):
    """A connection to an API server, with the credentials for it."""

    name: str
    """The cluster's name for people: its context and server."""

    def send(self, request: ApiRequest, timeout: tuple[float, float]) -> ApiResponse:
        """Send a request once.

        Args:
            request: the request.
            timeout: seconds for the connection, and for the next bytes of the response.

        Raises:
            NoApiResponse: there was no response.
        """

    def renew(self) -> None:
        """Load the credentials again."""

    def account(self) -> ClusterAccount | None:
        """Return whose token of Azure was sent with the last request; None if it was none."""

    def endpoint(self, path: str) -> Endpoint:
        """Return the endpoint of a path on the API server, with the current credentials."""


class NoApiResponse(Exception):
    """A request without a response.

    Args:
        error: the error to raise if no attempt gets a response.
        transient: whether another attempt may get one.
    """

    def __init__(self, error: ClusterError, transient: bool) -> None:  # noqa: FBT001 - the types of the two differ
        super().__init__(error.what)
        self.error = error
        self.transient = transient


def _manager_name(message: str) -> str:
    """Return the name that the server quotes; only its message has the name of the owner."""
    quoted = re.search(r'"((?:[^"\\]|\\.)*)"', message)
    return quoted.group(1) if quoted else "another field manager"


def one_line(text: object) -> str:
    """Return text of the server on one line, cut to 600 characters."""
    return " ".join(str(text or "").split())[:600]
