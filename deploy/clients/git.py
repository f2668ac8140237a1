"""Git, through its command line: what a repository says about files and their last change."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.clients.environment import git_variables
from deploy.errors import SourceUnreadable

# A user's configuration may add to what git prints, or leave out what has changed.
_OWN_CONFIGURATION = (
    "-c",
    "log.showSignature=false",
    "-c",
    "color.ui=false",
    "-c",
    "core.quotePath=false",
    "-c",
    "diff.ignoreSubmodules=none",
)


def is_installed() -> bool:
    """Return whether git can be run on this machine."""
    return shutil.which("git") is not None


def is_repository(directory: Path) -> bool:
    """Return whether a directory belongs to a git repository.

    Raises:
        SourceUnreadable: The repository belongs to another user, and git does not trust it.
    """
    return _run(directory, "rev-parse", "--is-inside-work-tree", failure_ok=True) is not None


def is_shallow(directory: Path) -> bool:
    """Return whether a clone lacks a part of its history.

    Raises:
        SourceUnreadable: Git cannot read the repository.
    """
    return _run(directory, "rev-parse", "--is-shallow-repository") == "true"


def last_revision(directory: Path, pathspecs: Sequence[str]) -> str:
    """Return the newest commit that changed a matching file, or nothing if there is none.

    Args:
        directory: A directory of the repository.
        pathspecs: Git's patterns, relative to the directory.

    Raises:
        SourceUnreadable: The repository belongs to another user, and git does not trust it.
    """
    format_ = "--format=%H"
    return _run(directory, "log", "-1", format_, "--", *pathspecs, failure_ok=True) or ""


def has_changes(directory: Path, pathspecs: Sequence[str]) -> bool:
    """Return whether matching files differ from the last commit; ignored files count as well.

    Args:
        directory: A directory of the repository.
        pathspecs: Git's patterns, relative to the directory.

    Raises:
        SourceUnreadable: Git cannot read the repository.
    """
    options = ("--porcelain", "--untracked-files=all", "--ignored")
    return bool(_run(directory, "status", *options, "--", *pathspecs))


def _run(directory: Path, *arguments: str, failure_ok: bool = False) -> str | None:
    """Return git's output, or None where it fails and that is allowed."""
    done = subprocess.run(  # noqa: S603 - the user's own git
        ["git", "--no-optional-locks", *_OWN_CONFIGURATION, "-C", str(directory), *arguments],  # noqa: S607 - as above
        capture_output=True,
        text=True,
        check=False,
        env=git_variables(),
    )
    if done.returncode == 0:
        return done.stdout.strip()
    if failure_ok and "dubious ownership" not in done.stderr:
        return None
    raise SourceUnreadable(
        "git cannot read this repository",
        on=str(directory),
        next="see git's message",
        detail=f"  {done.stderr.strip()}",
    )
