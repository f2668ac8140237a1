"""Git, through its command line: what a repository says about files and their last change."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.clients.environment import git_variables
from deploy.errors import SourceUnreadable

HEAD = "HEAD"
"""The last commit."""
_SHA1_DIGITS = 40
# A user's configuration may add to what git prints.
_OWN_CONFIGURATION = ("-c", "log.showSignature=false", "-c", "color.ui=false")


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


def list_commits(
    directory: Path, older: str, newer: str, pathspecs: Sequence[str]
) -> tuple[str, ...]:
    """Return the commits that lead to one commit and not to another, newest first.

    Each has its short name and its subject. Both commits are object names, so none is an option.

    Args:
        directory: A directory of the repository.
        older: A commit.
        newer: Another commit.
        pathspecs: Git's patterns of the files that matter, relative to the directory.

    Raises:
        SourceUnreadable: Git cannot read the repository.
    """
    commits = f"{older}..{newer}"
    output = _run(directory, "log", "--format=%h %s", commits, "--", *pathspecs)
    return tuple((output or "").splitlines())


def list_changes(
    directory: Path, older: str, newer: str, pathspecs: Sequence[str]
) -> dict[str, str]:
    """Return how files differ between two commits, as a letter by path: A, D, M or T.

    The paths are relative to the directory. The arguments are those of `list_commits`.
    """
    options = ("--name-status", "--no-renames", "--relative", "-z")
    output = _read(directory, "diff", *options, older, newer, "--", *pathspecs) or b""
    fields = os.fsdecode(output).split("\0")
    return dict(zip(fields[1::2], fields[::2], strict=False))


def read_file(directory: Path, commit: str, path: str) -> bytes | None:
    """Return the bytes of a file in a commit; None if the commit does not have it.

    Raises:
        SourceUnreadable: The repository belongs to another user, and git does not trust it.
    """
    return _read(directory, "cat-file", "blob", f"{commit}:./{path}", failure_ok=True)


class TreeEntry(NamedTuple):
    """A file, link or submodule of a commit: its mode in octal digits, and its object's name."""

    mode: str
    object: str

    @property
    def is_executable(self) -> bool:
        """Whether it is a file that can be run."""
        return self.mode == "100755"

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link; its object holds the target."""
        return self.mode == "120000"

    @property
    def is_submodule(self) -> bool:
        """Whether it is a submodule; its object is a commit of another repository."""
        return self.mode == "160000"


def has_commits(directory: Path) -> bool:
    """Return whether a repository has a commit at all.

    Raises:
        SourceUnreadable: The repository belongs to another user, and git does not trust it.
    """
    return _run(directory, "rev-parse", "--verify", "--quiet", HEAD, failure_ok=True) is not None


def has_object(directory: Path, name: str) -> bool:
    """Return whether the repository of a directory has an object.

    Raises:
        SourceUnreadable: The repository belongs to another user, and git does not trust it.
    """
    return _run(directory, "cat-file", "-e", name, failure_ok=True) is not None


def read_tree(directory: Path, commit: str) -> dict[str, TreeEntry]:
    """Return what a commit has in a directory and below, by the path relative to the directory.

    Raises:
        SourceUnreadable: Git cannot read the repository.
    """
    output = os.fsdecode(_read(directory, "ls-tree", "-r", "-z", commit) or b"")
    entries = (line.partition("\t") for line in output.split("\0") if line)
    return {
        path: TreeEntry(mode=about.split()[0], object=about.split()[2])
        for about, _, path in entries
    }


def read_link(directory: Path, name: str) -> str:
    """Return the target of a link, of which a repository has the object.

    Raises:
        SourceUnreadable: Git cannot read the repository.
    """
    return os.fsdecode(_read(directory, "cat-file", "blob", name) or b"")


def hash_file(path: Path, like: str) -> str:
    """Return the name that an object with the bytes of a file has.

    Args:
        path: The file.
        like: The name of an object of the repository, which shows the kind of hash.
    """
    algorithm = "sha1" if len(like) == _SHA1_DIGITS else "sha256"
    content_hash = hashlib.new(algorithm, usedforsecurity=False)
    content_hash.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: content_hash)
    return content_hash.hexdigest()


def hash_checked_out(directory: Path, commit: str, path: str) -> str:
    """Return the sha256 of a file as a checkout writes it; empty if git cannot write it here.

    A checkout can convert files: the ends of their lines, or pointers to large files.

    Args:
        directory: A directory of the repository.
        commit: The commit that has the file.
        path: The file's path, relative to the directory.
    """
    command = _command(directory, "cat-file", "--filters", f"{commit}:./{path}")
    with subprocess.Popen(  # noqa: S603 - the user's own git
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=git_variables()
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was requested above
        digest = hashlib.file_digest(process.stdout, "sha256").hexdigest()  # type: ignore[arg-type]  # a buffered reader
    return digest if process.returncode == 0 else ""


def _command(directory: Path, *arguments: str) -> list[str]:
    return ["git", "--no-optional-locks", *_OWN_CONFIGURATION, "-C", str(directory), *arguments]


def _run(directory: Path, *arguments: str, failure_ok: bool = False) -> str | None:
    """Return git's output as text, or None where it fails and that is allowed."""
    output = _read(directory, *arguments, failure_ok=failure_ok)
    return None if output is None else os.fsdecode(output).strip()


def _read(directory: Path, *arguments: str, failure_ok: bool = False) -> bytes | None:
    """Return git's output, or None where it fails and that is allowed."""
    done = subprocess.run(  # noqa: S603 - the user's own git
        _command(directory, *arguments),
        capture_output=True,
        check=False,
        env=git_variables(),
    )
    message = done.stderr.decode(errors="replace").strip()
    if done.returncode == 0:
        return done.stdout
    if failure_ok and "dubious ownership" not in message:
        return None
    raise SourceUnreadable(
        "git cannot read this repository",
        on=str(directory),
        next="see git's message",
        detail=f"  {message}",
    )
