"""The passing of time."""

from __future__ import annotations

import time

import pytest

from deploy.clock import REAL, Clock


def test_real_time_passes_by_itself_and_never_goes_back() -> None:
    """Whatever somebody sets the machine's clock to."""
    before = REAL.now()
    REAL.sleep(0.001)
    assert REAL.now() > before


def test_time_goes_on_elsewhere_while_this_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock that counts that, where there is one."""
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 77, raising=False)
    monkeypatch.setattr(time, "clock_gettime", {77: 3600.0}.get, raising=False)
    assert REAL.now_with_suspend() == 3600.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before = REAL.now()
    assert before <= REAL.now_with_suspend() <= REAL.now()


def test_time_can_be_had_without_waiting() -> None:
    """By giving another source of it."""
    passed: list[float] = []
    clock = Clock(now=lambda: sum(passed), sleep=passed.append)
    clock.sleep(3600)
    assert clock.now() == 3600
