"""The check that killed runs leave nothing on the machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bench.application import Application


def assert_none(application: Application, **variables: str) -> None:
    """Check that killed runs left no surplus replica, lock, throwaway container or partial file.

    Args:
        application: an application that serves with two replicas.
        variables: additional environment variables of its tasks.
    """
    status = application.ok("status", "--json", **variables).json
    assert status["healthy"] is True, status
    assert len(status["replicas"]) == 2

    names = docker(
        "ps",
        "-a",
        "--filter",
        f"label=dev.twinship.app={application.name}",
        "--format",
        "{{.Names}}",
        **variables,
    ).split()
    assert not [name for name in names if name.endswith("lock")]
    assert len(names) == 3, names
    throwaways = docker("ps", "-aq", "--filter", "label=dev.twinship.trial", **variables).split()
    owners = [
        _labels(container, **variables).get("dev.twinship.trial", "") for container in throwaways
    ]
    assert not [
        owner for owner in owners if owner and not Path(f"/proc/{owner.split('/')[2]}").exists()
    ]
    for blob in (application.home / "blobs" / "sha256").iterdir():
        with blob.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == blob.name
    assert not list((application.home / "tmp").iterdir())


def docker(*words: str, **variables: str) -> str:
    """Return the output of a command of the engine."""
    return subprocess.run(
        ["docker", *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _labels(container: str, **variables: str) -> dict[str, Any]:
    """Return the labels of a container; none if it is removed meanwhile."""
    command = ["docker", "inspect", "-f", "{{json .Config.Labels}}", container]
    found = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    return dict(json.loads(found.stdout.strip() or "{}"))
