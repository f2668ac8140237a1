"""Ways to an application in memory, which answers as a test wants."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter

from deploy.clients.http import Endpoint, NoResponse, Request, Response


class TricklingBody(io.RawIOBase):
    """A body that comes byte by byte, each a second later; it may break off."""

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
    """Such a body, as an answer has it."""
    return io.BufferedReader(TricklingBody(now, breaks), 1)


class FakeReplica(BaseAdapter):
    """Answers every request alike, or not at all.

    Args:
        body: bytes, a stream, or an error in place of an answer.
        status: of HTTP.
        headers: of the answer.
        at: the path that it answers at, to which it sends all others; empty for any.

    Attributes:
        asked: the requests.
        closed: how many sessions have ended.
    """

    def __init__(self, body: Any, status: int, headers: dict[str, str], at: str = "") -> None:
        super().__init__()
        self._body = body
        self._status = status
        self._headers = headers
        self._at = at
        self.asked: list[requests.PreparedRequest] = []
        self.closed = 0

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        self.asked.append(request)
        if isinstance(self._body, Exception):
            raise self._body
        if self._at and request.path_url != self._at:
            return _answer(request, b"", 307, {"Location": self._at})
        return _answer(request, self._body, self._status, self._headers)

    def close(self) -> None:
        self.closed += 1


def _answer(request: Any, body: Any, status: int, headers: dict[str, str]) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer.url = request.url
    answer.request = request
    answer.headers.update(headers)
    stream = io.BytesIO(body) if isinstance(body, bytes) else body
    answer.raw = urllib3.HTTPResponse(stream, headers=headers, status=status, preload_content=False)
    return answer


@dataclass(frozen=True)
class MemoryEndpoint(Endpoint):
    """The way to a replica in memory."""

    replica: FakeReplica | None = None

    def open_session(self) -> requests.Session:
        opened = super().open_session()
        opened.mount("http://", self.replica or pytest.fail("nobody is there"))
        return opened


def endpoint_with(body: Any, status: int = 200, **headers: str) -> MemoryEndpoint:
    """The way to a replica that answers like that."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return MemoryEndpoint("http://replica", replica=FakeReplica(body, status, sent))


@dataclass
class ScriptedSender:
    """What is led to by a gateway: each question has the next of those outcomes, and the last one stays.

    Attributes:
        outcomes: replies, or the kinds of failures by which there was none.
        asked: the endpoints at which it was asked, with what.
    """

    outcomes: list[Response | str]
    asked: list[tuple[Endpoint, Request]] = field(default_factory=list)

    def __call__(self, endpoint: Endpoint, question: Request) -> Response:
        assert len(self.asked) < 1000, "this asks without end"
        self.asked.append((endpoint, question))
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, str):
            raise NoResponse(outcome, 1.0)
        return outcome
