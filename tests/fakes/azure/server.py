"""The stand-in for Azure over TLS, with an authority of its own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fakes.azure.certificates import make_certificate, write_certificate, write_pair
from tests.fakes.azure.stand_in import Cut, StandIn, make_asked


@dataclass(frozen=True)
class Served:
    """A stand-in that is served.

    Attributes:
        port: its port on this machine.
        authority: the file with the certificate of its authority.
    """

    port: int
    authority: Path


@contextmanager
def serve(azure: StandIn, folder: Path, *hosts: str) -> Iterator[Served]:
    """Serve a stand-in on this machine.

    Args:
        azure: the stand-in.
        folder: gets the certificates.
        hosts: the names that its certificate is for.
    """
    authority = make_certificate("test authority")
    trusted = folder / "authority.pem"
    write_certificate(trusted, authority)
    write_pair(
        folder / "server.pem", make_certificate("azure.test", ["127.0.0.1", *hosts], authority)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(azure))
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Served(server.server_port, trusted)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler_of(azure: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing."""

        def respond(self) -> None:
            """Answer a request."""
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            url = f"https://{self.headers['Host']}{self.path}"
            try:
                answer = azure.answer(make_asked(self.command, url, dict(self.headers), body))
            except Cut:
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.data[: answer.cut_after])
            self.close_connection = self.close_connection or answer.cut_after is not None

        def do_GET(self) -> None:
            self.respond()

        def do_POST(self) -> None:
            self.respond()

        def do_PUT(self) -> None:
            self.respond()

        def do_HEAD(self) -> None:
            self.respond()

    return Handler
