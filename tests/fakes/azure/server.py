"""The stand-in for Azure over TLS, with an authority of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.fakes.azure.certificates import make_certificate, write_pem
from tests.fakes.azure.exchange import Answer, Asked
from tests.fakes.azure.stand_in import Cut, StandIn, make_asked

# The first byte of a TLS connection.
_HANDSHAKE = b"\x16"


@dataclass(frozen=True)
class Trust:
    """The certificates of a test.

    Attributes:
        authority: the file with the certificate of the authority.
        certificate: the file with the key and the certificate of all servers.
    """

    authority: Path
    certificate: Path


@dataclass(frozen=True)
class Served:
    """A stand-in that is served.

    Attributes:
        port: its port on this machine.
        authority: the file with the certificate of its authority.
    """

    port: int
    authority: Path


def make_trust(folder: Path, *hosts: str) -> Trust:
    """Make an authority and a certificate.

    Args:
        folder: gets the files.
        hosts: the names that the certificate is for, besides the address of this machine.
    """
    authority = make_certificate("test authority")
    server = make_certificate("azure.test", ["127.0.0.1", *hosts], authority)
    trusted = folder / "authority.pem"
    write_pem(trusted, authority[1])
    write_pem(folder / "server.pem", *server)
    return Trust(trusted, folder / "server.pem")


@contextmanager
def serve(azure: StandIn, folder: Path, *hosts: str) -> Iterator[Served]:
    """Serve a stand-in on this machine.

    Args:
        azure: the stand-in.
        folder: gets the certificates.
        hosts: the names that its certificate is for.
    """
    trust = make_trust(folder, *hosts)
    with serve_answers(azure.answer, trust) as port:
        yield Served(port, trust.authority)


@contextmanager
def serve_answers(
    answer: Callable[[Asked], Answer], trust: Trust, address: str = "127.0.0.1"
) -> Iterator[int]:
    """Serve a function over TLS, and over plain HTTP for clients that speak it; yield the port.

    Args:
        answer: returns the answer to a request.
        trust: the certificates.
        address: the address on which the server listens.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trust.certificate)
    with running(_Server((address, 0), _handler_of(answer), context)) as port:
        yield port


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[int]:
    """Run a server in a thread; yield its port."""
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """A server that speaks TLS or plain HTTP, as each client does."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        context: ssl.SSLContext,
    ) -> None:
        super().__init__(address, handler)
        self._context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer the requests of a connection; a client that breaks it off is no fault."""
        with suppress(OSError):
            if request.recv(1, socket.MSG_PEEK) != _HANDSHAKE:
                super().finish_request(request, client_address)
                return
            with self._context.wrap_socket(request, server_side=True) as encrypted:
                super().finish_request(encrypted, client_address)


def _handler_of(give_answer: Callable[[Asked], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing."""

        def respond(self) -> None:
            """Answer a request."""
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
            url = f"{scheme}://{self.headers['Host']}{self.path}"
            headers = {name: ", ".join(self.headers.get_all(name, ())) for name in self.headers}
            try:
                answer = give_answer(make_asked(self.command, url, headers, body))
            except Cut:
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(answer.status)
            # The answer to HEAD may have the length of what GET would get.
            length_header = {"Content-Length": str(len(answer.data))}
            for name, value in (length_header | dict(answer.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.data[: answer.cut_after])
            self.close_connection = self.close_connection or answer.cut_after is not None

    for method in ("GET", "HEAD", "PATCH", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.respond)
    return Handler
