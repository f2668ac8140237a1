"""The inputs of an app image: all that decides its content, and the key of exactly that."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from deploy.archive import create_member
from deploy.cache import translate_full_disk
from deploy.errors import SourceUnreadable
from deploy.records import Commit
from deploy.settings.reading import Settings
from deploy.source.files import LINK, read_state, read_states, translate_errors
from deploy.source.patterns import Parts, Selection, parse_ignore_rules, parse_pattern
from deploy.source.revision import read_commit

_KEY_LENGTH = 32


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the content of an app image.

    Attributes:
        directory: The application's folder.
        files: The mode and sha256 of each file, by its path below the directory.
        base: The base image, by digest.
        commit: The revision that last changed the files.
        platform: The operating system and processor of the image, such as `linux/amd64`.
        python: The Python version of the wheels; empty if there are none.
    """

    directory: Path
    files: Mapping[str, str]
    base: str
    commit: Commit
    platform: str
    python: str = ""

    @property
    def by_name(self) -> dict[str, str]:
        """The inputs by name, each with a value that changes with it."""
        return {
            "the base image": self.base,
            "the platform": self.platform,
            "the wheels' Python": self.python,
            "the revision": self.commit.full,
            **self.files,
        }

    @property
    def key(self) -> str:
        """A name for exactly these inputs."""
        text = json.dumps(self.by_name, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]

    def describe_changes(self, before: Mapping[str, str]) -> str:
        """Return the differences from an earlier build in a few words, or nothing.

        Args:
            before: `by_name` of the earlier build.
        """
        now = self.by_name
        changes = [
            f"{name} changed" for name in now if name in before and now[name] != before[name]
        ]
        changes += [f"{name} is new" for name in now.keys() - before.keys()]
        changes += [f"{name} is gone" for name in before.keys() - now.keys()]
        # A new revision is of interest only if no file changed with it.
        files = sorted(change for change in changes if not change.startswith("the revision"))
        listed = files or changes
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        return ", ".join(listed[:3]) + more


def read_inputs(directory: Path, settings: Settings, platform: str) -> Inputs:
    """Read what an app image would be made of now.

    Args:
        directory: the application's folder.
        settings: the settings of the application.
        platform: the operating system and processor of the image.

    Raises:
        SourceUnreadable: A pattern matches nothing, a file cannot be read or lies outside of the
            directory, or git fails.
    """
    selection = read_selection(directory, settings)
    files = read_states(directory, selection)
    return Inputs(
        directory=directory,
        files=files,
        base=settings.image.base,
        commit=read_commit(directory, selection, files),
        platform=platform,
        python=settings.image.wheels.python if settings.image.wheels else "",
    )


def read_selection(directory: Path, settings: Settings) -> Selection:
    """Return which files of an application's folder go into its image.

    Raises:
        SourceUnreadable: a pattern leads outside, or the .dockerignore cannot be read.
    """
    wheels = settings.image.wheels
    named = (settings.image.dockerfile, *([wheels.requirements] if wheels else []))
    return Selection(
        patterns=tuple(map(parse_pattern, settings.app.files)),
        named=frozenset(map(parse_pattern, named)),
        store=_store_folder(directory, settings.model.store),
        ignore_rules=tuple(parse_ignore_rules(_read_ignore_file(directory, settings))),
    )


def _store_folder(directory: Path, location: str) -> Parts | None:
    """Return the path of the model store below the application's folder, if it is there."""
    if "://" in location:
        return None
    folder = directory.resolve()
    store = (folder / location).resolve()
    inside = store != folder and store.is_relative_to(folder)
    return store.relative_to(folder).parts if inside else None


def _read_ignore_file(directory: Path, settings: Settings) -> str:
    """Return the text of the .dockerignore that `docker build` would use; empty without one."""
    for name in (f"{settings.image.dockerfile}.dockerignore", ".dockerignore"):
        path = directory / name
        if path.is_file():
            with translate_errors(path):
                return path.read_text(encoding="utf-8", errors="surrogateescape")
    return ""


def pack_build_context(inputs: Inputs, wheels: tuple[Path, ...]) -> IO[bytes]:
    """Pack the inputs into a build context: a tar with the same bytes for the same inputs.

    Args:
        inputs: The files to pack.
        wheels: Packages for the folder `wheels`.

    Raises:
        SourceUnreadable: A file has changed since the inputs were read.
        DiskFull: The disk has no space left.
    """
    with ExitStack() as unfinished:
        packed = cast("IO[bytes]", unfinished.enter_context(tempfile.TemporaryFile()))
        with (
            translate_full_disk(Path(tempfile.gettempdir())),
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for name, state in sorted(inputs.files.items()):
                _pack(archive, name, state, inputs.directory / name)
                if read_state(inputs.directory, name) != state:
                    raise SourceUnreadable(
                        "a file was changed while it was read",
                        on=str(inputs.directory / name),
                        next="run again when no program writes to it",
                    )
            for wheel in sorted(wheels):
                _pack(archive, f"wheels/{wheel.name}", "-", wheel)
        packed.seek(0)
        # The caller closes it.
        unfinished.pop_all()
    return packed


def _pack(archive: tarfile.TarFile, name: str, state: str, path: Path) -> None:
    """Add a file to an archive, or a link to a folder, as its state has it."""
    if state.startswith(LINK):
        member = create_member(name, 0, kind=tarfile.SYMTYPE, mode=0o777)
        member.linkname = state.removeprefix(LINK)
        archive.addfile(member)
        return
    with translate_errors(path), path.open("rb") as content:
        mode = 0o755 if state.startswith("x") else 0o644
        archive.addfile(create_member(name, path.stat().st_size, mode=mode), content)
