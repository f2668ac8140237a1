"""Other rights than those of the user who runs the tests: more of them, less, or none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

NOBODY = 65534


def lacking(what: str, cure: str) -> NoReturn:
    """Skips a test that cannot run here; on CI, where everything should be there, it fails instead."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; {cure}", pytrace=False)
    pytest.skip(f"{what}; {cure}")


def root(*command: str) -> tuple[str, ...]:
    """A command as the administrator runs it."""
    if os.geteuid() == 0:
        return command
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode != 0:
        lacking("this needs the administrator", "run it as root, or let sudo ask for no password")
    return ("sudo", "-n", "-E", *command)


def myself() -> tuple[str, ...]:
    """What to put between a command of the administrator's and one that this user shall run in its place."""
    return (
        ()
        if os.geteuid() == 0
        else ("setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups", "--")
    )


def owner_only() -> tuple[str, ...]:
    """What to put before a command to have it obey the permissions of files, which the administrator need not."""
    return (
        ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--")
        if os.geteuid() == 0
        else ()
    )


def stranger() -> tuple[str, ...]:
    """What to put before a command to run it as a user in no group, who may read everything but write nothing.

    The reading is for the tests' sake: this interpreter and the checkout may lie in somebody's home.
    """
    ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return root(
        "setpriv", *ids, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"
    )


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Takes all permissions from a file or folder for a while."""
    before = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(before)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of that size in a folder, for a while."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        root(
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={size},mode=755,uid={os.getuid()},gid={os.getgid()}",
            "tmpfs",
            str(path),
        ),
        check=True,
    )
    try:
        yield path
    finally:
        subprocess.run(root("umount", "-l", str(path)), check=True)
