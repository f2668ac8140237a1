"""The files of an author's directory: which of them are published."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.errors import ManifestInvalid
from deploy.model.manifest import AUTHORS_FILE
from deploy.text import show_undecodable


@dataclass(frozen=True)
class Listing:
    """The paths below a directory, sorted.

    Attributes:
        files: The files to publish.
        left_out: The hidden files and folders that are not published.
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...]


def list_directory(directory: Path, named: Collection[str]) -> Listing:
    """Return the files of a model.

    A published version stays for ever, and a hidden file may hold a secret (`.env`, `.git/config`).

    Args:
        directory: The author's directory.
        named: The paths of files and folders that are published even if they are hidden.

    Raises:
        ManifestInvalid: There is something other than plain files and folders, or a name is not
            UTF-8.
    """
    files: list[str] = []
    left_out: list[str] = []
    waiting = [directory]
    while waiting:
        for path in waiting.pop().iterdir():
            relative = path.relative_to(directory)
            if _is_left_out(relative.as_posix(), named):
                left_out.append(f"{relative}/" if path.is_dir() else str(relative))
                continue
            _require_plain(path)
            _require_text(path)
            if path.is_dir():
                waiting.append(path)
            elif relative.as_posix() != AUTHORS_FILE:
                files.append(relative.as_posix())
    return Listing(tuple(sorted(files)), tuple(sorted(left_out)))


def _is_left_out(path: str, named: Collection[str]) -> bool:
    """Return whether a path is hidden, and neither it nor anything below or above it is named."""
    if not any(part.startswith(".") for part in PurePosixPath(path).parts):
        return False
    return not any(is_below(path, name) or is_below(name, path) for name in named)


def is_below(path: str, folder: str) -> bool:
    """Return whether a path is that of a folder or file, or is below it."""
    return f"{path}/".startswith(f"{folder}/")


def _require_text(path: Path) -> None:
    undecodable = show_undecodable(path.name)
    if undecodable:
        on = f"{path.parent}/{undecodable}"
        raise ManifestInvalid("a file's name is not UTF-8", on=on, next="rename it")


def _require_plain(path: Path) -> None:
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        raise ManifestInvalid(
            "a model may only have plain files and folders",
            on=str(path),
            next="replace the link by the file that it points to",
        )
