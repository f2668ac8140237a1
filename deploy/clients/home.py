"""The home folder of this user, which a job in a container may lack."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.errors import SettingsInvalid


def find_home() -> Path | None:
    """Return this user's home folder, or None if neither HOME nor the user database has one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def require_home(cure: str) -> Path:
    """Return this user's home folder.

    Args:
        cure: what to do where there is none.

    Raises:
        SettingsInvalid: this user has none.
    """
    found = find_home()
    if found is None:
        raise SettingsInvalid(
            "this user has no home folder", on=f"the user {os.getuid()}", next=cure
        )
    return found
