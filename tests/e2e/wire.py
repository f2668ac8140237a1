"""HTTP by hand: requests that no library would send, and many connections that are in no hurry."""

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

PATIENCE = 30.0
_MOST_READ = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What came back: a status, headers by whatever spelling, a body."""

    status: int
    headers: Message
    body: bytes

    @property
    def named(self) -> bool:
        """Whether the application gave it, rather than the server or the proxy before it."""
        return "X-Model-Digest" in self.headers

    def __repr__(self) -> str:
        return f"<{self.status} {dict(self.headers)} {self.body[:300]!r}>"


@dataclass(frozen=True)
class Wire:
    """An address of this machine that speaks HTTP."""

    port: int

    def connected(self, patience: float = PATIENCE) -> socket.socket:
        """A new connection."""
        return socket.create_connection(("127.0.0.1", self.port), patience)

    def answers(
        self, *pieces: bytes, close: bool = False, method: str = "GET", wait: float = PATIENCE
    ) -> list[Answer]:
        """All answers to what is sent on one connection, until it ends.

        Args:
            pieces: sent one after the other; what is not taken any more is let go.
            close: whether to say, after the last, that no more will come.
            method: of the requests, without which answers to HEAD cannot be read.
            wait: for how many seconds at most the next bytes of an answer are waited for.
        """
        with self.connected(wait) as connection:
            # Refused early, a connection is reset, or closed before its side here can be.
            with suppress(OSError):
                for piece in pieces:
                    connection.sendall(piece)
                if close:
                    connection.shutdown(socket.SHUT_WR)
            return parsed(_received(connection), method)

    def refused(self, head: bytes, piece: bytes, most: int) -> tuple[int, Answer]:
        """How much of an endless body was taken before the answer came, and the answer."""
        sent = 0
        with self.connected() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(head)
                while sent < most and not _readable(connection):
                    sent += connection.send(piece)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return sent, Answer(response.status, response.headers, response.read())

    def asked(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to one ordinary request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        found = Answer(response.status, response.headers, response.read())
        connection.close()
        return found

    @contextmanager
    def crowd(self, count: int, *pieces: bytes) -> Iterator[list[socket.socket]]:
        """As many connections at once, on each of which so much was sent and no more; all are closed in the end."""
        with ExitStack() as stack:
            made = [stack.enter_context(self.connected()) for _ in range(count)]
            for piece in pieces:
                for connection in made:
                    with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                        connection.settimeout(1.0)
                        connection.sendall(piece)
            yield made

    def flood(self, count: int, request: bytes) -> None:
        """One connection after the other that asks, and breaks off without waiting for the answer."""
        for _ in range(count):
            with self.connected() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(request)


def request(line: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """The bytes of a request; nothing is added to what is given."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{line}\r\n{head}\r\n".encode("latin-1") + body


def chunked(body: bytes, cuts: Sequence[int]) -> bytes:
    """A body in chunks, cut at some places."""
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts} - {0}), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(places) if end > start]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def parsed(received: bytes, method: str) -> list[Answer]:
    """The answers in what a connection gave until it ended; those that only bid to go on are left out."""
    stream = io.BytesIO(received)
    found = []
    while stream.tell() < len(received):
        response = http.client.HTTPResponse(cast("socket.socket", _Given(stream)), method=method)
        response.begin()
        found.append(Answer(response.status, response.headers, _body(response)))
    return found


def _body(response: http.client.HTTPResponse) -> bytes:
    """Return the body of an answer; that of a server which refused what it could not read may be cut short."""
    try:
        return response.read()
    except http.client.IncompleteRead as cut:
        if response.status != http.client.BAD_REQUEST or "X-Model-Digest" in response.headers:
            raise
        return cut.partial


class _Given:
    """As much of a socket as the reader of an answer needs, over bytes that are there."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BytesIO:
        return cast("io.BytesIO", _Open(self._stream))


class _Open(io.RawIOBase):
    """A stream that stays open for the next answer when the reader of one is done."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._stream.readinto(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        return self._stream.readline(-1 if size is None else size)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


def _readable(connection: socket.socket) -> bool:
    """Whether something has come; waits as long as nothing can be sent either."""
    return bool(select.select([connection], [connection], [], PATIENCE)[0])


def _received(connection: socket.socket) -> bytes:
    pieces = bytearray()
    with suppress(ConnectionResetError, TimeoutError):
        while len(pieces) < _MOST_READ and (piece := connection.recv(65536)):
            pieces += piece
    return bytes(pieces)
