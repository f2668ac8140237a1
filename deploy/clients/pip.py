"""The pip of this machine, with its own index, proxy, certificates and login.

Other options that a user has set, such as a target folder or a constraint, do not apply here.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from configparser import RawConfigParser
from pathlib import Path

from deploy import progress
from deploy.clients.environment import pip_variables, pip_variables_without_files
from deploy.clients.programs import Completed, run_program
from deploy.errors import DiskFull, WheelsUnavailable

_TAIL = 8
_EXISTS = ", exists: True"
# The kinds of configuration files, each before those that override it.
_KINDS = ("global", "user", "site", "env")


def download_locked(
    lock: Path, target: Path, *, python: str, platforms: Sequence[str], on: str
) -> None:
    """Download the wheels that a lock file names; pip checks each one by its hash.

    Args:
        lock: A requirements file with every package and its hash, and without markers.
        target: The folder that receives the wheels.
        python: The CPython version that the wheels are for.
        platforms: The platform tags that a wheel may have.
        on: Where the packages are locked, for errors.

    Raises:
        WheelsUnavailable: Pip could not get a wheel; its last lines are in the detail.
        DiskFull: The disk has no space left for them.
    """
    options = [
        "--require-hashes",
        # A lock has all packages; pip would look for others by the Python that runs it.
        "--no-deps",
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
    variables = pip_variables_without_files(_read_options(on))
    done = run_program([*_pip(), "download", *options], _report, environment=variables)
    if any(f"[Errno {errno.ENOSPC}]" in line for line in done.lines):
        raise DiskFull(
            "no space is left for the locked dependencies",
            on=f"{target.parent} or {tempfile.gettempdir()}",
            next="free some space and run again; nothing that was complete is lost",
        )
    if done.exit_code != 0:
        raise _failed(on, done)


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip"]


def _read_options(on: str) -> dict[str, str]:
    """Return the options of pip's configuration files for a download.

    Raises:
        WheelsUnavailable: pip cannot read the files.
    """
    variables = pip_variables()
    if variables.get("PIP_CONFIG_FILE") == os.devnull:
        return {}
    done = run_program([*_pip(), "config", "debug"], lambda _: None, environment=variables)
    if done.exit_code != 0:
        raise _failed(on, done)
    parser = RawConfigParser()
    parser.read(_list_files(done.lines), encoding="utf-8")
    found: dict[str, str] = {}
    for section in filter(parser.has_section, ("global", "download")):
        found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    return found


def _list_files(lines: Iterable[str]) -> list[str]:
    """Return the configuration files that pip reports, each before those that override it."""
    found: dict[str, list[str]] = {}
    kind = ""
    for line in lines:
        if line.endswith(_EXISTS):
            found.setdefault(kind, []).append(line.removesuffix(_EXISTS).strip())
        elif not line.startswith(" "):
            kind = line.removesuffix(":")
    return [file for kind in _KINDS for file in found.get(kind, ())]


def _failed(on: str, done: Completed) -> WheelsUnavailable:
    return WheelsUnavailable(
        "the locked dependencies could not be downloaded",
        on=on,
        next="check the network and pip's own settings (index, PIP_CERT), then run again",
        detail="\n".join(f"  {line}" for line in done.lines[-_TAIL:]),
    )


def _report(line: str) -> None:
    progress.report(line.partition(" (from ")[0].partition(" from ")[0])
