"""Write new files into a repository, and leave those alone that exist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy.errors import FileRefused
from deploy.init.files import NewFile


def write_files(folder: Path, files: Iterable[NewFile]) -> tuple[list[str], list[str]]:
    """Write each file that does not exist yet.

    Returns:
        The paths that were written, and those that exist.

    Raises:
        FileRefused: the folder does not exist, or a file cannot be written.
    """
    if not folder.is_dir():
        raise FileRefused("there is no such folder", on=str(folder), next="name the repository")
    written: list[str] = []
    kept: list[str] = []
    for file in files:
        path = folder / file.path
        if path.exists() or path.is_symlink():
            kept.append(file.path)
            continue
        _write(path, file.text)
        written.append(file.path)
    return written, kept


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        raise FileRefused(
            f"a file cannot be written: {error.strerror}",
            on=str(path),
            next="make its folder a writable one, then run again: what exists is kept",
        ) from error
