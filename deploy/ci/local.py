"""A run outside CI: the user of the operating system."""

from __future__ import annotations

import getpass
import os


def user() -> str:
    """Return the user's login name, or the user's number if there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
