"""A clock whose seconds pass only when something sleeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from deploy.clock import Clock

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class FakeTime:
    """The time of a test.

    Attributes:
        seconds: the seconds that passed.
        clock: the clock that shows them.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clock = Clock(self._now, self._sleep, self._now, self._utc)

    def _now(self) -> float:
        return self.seconds

    def _utc(self) -> datetime:
        return _BEGIN + timedelta(seconds=self.seconds)

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
