"""GitLab CI/CD: the user and the pipeline, from its predefined variables.

Source: https://docs.gitlab.com/ci/variables/predefined_variables/
"""

from __future__ import annotations

import os


def user() -> str:
    """Return the user who started the pipeline; empty outside GitLab."""
    return os.environ.get("GITLAB_USER_LOGIN", "")


def run_url() -> str:
    """Return the URL of the pipeline; empty outside GitLab."""
    return os.environ.get("CI_PIPELINE_URL", "")
