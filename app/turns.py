"""Whose turn it is: a few threads work at a time, some more wait in the order in which they came, and no more than those.

A client that breaks off leaves a thread behind that would work for nobody. Where there is no place for a newcomer, such threads lose
theirs, so that nobody can keep others away by asking and going. Knows nothing of HTTP.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class CrowdedError(Exception):
    """There is no place to wait, or not any more for one whose client has gone."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A thread that waits to be called: to its turn, or out of its place."""

    gone: Callable[[], bool]
    called: threading.Event = field(default_factory=threading.Event)
    out: bool = False

    def call(self, *, out: bool) -> None:
        self.out = out
        self.called.set()


class Turns:
    """The turns of one server's threads.

    Args:
        slots: how many threads work at the same time.
        places: how many wait beside them.
    """

    def __init__(self, slots: int, places: int) -> None:
        self._free = slots
        self._places = places
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, gone: Callable[[], bool]) -> Iterator[None]:
        """Wait for a slot, and hold it until the block is left.

        Args:
            gone: tells whether the client has closed its side, so that there may be nobody to work for; asked by other threads.

        Raises:
            CrowdedError: Too many wait already; or so many do now, and the client has gone.
        """
        waiting = self._enter(gone)
        if waiting:
            waiting.called.wait()
            if waiting.out:
                raise CrowdedError
        try:
            yield
        finally:
            self._leave()

    def _enter(self, gone: Callable[[], bool]) -> _Waiting | None:
        with self._lock:
            if self._free:
                self._free -= 1
                return None
            if len(self._waiting) >= self._places:
                self._make_room()
            if len(self._waiting) >= self._places:
                raise CrowdedError
            self._waiting.append(_Waiting(gone))
            return self._waiting[-1]

    def _make_room(self) -> None:
        stay: deque[_Waiting] = deque()
        for waiting in self._waiting:
            if waiting.gone():
                waiting.call(out=True)
            else:
                stay.append(waiting)
        self._waiting = stay

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().call(out=False)
            else:
                self._free += 1
