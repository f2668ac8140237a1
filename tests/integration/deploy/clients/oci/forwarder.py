"""A forwarder to a port that a test can close, open again, and let lose or cut a response."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Forwarder:
    """Passes on what arrives on a port of its own.

    Args:
        target: host and port that it leads to.
        host: the address that it listens on.
    """

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self._target = target
        self._address = (host, 0)
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._losing = False
        self._bytes_left: int | None = None
        self.open()

    @property
    def url(self) -> str:
        """The URL of its own port."""
        return f"https://{self._address[0]}:{self._address[1]}"

    def open(self) -> None:
        """Accept connections, on the same port as before."""
        if self._listener is None:
            self._listener = socket.create_server(self._address)
            self._address = self._listener.getsockname()[:2]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and break the open ones."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._listener = None
        while self._open:
            _end(self._open.pop())

    def lose_response(self) -> None:
        """Break the connection of the next response before it arrives."""
        self._losing = True

    def cut_after(self, size: int) -> None:
        """Break the connection on which a number of bytes of responses has arrived in all."""
        self._bytes_left = size

    @property
    def has_cut(self) -> bool:
        """Whether the connection that `cut_after` announced was broken."""
        return self._bytes_left is None

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
                threading.Thread(
                    target=self._pass, args=(far, near), kwargs={"back": True}, daemon=True
                ).start()

    def _pass(self, source: socket.socket, sink: socket.socket, *, back: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if back and (self._losing or self._is_cut(len(data))):
                    self._losing = False
                    break
                sink.sendall(data)
        _end(source)
        _end(sink)

    def _is_cut(self, size: int) -> bool:
        """Count bytes of responses; return whether they are the last ones before the cut."""
        if self._bytes_left is None:
            return False
        self._bytes_left = None if size >= self._bytes_left else self._bytes_left - size
        return self._bytes_left is None


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def run_forwarder(target: tuple[str, int], host: str = "127.0.0.1") -> Iterator[Forwarder]:
    """Run a forwarder during a `with` block."""
    made = Forwarder(target, host)
    try:
        yield made
    finally:
        made.close()
