"""An HTTP proxy that leads the names of services to ports of this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.fakes.azure.server import running

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        ports: the port on this machine of each name.
        refused: the other hosts that were asked for.
    """

    ports: Mapping[str, int]
    refused: list[str] = field(default_factory=list)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serve it; yield its URL."""
        with running(ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))) as port:
            yield f"http://127.0.0.1:{port}"


def _handler_of(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing."""

        def do_CONNECT(self) -> None:
            host = self.path.rpartition(":")[0]
            if host not in proxy.ports:
                proxy.refused.append(host)
                self.send_error(403)
                return
            with socket.create_connection(("127.0.0.1", proxy.ports[host])) as server:
                self.send_response(200)
                self.end_headers()
                _join(self.connection, server)
            self.close_connection = True

    return Handler


def _join(client: socket.socket, server: socket.socket) -> None:
    """Send what each of two sockets gets to the other, until both have ended."""
    back = threading.Thread(target=_copy, args=(server, client), daemon=True)
    back.start()
    _copy(client, server)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(_BLOCK):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
