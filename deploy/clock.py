"""The passing of time, so that waiting can be tried without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def _everywhere() -> float:
    # Linux' monotonic clock stands still while the machine sleeps; where there is no other one, it goes on, or nothing tells.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True)
class Clock:
    """Seconds since some moment, and a way to let some pass.

    Attributes:
        now: the seconds in which this machine was awake.
        sleep: lets some pass.
        elsewhere: the seconds that have passed for others: those that this machine slept through are among them.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    elsewhere: Callable[[], float] = _everywhere


REAL = Clock()
