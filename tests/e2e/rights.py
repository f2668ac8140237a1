"""Commands with more, fewer or no rights, compared with the user who runs the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.missing import lacking

NOBODY = 65534


def root(*command: str) -> tuple[str, ...]:
    """Return a command as the administrator runs it."""
    if os.geteuid() == 0:
        return command
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode != 0:
        lacking("this needs the administrator", "run it as root, or let sudo ask for no password")
    return ("sudo", "-n", "-E", *command)


def myself() -> tuple[str, ...]:
    """Return the words by which a command of the administrator runs another as this user."""
    return (
        ()
        if os.geteuid() == 0
        else ("setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups", "--")
    )


def owner_only() -> tuple[str, ...]:
    """Return the words by which a command obeys the permissions of files, even as root."""
    return (
        ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--")
        if os.geteuid() == 0
        else ()
    )


def stranger() -> tuple[str, ...]:
    """Return the words by which a command runs as a user in no group, who may only read.

    The user may read everything: the interpreter and the checkout may be in a home folder.
    """
    ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return root(
        "setpriv", *ids, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"
    )


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Take all permissions from a file or folder while a `with` block lasts."""
    before = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(before)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size on a folder while a `with` block lasts."""
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
