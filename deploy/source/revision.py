"""The revision of an app image's files, and whether it has exactly their bytes.

The files are compared with the tree of the last commit, because `git status` does not show every
difference: not in submodules beyond their commit, not in files that git is told to ignore or to
take for unchanged, not in modes where `core.fileMode` is false.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.clients import git
from deploy.records import Commit
from deploy.source.files import LINK
from deploy.source.patterns import Selection, split

log = logging.getLogger(__name__)

UNVERSIONED = "unversioned"
_MOST_LINKS = 40


@dataclass(frozen=True)
class _CommittedFile:
    """A file or link of a commit.

    Attributes:
        repository: a folder of the repository that has the commit.
        commit: the commit.
        path: the path below that folder.
        entry: the mode and the object.
    """

    repository: Path
    commit: str
    path: str
    entry: git.TreeEntry

    @property
    def target(self) -> str:
        """The target, if it is a link."""
        return git.read_link(self.repository, self.entry.object)

    def has_state(self, file: Path, state: str) -> bool:
        """Return whether it is a file with that mode and those bytes."""
        mode, _, digest = state.partition(" ")
        return (mode == "x") == self.entry.is_executable and (
            git.hash_file(file, self.entry.object) == self.entry.object
            or git.hash_checked_out(self.repository, self.commit, self.path) == digest
        )


_Tree = Mapping[str, _CommittedFile]


class _SubmoduleMissing(Exception):
    """The commit of a submodule is not here."""


def read_commit(directory: Path, selection: Selection, files: Mapping[str, str]) -> Commit:
    """Read which revision last changed the files, and whether they differ from the last commit.

    A file that no longer exists counts as well.

    Args:
        directory: the application's folder.
        selection: what goes into the image.
        files: the state of each file by its path, as `deploy.source.files` reads it.

    Raises:
        SourceUnreadable: there is a repository, but git cannot read it.
    """
    missing = _missing_repository(directory)
    if missing:
        log.warning("%s: the release is marked %s", missing, UNVERSIONED)
        return Commit(revision=UNVERSIONED, dirty=True)
    if git.is_shallow(directory):
        log.warning(
            "this clone is shallow: the revision may be a later one than the last that changed "
            "the code; fetch the whole history"
        )
    if not git.has_commits(directory):
        return Commit(revision=UNVERSIONED, dirty=True)
    entries = git.read_tree(directory, git.HEAD)
    # A submodule is one entry: it does not match a pattern for the files in it.
    submodules = (
        f":(literal){path}"
        for path, entry in entries.items()
        if entry.is_submodule and selection.reaches(split(path))
    )
    revision = git.last_revision(directory, [*selection.pathspecs, *submodules])
    return Commit(
        revision=revision or UNVERSIONED,
        dirty=not _is_committed(directory, entries, selection, files),
    )


def _missing_repository(directory: Path) -> str:
    """Return why there is no revision, or nothing if there is one."""
    if not git.is_installed():
        return "git is not installed"
    return "" if git.is_repository(directory) else "no git repository here"


def _is_committed(
    directory: Path,
    entries: Mapping[str, git.TreeEntry],
    selection: Selection,
    files: Mapping[str, str],
) -> bool:
    """Return whether a checkout of the last commit has the same files with the same bytes."""
    try:
        tree = dict(_list_committed(directory, git.HEAD, entries, selection))
    except _SubmoduleMissing:
        return False
    selected = {path for path in tree if selection.selects(split(path))}
    return selected <= files.keys() and all(
        _is_as_committed(directory, path, state, tree) for path, state in files.items()
    )


def _list_committed(
    repository: Path,
    commit: str,
    entries: Mapping[str, git.TreeEntry],
    selection: Selection,
    prefix: str = "",
) -> Iterator[tuple[str, _CommittedFile]]:
    """Yield what a commit and its submodules have, by path, as far as the image can have it.

    Raises:
        _SubmoduleMissing: a submodule is not here in the version that the commit names.
    """
    for path, entry in entries.items():
        if not entry.is_submodule:
            yield prefix + path, _CommittedFile(repository, commit, path, entry)
        elif selection.reaches(split(prefix + path)):
            submodule = repository / path
            if not git.has_object(submodule, entry.object):
                raise _SubmoduleMissing(path)
            nested = git.read_tree(submodule, entry.object)
            yield from _list_committed(
                submodule, entry.object, nested, selection, f"{prefix}{path}/"
            )


def _is_as_committed(directory: Path, path: str, state: str, tree: _Tree) -> bool:
    """Return whether a commit has a file, or a link to a folder, in that state."""
    if state.startswith(LINK):
        link = tree.get(path)
        return link is not None and link.entry.is_link and state == LINK + link.target
    found = _follow(path, tree)
    return found is not None and found.has_state(directory / path, state)


def _follow(path: str, tree: _Tree) -> _CommittedFile | None:
    """Return the file at a path of a commit, or at the end of its links."""
    for _ in range(_MOST_LINKS):
        found = tree.get(path)
        if found is None or not found.entry.is_link:
            return found
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), found.target))
    return None
