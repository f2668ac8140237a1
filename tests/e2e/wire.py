"""HTTP on sockets: requests that no library sends, and many slow connections."""

from __future__ import annotations

import http.client
import io
import itertools
import select
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from typing import cast

TIMEOUT = 30.0
_MOST_READ = 1 << 20


@dataclass(frozen=True)
class Response:
    """A status, headers with names in any case, and a body."""

    status: int
    headers: Message
    body: bytes

    @property
    def is_from_application(self) -> bool:
        """Whether the application sent it, not its server or the proxy."""
        return "X-Model-Digest" in self.headers

    def __repr__(self) -> str:
        return f"<{self.status} {dict(self.headers)} {self.body[:300]!r}>"


@dataclass(frozen=True)
class Wire:
    """A port of this machine that accepts HTTP requests."""

    port: int

    def connect(self, timeout: float = TIMEOUT) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def exchange(
        self, *pieces: bytes, close: bool = False, method: str = "GET", wait: float = TIMEOUT
    ) -> list[Response]:
        """Send bytes on one connection, and return all responses until it ends.

        Args:
            pieces: the bytes, in order; those that the server no longer accepts are dropped.
            close: whether to close the connection for sending after the last piece.
            method: the method of the requests; a response to HEAD has no body.
            wait: the most seconds to wait for the next bytes of a response.
        """
        with self.connect(wait) as connection:
            # If the server refuses early, it resets or closes the connection before this end does.
            with suppress(OSError):
                for piece in pieces:
                    connection.sendall(piece)
                if close:
                    connection.shutdown(socket.SHUT_WR)
            return parse_responses(_receive(connection), method)

    def send_endless(self, head: bytes, piece: bytes, most: int) -> tuple[int, Response]:
        """Send a body without an end until the response arrives.

        Args:
            head: the request without its body.
            piece: the part of the body that is repeated.
            most: the number of bytes after which sending stops.

        Returns:
            The number of bytes of the body that were sent, and the response.
        """
        sent = 0
        with self.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(head)
                while sent < most and not _is_readable(connection):
                    sent += connection.send(piece)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return sent, Response(response.status, response.headers, response.read())

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Return the response to one correct request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        found = Response(response.status, response.headers, response.read())
        connection.close()
        return found

    @contextmanager
    def open_many(self, count: int, *pieces: bytes) -> Iterator[list[socket.socket]]:
        """Open many connections, send some bytes on each, and keep them while a `with` block lasts.

        Args:
            count: the number of connections.
            pieces: the bytes, in order; no connection sends more.
        """
        with ExitStack() as stack:
            connections = [stack.enter_context(self.connect()) for _ in range(count)]
            for piece in pieces:
                for connection in connections:
                    with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                        connection.settimeout(1.0)
                        connection.sendall(piece)
            yield connections

    def flood(self, count: int, request: bytes) -> None:
        """Send a request on many connections in turn, and reset each before the response."""
        for _ in range(count):
            with self.connect() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(request)


def request(line: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """Return the bytes of a request, without any header that is not given."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{line}\r\n{head}\r\n".encode("latin-1") + body


def chunk_body(body: bytes, cuts: Sequence[int]) -> bytes:
    """Return a body in chunks that are cut at some offsets."""
    offsets = [0, *sorted({cut % (len(body) + 1) for cut in cuts} - {0}), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(offsets) if end > start]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def parse_responses(received: bytes, method: str) -> list[Response]:
    """Return the responses in the bytes of a connection, without those of status 100."""
    stream = io.BytesIO(received)
    found = []
    while stream.tell() < len(received):
        response = http.client.HTTPResponse(
            cast("socket.socket", _SocketOfBytes(stream)), method=method
        )
        response.begin()
        found.append(Response(response.status, response.headers, _body(response)))
    return found


def _body(response: http.client.HTTPResponse) -> bytes:
    """Return the body of a response.

    The body may be truncated if the server refused a request that it could not read.
    """
    try:
        return response.read()
    except http.client.IncompleteRead as error:
        if response.status != http.client.BAD_REQUEST or "X-Model-Digest" in response.headers:
            raise
        return error.partial


class _SocketOfBytes:
    """A socket that yields bytes which were received before, for the reader of a response."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BytesIO:
        return cast("io.BytesIO", _UnclosableStream(self._stream))


class _UnclosableStream(io.RawIOBase):
    """A stream that stays open for the next response when the reader of one closes it."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # narrower than any buffer
        return self._stream.readinto(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        return self._stream.readline(-1 if size is None else size)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


def _is_readable(connection: socket.socket) -> bool:
    """Return whether bytes have arrived; wait while nothing can be sent either."""
    return bool(select.select([connection], [connection], [], TIMEOUT)[0])


def _receive(connection: socket.socket) -> bytes:
    pieces = bytearray()
    with suppress(ConnectionResetError, TimeoutError):
        while len(pieces) < _MOST_READ and (piece := connection.recv(65536)):
            pieces += piece
    return bytes(pieces)
