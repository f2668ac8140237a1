"""The code stream: the files that an app image is made of, and the revision that last changed them.

Git is asked here and nowhere else. Where there is no git, a release is still possible; its revision is `unversioned`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from deploy.cache import translate_full_disk
from deploy.errors import SourceUnreadable
from deploy.records import Commit
from deploy.settings.reading import Settings

log = logging.getLogger(__name__)

UNVERSIONED = "unversioned"
_KEY_LENGTH = 32
_CACHES = ("__pycache__/**", "*.pyc")
_MEND = "mend `files` in [app], or `dockerfile` in [image]"


@dataclass(frozen=True)
class Inputs:
    """All that decides what an app image holds.

    `files` maps each path below `directory` to its mode and sha256; `base` is the base image by digest; `python` is the
    version that wheels are chosen for, empty if there are none.
    """

    directory: Path
    files: Mapping[str, str]
    base: str
    commit: Commit
    python: str = ""

    @property
    def listed(self) -> dict[str, str]:
        """The inputs by name, each with a value that changes when it does."""
        return {
            "the base image": self.base,
            "the wheels' Python": self.python,
            "the revision": self.commit.full,
            **self.files,
        }

    @property
    def key(self) -> str:
        """A name for exactly these inputs."""
        return hashlib.sha256(json.dumps(self.listed, sort_keys=True).encode()).hexdigest()[
            :_KEY_LENGTH
        ]

    def changed_since(self, before: Mapping[str, str]) -> str:
        """What differs from the inputs of an earlier build, in a few words; empty if nothing does."""
        now = self.listed
        changes = [
            f"{name} changed" for name in now if name in before and now[name] != before[name]
        ]
        changes += [f"{name} is new" for name in now.keys() - before.keys()]
        changes += [f"{name} is gone" for name in before.keys() - now.keys()]
        # A new revision alone is worth saying; beside the files that it changed it is noise.
        files = sorted(change for change in changes if not change.startswith("the revision"))
        shown = files or changes
        return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def inputs(directory: Path, settings: Settings) -> Inputs:
    """Reads what an app image would be made of now.

    Raises:
        SourceUnreadable: a pattern matches nothing, a file cannot be read or leads out of the directory, or git fails.
    """
    patterns = _patterns(settings)
    return Inputs(
        directory=directory,
        files={path: _state(directory, path) for path in _paths(directory, patterns)},
        base=settings.image.base,
        commit=commit(directory, patterns),
        python=settings.image.wheels.python if settings.image.wheels else "",
    )


def commit(directory: Path, patterns: tuple[str, ...]) -> Commit:
    """The revision that last changed any file that the patterns match, also one that is gone, and whether the files differ from it.

    Raises:
        SourceUnreadable: there is a repository, but git cannot read it.
    """
    installed = shutil.which("git") is not None
    if (
        not installed
        or _git(directory, "rev-parse", "--is-inside-work-tree", refused_ok=True) is None
    ):
        log.warning(
            "%s: the release is marked %s",
            "no git repository here" if installed else "git is not installed",
            UNVERSIONED,
        )
        return Commit(revision=UNVERSIONED, dirty=True)
    if _git(directory, "rev-parse", "--is-shallow-repository") == "true":
        log.warning(
            "this clone is shallow: the revision may be a later one than the last that changed the code; fetch the whole history"
        )
    paths = [
        *(f":(glob){pattern}" for pattern in patterns),
        *(f":(exclude,glob)**/{cache}" for cache in _CACHES),
    ]
    revision = (
        _git(directory, "log", "-1", "--format=%H", "--", *paths, refused_ok=True) or UNVERSIONED
    )
    # What git ignores enters the image all the same, so it counts.
    states = _git(
        directory, "status", "--porcelain", "--untracked-files=all", "--ignored", "--", *paths
    )
    return Commit(revision=revision, dirty=bool(states))


def context(inputs: Inputs, wheels: tuple[Path, ...]) -> IO[bytes]:
    """The inputs as a build context: a tar with nothing else in it, the same bytes for the same inputs.

    Args:
        inputs: what goes in.
        wheels: packages to be put into the folder `wheels`.

    Raises:
        SourceUnreadable: a file is no longer what it was when the inputs were read.
        DiskFull: there is no room for it.
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
                        next="run again when nobody writes to it",
                    )
        packed.seek(0)
        # The caller closes it.
        unfinished.pop_all()
    return packed


def _pack(archive: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    with _readable(path), path.open("rb") as content:
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
            raise SourceUnreadable("no file matches", on=str(directory / pattern), next=_MEND)
        found |= matches
    return tuple(sorted(found))


def _matches(directory: Path, pattern: str) -> list[Path]:
    # Until Python 3.13 a closing ** means folders alone.
    spelt = f"{pattern}/*" if pattern.endswith("**") else pattern
    try:
        return list(directory.glob(spelt))
    except (ValueError, NotImplementedError) as error:
        raise SourceUnreadable(
            f"the pattern cannot be read: {error}", on=pattern, next=_MEND
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
            "a link leads out of its folder",
            on=str(path),
            next="replace it by the file it points to",
        )
    with _readable(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{'x' if os.access(path, os.X_OK) else '-'} {digest}"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
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


def _git(directory: Path, *arguments: str, refused_ok: bool = False) -> str | None:
    done = subprocess.run(  # noqa: S603 - the user's own git
        ["git", "--no-optional-locks", "-C", str(directory), *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        # One refusal is known by its words only.
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode == 0:
        return done.stdout.strip()
    if refused_ok and "dubious ownership" not in done.stderr:
        return None
    raise SourceUnreadable(
        "git cannot read this repository",
        on=str(directory),
        next="see git's message",
        detail=f"  {done.stderr.strip()}",
    )
