"""The delay before another attempt."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.clients import backoff


def delay(attempt: int, retry_after: str = "") -> float:
    """Return a delay with limits of 30 seconds for the server and 8 seconds for the backoff."""
    return backoff.delay(attempt, retry_after, retry_after_limit=30.0, backoff_limit=8.0)


def test_delays_double_up_to_a_limit() -> None:
    """The first is a quarter of a second."""
    longest = [max(delay(attempt) for _ in range(200)) for attempt in range(8)]
    assert longest == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 8, 8], rel=0.1)


def test_delays_are_random() -> None:
    """The jitter is up to a half of each delay, so that clients do not retry at the same time."""
    delays = {delay(3) for _ in range(200)}
    assert len(delays) > 100
    assert all(1 <= seconds <= 2 for seconds in delays)


@pytest.mark.parametrize(
    ("header", "seconds"), [("1", 1.0), ("30", 30.0), ("31", 30.0), ("9" * 400, 30.0)]
)
def test_the_header_sets_the_delay_up_to_its_limit(header: str, seconds: float) -> None:
    """Such a delay has no jitter."""
    assert delay(0, header) == seconds


def test_the_header_can_have_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """The delay ends then, or at its limit."""
    then = datetime(2099, 10, 21, 7, 28, tzinfo=UTC).timestamp()
    for seconds, expected in ((5, 5), (60, 30)):
        monkeypatch.setattr("time.time", lambda now=then - seconds: now)
        assert delay(0, "Wed, 21 Oct 2099 07:28:00 GMT") == expected


@pytest.mark.parametrize("header", ["", "0", "-5", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_header_without_a_time_to_come_is_ignored(header: str) -> None:
    """The delay is that of the backoff."""
    assert 0.25 <= delay(1, header) <= 0.5
