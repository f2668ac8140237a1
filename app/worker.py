"""The gunicorn worker that serves the application: threads, with some manners more than gunicorn's own has.

A client that sends nothing holds no thread, and gives way to others where connections are short; one that sends or reads slowly holds
a thread for a bounded time. On a stop, readiness ends at once while connections may still be accepted for a while, so that whoever
routes requests can learn of it first.

Source: gunicorn's ``gthread`` worker, whose version is locked; it gives no public hook for either.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask
from gunicorn import util  # type: ignore[import-untyped]  # it carries no types
from gunicorn.workers import gthread  # type: ignore[import-untyped]  # as above

from app.patience import Patience
from app.routes import BODY_MOVED, BODY_READ, CLIENT_GONE, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from types import FrameType

    from app.settings import Settings

_DEFER = gthread._DEFER  # noqa: SLF001 - the only way to send a connection back to the poller
# How long a stopping worker waits for a request on a connection that it had just accepted.
_LAST_WORD_SECONDS = 1.0
# The share of all connections from which on those that say nothing make room, the oldest first.
_CROWDED = 0.9
_UNREAD = 64 * 1024


class Worker(gthread.ThreadWorker):  # type: ignore[misc]  # untyped, as above
    """Serves until SIGTERM, then finishes what it has begun."""

    _service: Service
    _patience: Patience
    wsgi: Callable[[dict[str, Any], Any], Iterable[bytes]]

    def load_wsgi(self) -> None:
        """Take the application, and let each request say what has come of its body."""
        super().load_wsgi()
        application = self.wsgi
        assert isinstance(application, Flask)  # noqa: S101 - what gunicorn was told to load
        self._service = application.extensions["service"]
        self._patience = Patience(self._settings.read_seconds)

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - handed on as it comes
            connection = environ["gunicorn.socket"]
            key = connection.fileno()
            environ[BODY_MOVED], environ[BODY_READ] = (
                partial(self._patience.moved, key),
                partial(self._patience.end, key),
            )
            environ[CLIENT_GONE] = partial(_gone, connection)
            answer = application(environ, start_response)
            # From here on it is the client's turn again: an answer that it does not take must not hold the thread for ever.
            self._patience.begin(key, connection, socket.SHUT_RDWR)
            return answer

        self.wsgi = serve

    def handle(self, conn: gthread.TConn) -> object:
        """Answer one request of a connection; one that has sent nothing yet goes back to the poller."""
        alive = self.alive
        if not conn.initialized and not conn.wait_for_data(0 if alive else _LAST_WORD_SECONDS):
            return _DEFER if alive else False
        key = conn.sock.fileno()
        # Shut for reading only: the thread sees the end of the stream, and can still say that it was too late.
        self._patience.begin(key, conn.sock, socket.SHUT_RD)
        try:
            kept = super().handle(conn)
        finally:
            self._patience.end(key)
        if not kept:
            _close(conn.sock)
        return kept

    def finish_request(self, conn: gthread.TConn, fs: Future[object]) -> None:
        """Take a connection back; on a stop, one that has sent nothing yet is given a last chance instead of being dropped."""
        if (
            not self.alive
            and not fs.cancelled()
            and fs.exception() is None
            and fs.result() is _DEFER
        ):
            self.enqueue_req(conn)
        elif conn.sock.fileno() < 0:
            # Its thread has closed it; doing so again would count it twice, and a stop that finds nobody left drops all who are.
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        # Connections that never sent anything must not hold up a stop for longer than those that are kept alive.
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Do the main loop's regular cleaning, and end what takes too long or takes the place of others."""
        super().murder_keepalived(force)
        self._patience.enforce()
        while self.nr_conns > _CROWDED * self.worker_connections and (
            silent := self.pending_conns or self.keepalived_conns
        ):
            conn = silent.popleft()
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully: not ready from now on, accepting for as long as the settings say."""
        self._service.stopping.set()
        timer = threading.Timer(self._settings.drain_seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()

    @property
    def _settings(self) -> Settings:
        return self._service.settings


def _gone(connection: socket.socket) -> bool:
    """Whether a client has closed its side: it has broken off, or has said that no more will come."""
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    return bool(poller.poll(0))


def _close(connection: socket.socket) -> None:
    """Close a connection so that its last answer arrives; gunicorn would do so in the main thread, and keep all others waiting."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        # What a client was still sending must be taken, or the system would tell it of a broken connection before it has read.
        if connection.recv(_UNREAD, socket.MSG_DONTWAIT):
            util.close_graceful(connection)
    connection.close()
