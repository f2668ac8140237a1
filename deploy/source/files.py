"""The selected files of a folder: which there are, and the state of each.

The state of a file is its mode and sha256. A link to a folder stays a link in the image, because
the files that it leads to are there too; a link to a file becomes a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.errors import SourceUnreadable, is_disk_full
from deploy.git_lfs import LONGEST_START, is_pointer
from deploy.source.patterns import Parts, Selection, split
from deploy.text import show_undecodable

LINK = "l "
"""How the state of a link to a folder begins; the target follows."""
_FIX = (
    "correct `files` in [app], or `dockerfile` in [image]; "
    "docs/02-settings.md lists what wildcards do not match"
)


def read_states(directory: Path, selection: Selection) -> dict[str, str]:
    """Return the state of each selected file by its path below a folder.

    Raises:
        SourceUnreadable: a pattern matches nothing, a file cannot be read or is a pointer of Git
            LFS, a link leads outside, or a name is not UTF-8.
    """
    found = [path for path in _walk(directory, selection) if _is_wanted(directory, path, selection)]
    _require_matches(directory, found, selection)
    names = sorted(_name(path) for path in found)
    files = {name for name in names if not _is_linked_folder(directory / name)}
    return {
        name: read_state(directory, name)
        for name in names
        if name in files or _has_target(directory, name, files, selection)
    }


def read_state(directory: Path, name: str) -> str:
    """Return the state of one file, or of a link to a folder.

    Raises:
        SourceUnreadable: it cannot be read, leads outside of its folder, or is a pointer.
    """
    path = directory / name
    if path.is_symlink():
        target = _follow(directory, name)
        if path.is_dir():
            return LINK + str(path.readlink())
        if not (directory / target).is_relative_to(path.parent):
            raise _link_error("a link points outside of its folder", path)
    with translate_errors(path), path.open("rb") as file:
        if is_pointer(file.read(LONGEST_START)):
            raise SourceUnreadable(
                "a file is only the pointer of Git LFS to the file itself",
                on=str(path),
                next="run `git lfs pull`; in CI, let the checkout fetch the files of Git LFS",
            )
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{'x' if os.access(path, os.X_OK) else '-'} {digest}"


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal of a file into an error of the source; a full disk stays one."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        raise SourceUnreadable(
            f"a file cannot be read: {error.strerror or error}",
            on=str(path),
            next="make it readable",
        ) from error


def _walk(directory: Path, selection: Selection, folder: Parts = ()) -> Iterator[Parts]:
    """Yield the paths of files and links that may be selected; links are not followed."""
    place = directory.joinpath(*folder)
    with translate_errors(place), os.scandir(place) as entries:
        for entry in entries:
            path = (*folder, entry.name)
            if not selection.reaches(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(directory, selection, path)
            elif entry.is_symlink() or entry.is_file():
                yield path


def _is_wanted(directory: Path, path: Parts, selection: Selection) -> bool:
    """Return whether a path is a selected file, or a link to a folder of which some may be."""
    is_folder = directory.joinpath(*path).is_dir()
    return not selection.ignores(path) if is_folder else selection.selects(path)


def _is_linked_folder(path: Path) -> bool:
    """Return whether a path is a link to a folder."""
    return path.is_symlink() and path.is_dir()


def _require_matches(directory: Path, found: list[Parts], selection: Selection) -> None:
    for path in sorted(selection.named):
        if path not in found:
            raise _no_match_error(directory, path)
    for pattern in selection.patterns:
        if not any(_is_match(directory, path, pattern, selection) for path in found):
            raise _no_match_error(directory, pattern)


def _is_match(directory: Path, path: Parts, pattern: Parts, selection: Selection) -> bool:
    """Return whether a pattern matches a file, or a file that a linked folder may lead to."""
    return selection.is_match(path, pattern) or (
        selection.is_match(path, pattern, partly=True) and directory.joinpath(*path).is_dir()
    )


def _no_match_error(directory: Path, pattern: Parts) -> SourceUnreadable:
    # As it is written in the settings.
    text = "/".join(pattern[:-1] if pattern[-2:] == ("**", "*") else pattern)
    is_folder = directory.joinpath(*pattern).is_dir()
    return SourceUnreadable(
        "a pattern names a folder, not its files" if is_folder else "no file matches",
        on=str(directory / text),
        next=f'write "{text}/**" in `files` of [app] for all its files' if is_folder else _FIX,
    )


def _name(path: Parts) -> str:
    """Return a path as text.

    Raises:
        SourceUnreadable: it is not UTF-8, and so cannot be written to an archive.
    """
    name = "/".join(path)
    undecodable = show_undecodable(name)
    if undecodable:
        raise SourceUnreadable(
            "a file's name is not UTF-8",
            on=undecodable,
            next="rename it, or leave it out of `files` in [app]",
        )
    return name


def _has_target(directory: Path, link: str, files: set[str], selection: Selection) -> bool:
    """Return whether a linked folder has selected files; each has to be in the image itself.

    Raises:
        SourceUnreadable: one is not, or the link leads to a folder that it is in.
    """
    target = _follow(directory, link)
    if link.startswith(f"{target}/") or target == ".":
        raise _link_error("a link leads to a folder that it is in", directory / link)
    below = [
        path for path in _list_files(directory / target) if selection.selects((*split(link), *path))
    ]
    for path in below:
        wanted = "/".join((target, *path))
        if wanted not in files:
            raise SourceUnreadable(
                "a linked folder has a file that is not in the image",
                on=str(directory / link),
                next=f'add "{target}/**" to `files` in [app], '
                "or replace the link by the folder it leads to",
                detail=f"  {wanted}",
            )
    return bool(below)


def _list_files(folder: Path) -> Iterator[Parts]:
    """Yield the files of a folder and below, by their paths relative to it."""
    for place, _, names in os.walk(folder):
        for name in names:
            yield (Path(place) / name).relative_to(folder).parts


def _follow(directory: Path, name: str) -> str:
    """Return where a link leads, relative to the application's folder.

    Raises:
        SourceUnreadable: it leads outside of the folder, to nothing, or to itself.
    """
    link = directory / name
    try:
        target = link.resolve(strict=True)
    # Before Python 3.13, a link that leads to itself is a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise _link_error("a link leads to nothing", link) from error
    if not target.is_relative_to(directory.resolve()):
        raise _link_error("a link leads outside of the application's folder", link)
    if link.readlink().is_absolute():
        raise _link_error("a link has an absolute path", link)
    return target.relative_to(directory.resolve()).as_posix()


def _link_error(what: str, link: Path) -> SourceUnreadable:
    return SourceUnreadable(
        what, on=str(link), next="replace it by what it points to, or remove it"
    )
