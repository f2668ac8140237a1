"""The gunicorn worker that serves the application: threads, with two manners more than gunicorn's own has.

A client that sends nothing holds no thread, and one that sends slowly holds it for a bounded time. On a stop, readiness ends at once
while connections may still be accepted for a while, so that whoever routes requests can learn of it first.

Source: gunicorn's ``gthread`` worker, whose version is locked; it gives no public hook for either.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from flask import Flask
from gunicorn.workers import gthread  # type: ignore[import-untyped]  # it carries no types

from app.routes import BODY_READ, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from types import FrameType

    from app.settings import Settings

_DEFER = gthread._DEFER  # noqa: SLF001 - the only way to send a connection back to the poller
# How long a stopping worker waits for a request on a connection that it had just accepted.
_LAST_WORD_SECONDS = 1.0


class Worker(gthread.ThreadWorker):  # type: ignore[misc]  # untyped, as above
    """Serves until SIGTERM, then finishes what it has begun."""

    _service: Service
    wsgi: Callable[[dict[str, Any], Any], Iterable[bytes]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they come
        super().__init__(*args, **kwargs)
        self._reading: dict[int, tuple[float, socket.socket]] = {}

    def load_wsgi(self) -> None:
        """Take the application, and let each request say when its body is read."""
        super().load_wsgi()
        application = self.wsgi
        assert isinstance(application, Flask)  # noqa: S101 - what gunicorn was told to load
        self._service = application.extensions["service"]

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - handed on as it comes
            descriptor = environ["gunicorn.socket"].fileno()
            environ[BODY_READ] = lambda: self._reading.pop(descriptor, None)
            return application(environ, start_response)

        self.wsgi = serve

    def handle(self, conn: gthread.TConn) -> object:
        """Answer one request of a connection; one that has sent nothing yet goes back to the poller."""
        alive = self.alive
        if not conn.initialized and not conn.wait_for_data(0 if alive else _LAST_WORD_SECONDS):
            return _DEFER if alive else False
        descriptor = conn.sock.fileno()
        self._reading[descriptor] = (time.monotonic() + self._settings.read_seconds, conn.sock)
        try:
            return super().handle(conn)
        finally:
            self._reading.pop(descriptor, None)

    def finish_request(self, conn: gthread.TConn, fs: Future[object]) -> None:
        """Take a connection back; on a stop, one that has sent nothing yet is given a last chance instead of being dropped."""
        if not self.alive and not fs.cancelled() and fs.exception() is None and fs.result() is _DEFER:
            self.enqueue_req(conn)
        else:
            super().finish_request(conn, fs)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        # Connections that never sent anything must not hold up a stop for longer than those that are kept alive.
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Do the main loop's regular cleaning, and end the requests whose sender is too slow."""
        super().murder_keepalived(force)
        now = time.monotonic()
        for deadline, connection in list(self._reading.values()):
            if now > deadline:
                # The thread that waits for more sees the end of the stream, and can still answer.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully: not ready from now on, accepting for as long as the settings say."""
        self._service.stopping.set()
        timer = threading.Timer(self._settings.drain_seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()

    @property
    def _settings(self) -> Settings:
        return self._service.settings
