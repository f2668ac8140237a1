"""The passing of time, as a parameter: code that waits can be tested without a wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def _now_with_suspend() -> float:
    # Linux' monotonic clock stops while the machine is suspended; this one does not.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _utc() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Clock:
    """Seconds since some moment, and a function that lets some pass.

    Attributes:
        now: returns the seconds during which this machine was awake.
        sleep: lets seconds pass.
        now_with_suspend: returns the seconds that passed for other machines too: those during
            which this one was suspended count, if the system has a clock that counts them.
        utc: returns the date and time, to compare with those that other machines wrote.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now_with_suspend: Callable[[], float] = _now_with_suspend
    utc: Callable[[], datetime] = _utc


REAL = Clock()
