"""How long is waited before another try."""

from __future__ import annotations

import pytest

from deploy.clients import backoff


def waited(attempt: int, retry_after: str = "") -> float:
    """How long, where a server may ask for half a minute and eight seconds are waited at most without that."""
    return backoff.delay(attempt, retry_after, asked=30.0, chosen=8.0)


def test_each_wait_is_longer_than_the_one_before_up_to_a_limit() -> None:
    """The waits double, from a quarter of a second on."""
    longest = [max(waited(attempt) for _ in range(200)) for attempt in range(8)]
    assert longest == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 8, 8], rel=0.1)


def test_two_who_wait_are_not_in_step() -> None:
    """Chance takes up to a half of each wait."""
    waits = {waited(3) for _ in range(200)}
    assert len(waits) > 100
    assert all(1 <= wait <= 2 for wait in waits)


@pytest.mark.parametrize(
    ("said", "seconds"), [("1", 1.0), ("30", 30.0), ("31", 30.0), ("9" * 400, 30.0)]
)
def test_a_server_that_says_how_long_is_obeyed_up_to_its_limit(said: str, seconds: float) -> None:
    """Chance takes nothing from that."""
    assert waited(0, said) == seconds


@pytest.mark.parametrize("said", ["", "0", "-5", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_what_is_no_number_of_seconds_is_not_obeyed(said: str) -> None:
    """The usual wait comes instead."""
    assert 0.25 <= waited(1, said) <= 0.5
