"""Servers in memory below requests: no socket is opened, and every request is kept."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter


class Answer(NamedTuple):
    """A response of a server."""

    status: int
    headers: Mapping[str, str] = {}
    body: Any = b""


Handler = Callable[[requests.PreparedRequest], Answer]


def create_response(request: requests.PreparedRequest, answer: Answer) -> requests.Response:
    """Return the response that requests has of an answer; its body is bytes, or a stream."""
    response = requests.Response()
    response.status_code = answer.status
    response.url = request.url or ""
    response.request = request
    response.headers.update(answer.headers)
    stream = io.BytesIO(answer.body) if isinstance(answer.body, bytes) else answer.body
    response.raw = urllib3.HTTPResponse(
        stream, headers=dict(answer.headers), status=answer.status, preload_content=False
    )
    return response


class FakeWeb:
    """The servers that sessions of requests reach.

    Attributes:
        servers: What answers for each scheme with host and port.
        seen: The requests that arrived, in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.servers: dict[str, Handler] = {}
        self.seen: list[requests.PreparedRequest] = []

        def send(_: HTTPAdapter, request: requests.PreparedRequest, **__: Any) -> requests.Response:
            if isinstance(request.body, io.RawIOBase):
                request.body.read()
            self.seen.append(request)
            server = self.servers.get("://".join(urlsplit(request.url or "")[:2]))
            if server is None:
                raise requests.ConnectionError("no such server")
            return create_response(request, server(request))

        monkeypatch.setattr(HTTPAdapter, "send", send)

    def sent_to(self, server: str) -> list[requests.PreparedRequest]:
        """Return the requests that went to a server."""
        return [request for request in self.seen if (request.url or "").startswith(f"{server}/")]
