"""Values that a user types: ids of releases, and durations."""

from __future__ import annotations

import re
from datetime import timedelta

from deploy.errors import SettingsInvalid

# Longer than any id, and short enough for every conversion.
_MOST_DIGITS = 18
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_id(text: str, option: str) -> int:
    """Return the id of a release.

    Args:
        text: what was typed.
        option: where it was typed.

    Raises:
        SettingsInvalid: it is no id.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text)):
        raise SettingsInvalid(
            f"{option} takes the id of a release, not {text!r}",
            on="the command line",
            next="`invoke history` shows the ids: 1, 2, and so on",
        )
    return int(text)


def read_duration(text: str, option: str) -> timedelta:
    """Return a duration such as `30s`, `10m`, `2h` or `1d`.

    Raises:
        SettingsInvalid: it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise SettingsInvalid(
            f"{option} takes a duration, not {text!r}",
            on="the command line",
            next="give a number and a unit: 30s, 10m, 2h or 1d",
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
