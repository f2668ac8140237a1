"""The pip of this machine, with its own configuration: index, proxy, certificates and login."""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy import progress
from deploy.clients.programs import run_program
from deploy.errors import DiskFull, WheelsUnavailable

_TAIL = 8


def download_locked(lock: Path, target: Path, *, python: str, platforms: Sequence[str]) -> None:
    """Download the wheels that a lock file names; pip checks each one by its hash.

    Args:
        lock: A requirements file with a hash for every package.
        target: The folder that receives the wheels.
        python: The CPython version that the wheels are for.
        platforms: The platform tags that a wheel may have.

    Raises:
        WheelsUnavailable: Pip could not get a wheel; its last lines are in the detail.
        DiskFull: The disk has no space left for them.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--require-hashes",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--implementation=cp",
        f"--python-version={python}",
        "--dest",
        str(target),
        "-r",
        str(lock),
        "--progress-bar=off",
        *(f"--platform={platform}" for platform in platforms),
    ]
    done = run_program(command, _report)
    if any(f"[Errno {errno.ENOSPC}]" in line for line in done.lines):
        raise DiskFull(
            "no space is left for the locked dependencies",
            on=f"{target.parent} or {tempfile.gettempdir()}",
            next="free some space and run again; nothing that was complete is lost",
        )
    if done.exit_code != 0:
        raise WheelsUnavailable(
            "the locked dependencies could not be downloaded",
            on=str(lock),
            next="check the network and pip's own settings (index, PIP_CERT), then run again",
            detail="\n".join(f"  {line}" for line in done.lines[-_TAIL:]),
        )


def _report(line: str) -> None:
    progress.report(line.partition(" from ")[0])
