"""The pauses between requests to a registry, and the hidden login."""

from __future__ import annotations

import pytest

from deploy.clients.oci.credentials import Login
from deploy.clients.oci.http import RetryPolicy


def pause_of(attempt: int, retry_after: str = "") -> float:
    """Return the pause before an attempt."""
    pauses: list[float] = []
    RetryPolicy(wait=pauses.append).pause(attempt, retry_after)
    return pauses[0]


def test_pauses_double_up_to_a_limit() -> None:
    """The pauses double, up to eight seconds."""
    longest = [max(pause_of(attempt) for _ in range(200)) for attempt in range(1, 8)]
    assert longest == pytest.approx([0.5, 1, 2, 4, 8, 8, 8], rel=0.1)
    assert all(wait <= limit for wait, limit in zip(longest, [0.5, 1, 2, 4, 8, 8, 8], strict=True))


def test_pauses_are_random() -> None:
    """The jitter is up to a half of each pause."""
    pauses = {pause_of(3) for _ in range(20)}
    assert len(pauses) > 10
    assert all(1 <= wait <= 2 for wait in pauses)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("1", 1.0), ("42", 42.0), ("60", 60.0), ("61", 60.0), ("999999999", 60.0)],
)
def test_the_header_sets_the_pause_up_to_a_minute(header: str, seconds: float) -> None:
    """Such a pause has no jitter."""
    assert pause_of(1, header) == seconds


@pytest.mark.parametrize("header", ["0", "-5", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_header_without_whole_seconds_is_ignored(header: str) -> None:
    """The pause is that of the backoff."""
    assert 0.25 <= pause_of(1, header) <= 0.5


def test_a_login_does_not_show_itself() -> None:
    """Neither user nor password is in its text, also inside another object."""
    text = f"{Login('ada', 'open-sesame')} {[Login('ada', 'open-sesame')]!r}"
    assert "ada" not in text
    assert "sesame" not in text
