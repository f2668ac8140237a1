"""Lines of a log with their times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from deploy.clients.log_lines import parse_timed_lines

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("2026-01-02T03:04:05Z", AT),
        ("2026-01-02T03:04:05.123456789Z", AT.replace(microsecond=123456)),
        ("2026-01-02T03:04:05.5Z", AT.replace(microsecond=500000)),
        ("2026-01-02T04:04:05+01:00", AT.astimezone(timezone(timedelta(hours=1)))),
    ],
)
def test_times_of_engines_and_kubelets_are_read(time: str, at: datetime) -> None:
    """They have up to nine digits of a second, and the zone of the node."""
    assert list(parse_timed_lines([f"{time} one  two "])) == [(at, "one  two ")]


def test_an_empty_line_has_its_time() -> None:
    """An application may write one."""
    assert list(parse_timed_lines(["2026-01-02T03:04:05Z "])) == [(AT, "")]


@pytest.mark.parametrize("line", ["", "unable to retrieve container logs", "2026-01-02T03:04:05 a"])
def test_a_line_without_a_time_is_left_out(line: str) -> None:
    """It is a message of the node, or the end of the response."""
    assert list(parse_timed_lines([line])) == []
