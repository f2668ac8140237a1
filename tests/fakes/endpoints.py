"""Endpoints of an application in memory that responds as a test wants."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from deploy.clients.http import Endpoint, NoResponse, Request, Response
from deploy.clients.timed import Deadline
from tests.fakes.web import Answer, create_response


class TricklingBody(io.RawIOBase):
    """A body that arrives byte by byte, each a second later; it may fail.

    Args:
        now: The time in seconds, as a list of one number that each byte advances.
        breaks: The error that ends the body.
    """

    def __init__(self, now: list[float], breaks: BaseException | None = None) -> None:
        self._now = now
        self._breaks = breaks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._breaks:
            raise self._breaks
        self._now[0] += 1
        buffer[:1] = b"#"
        return 1


def trickling_body(now: list[float], breaks: BaseException | None = None) -> io.BufferedReader:
    """Return a `TricklingBody` as a response has it."""
    return io.BufferedReader(TricklingBody(now, breaks), 1)


class FakeReplica(BaseAdapter):
    """A replica that gives every request the same response, or none.

    Args:
        body: Bytes, a stream, or an error in place of a response.
        status: The HTTP status.
        headers: The headers of the response.
        at: The only path of the replica, to which it redirects all others; empty for any path.

    Attributes:
        requests: The requests that arrived.
        closed: The number of sessions that have ended.
    """

    def __init__(self, body: Any, status: int, headers: dict[str, str], at: str = "") -> None:
        super().__init__()
        self._body = body
        self._status = status
        self._headers = headers
        self._at = at
        self.requests: list[requests.PreparedRequest] = []
        self.closed = 0

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        self.requests.append(request)
        if isinstance(self._body, Exception):
            raise self._body
        if self._at and request.path_url != self._at:
            return create_response(request, Answer(307, {"Location": self._at}))
        return create_response(request, Answer(self._status, self._headers, self._body))

    def close(self) -> None:
        self.closed += 1


@dataclass(frozen=True)
class MemoryEndpoint(Endpoint):
    """The endpoint of a replica in memory."""

    replica: FakeReplica | None = None

    def open_session(self, deadline: Deadline | None = None) -> requests.Session:
        session = super().open_session(deadline)
        session.mount("http://", self.replica or pytest.fail("the endpoint has no replica"))
        return session


def endpoint_with(body: Any, status: int = 200, **headers: str) -> MemoryEndpoint:
    """Return the endpoint of a replica with that response."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return MemoryEndpoint("http://replica", replica=FakeReplica(body, status, sent))


@dataclass
class ScriptedSender:
    """A sender of requests with planned outcomes; the last outcome repeats.

    Attributes:
        outcomes: Responses, or the kinds of failures without a response.
        asked: The endpoint and the request of each call.
    """

    outcomes: list[Response | str]
    asked: list[tuple[Endpoint, Request]] = field(default_factory=list)

    def __call__(self, endpoint: Endpoint, request: Request) -> Response:
        assert len(self.asked) < 1000, "requests are sent without end"
        self.asked.append((endpoint, request))
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, str):
            raise NoResponse(outcome, 1.0)
        return outcome
