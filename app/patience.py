"""How long the threads of a server wait for clients, and how much of what clients send they keep in memory.

A client that sends or reads slowly holds a thread. It may for a while; where many do at once, only as long as it makes progress.
Knows nothing of HTTP, and of sockets only that they can be shut.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# So many slow clients at once are no coincidence: from then on each must keep to the rate, moment by moment.
_CROWD = 8
_MOMENT_SECONDS = 1.0
_BYTES_A_SECOND = 64 * 1024


@dataclass(slots=True, eq=False)
class Wait:
    """A thread's wait for one client: since when, and what has come of it.

    Attributes:
        connection: Which is shut when patience ends.
        direction: Of the two ways of the connection, the one that is shut: ``socket.SHUT_RD`` lets an answer through.
        since: Monotonic seconds.
        seen: When its progress was looked at last.
        moved: Bytes since then.
    """

    connection: socket.socket
    direction: int
    since: float
    seen: float
    moved: int = 0


class Patience:
    """All waits of one server's threads, which begin and end them while another thread looks at them."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waits: dict[int, Wait] = {}

    def begin(self, key: int, connection: socket.socket, direction: int) -> None:
        """Count a wait from now on, in the place of another with this key."""
        now = self._clock()
        self._waits[key] = Wait(connection, direction, now, now)

    def moved(self, key: int, count: int) -> None:
        """Count bytes that came of a wait."""
        if wait := self._waits.get(key):
            wait.moved += count

    def end(self, key: int) -> None:
        """Forget a wait, if it is there."""
        self._waits.pop(key, None)

    def enforce(self) -> None:
        """Shut the connections that were waited for long enough; the thread that waits there sees the end of the stream."""
        now, waits = self._clock(), list(self._waits.values())
        for wait in waits:
            if now > wait.since + self._seconds or (
                not _keeps_on(wait, now) and len(waits) > _CROWD
            ):
                with contextlib.suppress(OSError):
                    wait.connection.shutdown(wait.direction)


def _keeps_on(wait: Wait, now: float) -> bool:
    """Whether a wait has made progress in the last moment, or has not had one yet."""
    lasted = now - wait.seen
    if lasted < _MOMENT_SECONDS:
        return True
    enough = wait.moved >= lasted * _BYTES_A_SECOND
    wait.seen, wait.moved = now, 0
    return enough


class Room:
    """The bytes that clients' bodies may take in memory, all together."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """A share of the room, empty at first; all that it takes is free again when the block is left."""
        share = Share(self)
        try:
            yield share
        finally:
            self._change(-share.taken)

    def _change(self, count: int) -> bool:
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True


@dataclass(slots=True)
class Share:
    """What one body takes of the room."""

    room: Room
    taken: int = 0

    def take(self, count: int) -> bool:
        """Take so many bytes more, if there is room."""
        if not self.room._change(count):  # noqa: SLF001 - one thing in two parts
            return False
        self.taken += count
        return True
