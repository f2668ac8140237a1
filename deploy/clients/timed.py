"""Connections whose operations all end at one deadline.

A timeout of urllib3 is that of a single read. A server that sends a byte now and then, or one
interim response (RFC 9110, section 15.2) after another, would keep its client for ever.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from urllib3.connectionpool import HTTPConnectionPool

# The content of one TLS record: more could wait several times.
_PIECE = 1 << 14


class Deadline:
    """The time at which the present exchange ends.

    Args:
        now: Returns a time in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._at = 0.0

    def set(self, at: float) -> None:
        """Set the time at which the next exchange ends."""
        self._at = at

    def remaining(self) -> float:
        """Return how many seconds are left.

        Raises:
            TimeoutError: None are.
        """
        left = self._at - self._now()
        if left <= 0:
            raise TimeoutError
        return left


class TimedSocket:
    """A connected socket that sends and receives until a deadline only."""

    def __init__(self, plain: socket.socket, deadline: Deadline) -> None:
        self._plain = plain
        self._deadline = deadline

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a socket
        return getattr(self._plain, name)

    def sendall(self, data: bytes) -> None:
        """Send all bytes.

        Raises:
            TimeoutError: The receiver did not take them in time.
        """
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self._plain.settimeout(self._deadline.remaining())
            self._plain.sendall(view[start : start + _PIECE])

    def makefile(self, mode: str, *_: object, **__: object) -> io.BufferedReader:
        """Return a reader of the received bytes; closing it ends its use of the socket."""
        raw = self._plain.makefile("rb", buffering=0)
        return io.BufferedReader(_TimedReader(self._plain, raw, self._deadline))


class _TimedReader(io.RawIOBase):
    def __init__(self, plain: socket.socket, raw: io.RawIOBase, deadline: Deadline) -> None:
        self._plain = plain
        self._raw = raw
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - the base class's signature
        self._plain.settimeout(self._deadline.remaining())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def timed_pools(
    deadline: Deadline, plain: Mapping[str, type[HTTPConnectionPool]]
) -> dict[str, type[HTTPConnectionPool]]:
    """Return classes of connection pools, by scheme, whose connections end at a deadline.

    Args:
        deadline: Ends all operations of the connections.
        plain: The classes without a deadline; those for a SOCKS proxy differ from the usual ones.
    """
    return {scheme: _timed_pool(deadline, pool) for scheme, pool in plain.items()}


def _timed_pool(
    deadline: Deadline,
    pool: Any,  # noqa: ANN401 - mypy accepts no other variable as a base class
) -> type[HTTPConnectionPool]:
    connection: Any = pool.ConnectionCls

    class TimedConnection(connection):  # type: ignore[misc]  # known at run time only
        sock: Any

        def connect(self) -> None:
            self.timeout = deadline.remaining()
            super().connect()
            self.sock = TimedSocket(self.sock, deadline)

    class TimedPool(pool):  # type: ignore[misc]  # as above
        ConnectionCls = TimedConnection

    return TimedPool
