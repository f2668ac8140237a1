"""What each response gets: the model's digest, a count and a line in the log.

A fault of the application becomes a response as well.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.service import Service

log = logging.getLogger(__name__)


class ResponseMiddleware:
    """Marks, counts and logs each response, and responds to a fault with a problem."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the start and end of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(scope, send, self._service)
        with self._service.telemetry.running.track_inprogress():
            try:
                await self._app(scope, receive, response.send)
            except Exception:
                if response.started:
                    raise
                # What happened is for the log: its text could name paths and versions.
                log.exception("unforeseen error")
                await problems.report_fault()(scope, receive, response.send)


class _Response:
    """The response to one request, on its way out."""

    def __init__(self, scope: Scope, send: Send, service: Service) -> None:
        self._scope = scope
        self._send = send
        self._service = service
        self._begin = time.perf_counter()
        self.started = False

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            self.started = True
            self._mark(MutableHeaders(scope=message))
            self._count(message["status"])
        await self._send(message)

    def _mark(self, headers: MutableHeaders) -> None:
        headers["X-Model-Digest"] = self._service.bundle.digest
        if self._service.stopping:
            # The client asks next on another connection, which leads to another replica.
            headers["Connection"] = "close"

    def _count(self, status: int) -> None:
        seconds = time.perf_counter() - self._begin
        served = "endpoint" in self._scope
        path = self._scope["path"] if served else None
        self._service.telemetry.count_response(path, self._scope["method"], status, seconds)
        if self._service.settings.access_log:
            self._log(status, seconds)

    def _log(self, status: int, seconds: float) -> None:
        client = self._scope.get("client")
        line = {
            "at": round(time.time(), 3),
            "method": self._scope["method"],
            "path": self._scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 1),
            "received": _length(Headers(scope=self._scope)),
            "client": client[0] if client else None,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _length(headers: Headers) -> int | None:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else None
