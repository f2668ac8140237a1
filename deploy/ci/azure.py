"""Azure Pipelines: the user and the run, from its predefined variables.

Source: https://learn.microsoft.com/azure/devops/pipelines/build/variables
"""

from __future__ import annotations

import os
from urllib.parse import quote


def user() -> str:
    """Return the user for whom the run was started; empty outside Azure Pipelines."""
    return os.environ.get("BUILD_REQUESTEDFOR", "")


def run_url() -> str:
    """Return the URL of the run; empty outside Azure Pipelines."""
    collection = os.environ.get("SYSTEM_COLLECTIONURI", "").rstrip("/")
    project = quote(os.environ.get("SYSTEM_TEAMPROJECT", ""))
    number = os.environ.get("BUILD_BUILDID")
    known = collection and project and number
    return f"{collection}/{project}/_build/results?buildId={number}" if known else ""
