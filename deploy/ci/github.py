"""GitHub Actions: the user and the run, from its predefined variables.

Source: https://docs.github.com/actions/reference/workflows-and-actions/variables
"""

from __future__ import annotations

import os


def user() -> str:
    """Return the user who started the run; empty outside GitHub Actions."""
    return os.environ.get("GITHUB_ACTOR", "")


def run_url() -> str:
    """Return the URL of the run; empty outside GitHub Actions."""
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    repository = os.environ.get("GITHUB_REPOSITORY")
    number = os.environ.get("GITHUB_RUN_ID")
    return f"{server}/{repository}/actions/runs/{number}" if repository and number else ""
