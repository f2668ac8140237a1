"""The files that an app image is made of, and the revision that last changed them.

Without git, a release is still possible; its revision is `unversioned`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from deploy.cache import translate_full_disk
from deploy.clients import git
from deploy.errors import SourceUnreadable
from deploy.records import Commit
from deploy.settings.reading import Settings

log = logging.getLogger(__name__)

UNVERSIONED = "unversioned"
_KEY_LENGTH = 32
_CACHES = ("__pycache__/**", "*.pyc")
_FIX = "correct `files` in [app], or `dockerfile` in [image]"


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the content of an app image.

    Attributes:
        directory: The application's folder.
        files: The mode and sha256 of each file, by its path below the directory.
        base: The base image, by digest.
        commit: The revision that last changed the files.
        python: The Python version of the wheels; empty if there are none.
    """

    directory: Path
    files: Mapping[str, str]
    base: str
    commit: Commit
    python: str = ""

    @property
    def by_name(self) -> dict[str, str]:
        """The inputs by name, each with a value that changes with it."""
        return {
            "the base image": self.base,
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


def read_inputs(directory: Path, settings: Settings) -> Inputs:
    """Read what an app image would be made of now.

    Raises:
        SourceUnreadable: A pattern matches nothing, a file cannot be read or lies outside of the
            directory, or git fails.
    """
    patterns = _patterns(settings)
    return Inputs(
        directory=directory,
        files={path: _state(directory, path) for path in _paths(directory, patterns)},
        base=settings.image.base,
        commit=read_commit(directory, patterns),
        python=settings.image.wheels.python if settings.image.wheels else "",
    )


def read_commit(directory: Path, patterns: tuple[str, ...]) -> Commit:
    """Read which revision last changed a matching file, and whether the files differ from it.

    A file that no longer exists counts as well.

    Raises:
        SourceUnreadable: There is a repository, but git cannot read it.
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
    pathspecs = [
        *(f":(glob){pattern}" for pattern in patterns),
        *(f":(exclude,glob)**/{cache}" for cache in _CACHES),
    ]
    revision = git.last_revision(directory, pathspecs) or UNVERSIONED
    # Ignored files count, because they enter the image.
    return Commit(revision=revision, dirty=git.has_changes(directory, pathspecs))


def _missing_repository(directory: Path) -> str:
    """Return why there is no revision, or nothing if there is one."""
    if not git.is_installed():
        return "git is not installed"
    return "" if git.is_repository(directory) else "no git repository here"


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
            files = {path: inputs.directory / path for path in inputs.files}
            files |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
            for name, path in sorted(files.items()):
                _pack(archive, name, path)
                if name in inputs.files and _state(inputs.directory, name) != inputs.files[name]:
                    raise SourceUnreadable(
                        "a file was changed while it was read",
                        on=str(path),
                        next="run again when no program writes to it",
                    )
        packed.seek(0)
        # The caller closes it.
        unfinished.pop_all()
    return packed


def _pack(archive: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    with _translate_errors(path), path.open("rb") as content:
        member.size = path.stat().st_size
        member.mode = 0o755 if os.access(path, os.X_OK) else 0o644
        archive.addfile(member, content)


def _patterns(settings: Settings) -> tuple[str, ...]:
    wheels = settings.image.wheels
    return (
        *settings.app.files,
        settings.image.dockerfile,
        *([wheels.requirements] if wheels else []),
    )


def _paths(directory: Path, patterns: tuple[str, ...]) -> tuple[str, ...]:
    found: set[str] = set()
    for pattern in patterns:
        matches = {
            path.relative_to(directory).as_posix()
            for path in _matches(directory, pattern)
            if path.is_file() and not _is_cache(path)
        }
        if not matches:
            raise SourceUnreadable("no file matches", on=str(directory / pattern), next=_FIX)
        found |= matches
    return tuple(sorted(found))


def _matches(directory: Path, pattern: str) -> list[Path]:
    # Before Python 3.13 a trailing ** matches only folders.
    full_pattern = f"{pattern}/*" if pattern.endswith("**") else pattern
    try:
        return list(directory.glob(full_pattern))
    except (ValueError, NotImplementedError) as error:
        raise SourceUnreadable(
            f"the pattern cannot be read: {error}", on=pattern, next=_FIX
        ) from error


def _is_cache(path: Path) -> bool:
    return "__pycache__" in path.parts or path.suffix == ".pyc"


def _state(directory: Path, name: str) -> str:
    path = directory / name
    if ".." in path.relative_to(directory).parts or not path.resolve().is_relative_to(
        directory.resolve()
    ):
        raise SourceUnreadable(
            "a file lies outside of the application's folder",
            on=str(path),
            next="copy it into the folder",
        )
    if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
        raise SourceUnreadable(
            "a link points outside of its folder",
            on=str(path),
            next="replace it by the file it points to",
        )
    with _translate_errors(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{'x' if os.access(path, os.X_OK) else '-'} {digest}"


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceUnreadable(
            f"a file cannot be read: {error.strerror or error}",
            on=str(path),
            next="make it readable",
        ) from error
