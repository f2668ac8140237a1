"""The lines that replicas and a proxy write: read in order of time, followed, and kept.

Clients choose some of what a replica logs: it is text from outside.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from deploy.clients.log_lines import TimedLine
from deploy.clock import Clock
from deploy.errors import ReleaseError
from deploy.records import LogLine
from deploy.text import escape_line

log = logging.getLogger(__name__)

_POLL = 1.0
_KEPT_LINES = 20
_KEPT_LENGTH = 300


@dataclass(frozen=True)
class Window:
    """The part of a log that is read: all of it by default.

    Attributes:
        since: the time of the first line.
        lines: the number of lines at the end that are enough.
    """

    since: datetime | None = None
    lines: int | None = None


@dataclass(frozen=True)
class LogSource:
    """Something whose log can be read.

    Attributes:
        name: its short name, unique among the sources of an environment at one time.
        image: the digest of a replica's image; empty for what is no replica.
        read: yields its lines, oldest first; none if it is gone.
    """

    name: str
    image: str
    read: Callable[[Window], Iterator[TimedLine]]


@runtime_checkable
class LogTarget(Protocol):
    """What a target has in addition to `Target` if its logs can be read, with or without a lock."""

    def log_sources(self) -> tuple[LogSource, ...]:
        """Return the replicas, running or not, and the proxy if there is one."""


def merge_logs(sources: Iterable[LogSource], window: Window) -> Iterator[LogLine]:
    """Yield the lines of several logs in order of time."""
    return heapq.merge(*(_lines_of(source, window) for source in sources), key=lambda line: line.at)


def follow_logs(
    find_sources: Callable[[], Iterable[LogSource]], window: Window, clock: Clock
) -> Iterator[LogLine]:
    """Yield the lines of several logs, and those that are written from then on, without an end.

    The logs are asked again and again, so that replicas which start later are followed too.

    Args:
        find_sources: returns the logs that exist now.
        window: the lines to begin with.
        clock: lets time pass between two looks.
    """
    readers: dict[str, _Reader] = {}
    beginning = window
    while True:
        new: list[LogLine] = []
        for source in find_sources():
            new += readers.setdefault(source.name, _Reader(beginning)).read_new(source)
        yield from sorted(new, key=lambda line: line.at)
        beginning = Window()
        clock.sleep(_POLL)


def read_last_lines(target: object, image: str) -> tuple[LogLine, ...]:
    """Return the last lines of the replicas of an image, as they can be kept: few, short, escaped.

    A log that cannot be read is no reason to leave an undo: there are no lines then.
    """
    if not isinstance(target, LogTarget):
        return ()
    try:
        sources = [source for source in target.log_sources() if source.image == image]
        lines = list(merge_logs(sources, Window(lines=_KEPT_LINES)))
    except ReleaseError as error:
        log.warning("the end of its log is not kept: %s", error.what)
        return ()
    return tuple(_shorten(line) for line in lines[-_KEPT_LINES:])


@dataclass
class _Reader:
    """Reads a log from where it stopped; a log may give lines of that moment again."""

    window: Window
    _last: datetime | None = field(default=None, init=False)
    _count: int = field(default=0, init=False)

    def read_new(self, source: LogSource) -> list[LogLine]:
        last = self._last
        lines = list(_lines_of(source, self.window))
        known = [line for line in lines if last is not None and line.at == last][: self._count]
        new = [line for line in lines if last is None or line.at >= last][len(known) :]
        if new:
            self._last = new[-1].at
            self._count = sum(line.at == self._last for line in lines)
        self.window = Window(since=self._last or self.window.since)
        return new


def _lines_of(source: LogSource, window: Window) -> Iterator[LogLine]:
    return (LogLine(source=source.name, at=at, text=text) for at, text in source.read(window))


def _shorten(line: LogLine) -> LogLine:
    text = escape_line(line.text)
    shown = text if len(text) <= _KEPT_LENGTH else f"{text[:_KEPT_LENGTH]}..."
    return line.model_copy(update={"text": shown})
