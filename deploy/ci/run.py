"""The run that a release is part of, in whichever CI system: its user and its URL."""

from __future__ import annotations

import re
from typing import Protocol

from deploy.ci import azure, github, gitlab, local


class CiSystem(Protocol):
    """A CI system; each module of this package that is named after one implements it."""

    def user(self) -> str:
        """Return the user who started the run; empty outside this CI system."""

    def run_url(self) -> str:
        """Return the URL of the run; empty outside this CI system."""


_SYSTEMS: tuple[CiSystem, ...] = (github, azure, gitlab)


def current_user() -> str:
    """Return the user whom the CI system names, or the user of the operating system."""
    for system in _SYSTEMS:
        user = system.user()
        if user:
            return user.replace("/", "-")
    return local.user()


def run_url() -> str:
    """Return the URL of the CI run, without a login in it; empty outside CI."""
    url = next(filter(None, (system.run_url() for system in _SYSTEMS)), "")
    # Everybody with access to the history reads the URL.
    return re.sub(r"(?<=://)[^/]*@", "", url, count=1)
