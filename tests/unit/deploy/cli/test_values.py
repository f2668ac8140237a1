"""Values that a user types."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deploy.cli.values import read_duration, read_id
from deploy.errors import SettingsInvalid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", timedelta(seconds=30)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    """As other tools have it."""
    assert read_duration(text, "--since") == expected


@pytest.mark.parametrize("text", ["10", "m", "10 m", "-1m", "1.5h", "10m5s", "²m", "9" * 9 + "d"])
def test_another_duration_is_refused(text: str) -> None:
    """The error has examples."""
    with pytest.raises(SettingsInvalid, match="--since takes a duration") as caught:
        read_duration(text, "--since")
    assert "10m" in caught.value.next


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5", "²", "9" * 20])
def test_what_is_no_id_is_refused(text: str) -> None:
    """The error names the option."""
    with pytest.raises(SettingsInvalid, match="--to takes the id of a release"):
        read_id(text, "--to")
    assert read_id("12", "--to") == 12
