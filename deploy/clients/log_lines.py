"""Lines of a log with their times, as engines and API servers give them on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

TimedLine = tuple[datetime, str]
"""When a line was written, and the line."""


def parse_timed_lines(lines: Iterable[str]) -> Iterator[TimedLine]:
    """Yield each line with the time before its first space; lines without one are left out.

    Engines and kubelets write times of RFC 3339, with up to nine digits of a second.
    """
    for line in lines:
        time, _, text = line.partition(" ")
        at = _parse_time(time)
        if at is not None:
            yield at, text


def _parse_time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None
