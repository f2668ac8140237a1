"""The passing of time."""

from __future__ import annotations

import time

import pytest

from deploy.clock import REAL
from tests.fakes.clock import FakeTime


def test_real_time_passes_and_never_goes_back() -> None:
    """A change of the machine's wall clock does not count."""
    before = REAL.now()
    REAL.sleep(0.001)
    assert REAL.now() > before


def test_time_during_a_suspend_counts_where_the_system_counts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where it does not, the monotonic clock is used."""
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 77, raising=False)
    monkeypatch.setattr(time, "clock_gettime", {77: 3600.0}.get, raising=False)
    assert REAL.now_with_suspend() == 3600.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before = REAL.now()
    assert before <= REAL.now_with_suspend() <= REAL.now()


def test_another_clock_needs_no_wait() -> None:
    """A test lets an hour pass at once."""
    clock = FakeTime().clock
    clock.sleep(3600)
    assert clock.now() == clock.now_with_suspend() == 3600
