"""The files of records, by which stages in different processes pass their results on."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from deploy.cache import translate_full_disk
from deploy.errors import InputMissing, SettingsInvalid
from deploy.records import Record, Release
from deploy.validation import describe_at

_Record = TypeVar("_Record", bound=Record)

_WRITERS = {"app": "build", "model": "fetch", "image": "smoke", "release": "push"}


def write(folder: Path, name: str, record: Record) -> None:
    """Write a record to a folder, which is created if necessary.

    Raises:
        DiskFull: the disk has no space.
        SettingsInvalid: the path is that of a file, or leads through one.
    """
    with translate_full_disk(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise _no_folder(folder) from None
        (folder / f"{name}.json").write_text(record.to_json() + "\n", encoding="utf-8")


def read_release(folder: Path, app: str, repository: str) -> Release:
    """Return the release that was pushed.

    Args:
        folder: the folder of records.
        app: the name of the application.
        repository: the repository of the environment, with its registry's host.

    Raises:
        InputMissing: there is none, or it is a release of another application or repository.
    """
    found = read(folder, "release", Release)
    for kind, own, actual in (
        ("application", app, found.image.app.name),
        ("repository", repository, found.repository),
    ):
        if actual != own:
            raise InputMissing(
                f"these are the records of another {kind}: {actual}",
                on=str(folder / "release.json"),
                next=f"run `invoke push` for {own} first, or give its folder of records",
            )
    return found


def read(folder: Path, name: str, kind: type[_Record]) -> _Record:
    """Return the record that another stage wrote to a folder.

    Args:
        folder: the folder.
        name: the name of the record, which is that of its file.
        kind: the class of the record.

    Raises:
        InputMissing: there is no such file, or it has another content.
        SettingsInvalid: the path of the folder is that of a file.
    """
    path = folder / f"{name}.json"
    writer = _WRITERS[name]
    try:
        return kind.from_json(path.read_bytes())
    except FileNotFoundError:
        raise InputMissing(
            "a stage's input is missing", on=str(path), next=f"run `invoke {writer}` first"
        ) from None
    except NotADirectoryError:
        raise _no_folder(folder) from None
    except ValidationError as error:
        raise InputMissing(
            "a stage's input is not what that stage writes",
            on=str(path),
            next=f"run `invoke {writer}` again",
            detail="\n".join(map(_format_problem, error.errors(include_url=False))),
        ) from None


def _no_folder(path: Path) -> SettingsInvalid:
    return SettingsInvalid(
        "records need a folder",
        on=f"--records {path}",
        next="name a folder, which is created if necessary, or leave the option out",
    )


def _format_problem(problem: ErrorDetails) -> str:
    return f"  {describe_at(problem, 'record')}"
