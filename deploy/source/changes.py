"""What changed in an application between two commits, as its repository has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.clients import git
from deploy.records import Commit
from deploy.settings.reading import Settings
from deploy.source.inputs import read_selection

# Names in a history come from outside: another text could be an option of git.
_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_LOCK_SUFFIXES = (".txt", ".lock")


@dataclass(frozen=True)
class CodeChanges:
    """The changes from one commit to another, as far as they concern the image.

    Attributes:
        added: the commits that came, newest first, each by its short name and its subject.
        removed: the commits that are gone.
        files: the files that differ, by path, with git's letter: A, D, M or T.
        packages: the versions of the packages that differ, before and after; empty for none. They
            are those of lines such as `name==1.2` in changed lock files.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def explain_unknown(directory: Path, commit: Commit) -> str:
    """Return why a commit cannot be looked at here, as a clause; empty if it can.

    Raises:
        SourceUnreadable: git does not trust the repository.
    """
    if not _OBJECT.fullmatch(commit.revision):
        return f"it is {commit.revision}"
    if not git.is_installed():
        return "git is not installed"
    if not git.has_object(directory, f"{commit.revision}^{{commit}}"):
        return f"the repository here has no commit {commit.revision[:12]}; `git fetch` may bring it"
    return ""


def read_changes(directory: Path, settings: Settings, first: Commit, second: Commit) -> CodeChanges:
    """Return what changed from one commit to another; both are known here.

    Raises:
        SourceUnreadable: git cannot read the repository.
    """
    older = first.revision
    newer = second.revision
    pathspecs = read_selection(directory, settings).pathspecs
    files = git.list_changes(directory, older, newer, pathspecs)
    return CodeChanges(
        added=git.list_commits(directory, older, newer, pathspecs),
        removed=git.list_commits(directory, newer, older, pathspecs),
        files=files,
        packages=_compare_packages(
            *(_read_packages(directory, revision, files) for revision in (older, newer))
        ),
    )


def _read_packages(directory: Path, revision: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Return the versions in the lock files among some paths, by the package's name."""
    texts = (
        (git.read_file(directory, revision, path) or b"").decode(errors="replace")
        for path in paths
        if path.endswith(_LOCK_SUFFIXES)
    )
    return {name.lower(): version for text in texts for name, version in _PIN.findall(text)}


def _compare_packages(
    before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    return {
        name: (before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
