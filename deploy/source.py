"""The code stream: the files that an app image is made of, and the revision that last changed them.

Git is asked here and nowhere else. Where there is no git, a release is still possible; its revision is `unversioned`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from deploy.blobs import room_for
from deploy.errors import SourceUnreadable
from deploy.records import Commit
from deploy.settings import Settings

log = logging.getLogger(__name__)

UNVERSIONED = "unversioned"
_KEY_LENGTH = 32


@dataclass(frozen=True)
class Inputs:
    """All that decides what an app image holds.

    `files` maps each path below `directory` to its mode and sha256; `base` is the base image by digest.
    """

    directory: Path
    files: Mapping[str, str]
    base: str
    commit: Commit

    @property
    def listed(self) -> dict[str, str]:
        """The inputs by name, each with a value that changes when it does."""
        return {"the base image": self.base, "the revision": self.commit.full, **self.files}

    @property
    def key(self) -> str:
        """A name for exactly these inputs."""
        return hashlib.sha256(json.dumps(self.listed, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]

    def changed_since(self, before: Mapping[str, str]) -> str:
        """What differs from the inputs of an earlier build, in a few words; empty if nothing does."""
        now = self.listed
        changes = [f"{name} changed" for name in now if name in before and now[name] != before[name]]
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
    paths = _paths(directory, settings)
    return Inputs(
        directory=directory,
        files={path: _state(directory / path) for path in paths},
        base=settings.image.base,
        commit=commit(directory, paths),
    )


def commit(directory: Path, paths: tuple[str, ...]) -> Commit:
    """The revision that last changed any of the paths, and whether they differ from it.

    Raises:
        SourceUnreadable: there is a repository, but git cannot read it.
    """
    if shutil.which("git") is None or _git(directory, "rev-parse", "--is-inside-work-tree", refused_ok=True) is None:
        log.warning("no git repository here: the release is marked %s", UNVERSIONED)
        return Commit(revision=UNVERSIONED, dirty=True)
    revision = _git(directory, "log", "-1", "--format=%H", "--", *paths, refused_ok=True) or UNVERSIONED
    return Commit(revision=revision, dirty=bool(_git(directory, "status", "--porcelain", "--untracked-files=all", "--", *paths)))


def context(inputs: Inputs, wheels: tuple[Path, ...]) -> IO[bytes]:
    """The inputs as a build context: a tar with nothing else in it, the same bytes for the same inputs.

    Args:
        inputs: what goes in.
        wheels: packages to be put into the folder `wheels`.

    Raises:
        DiskFull: there is no room for it.
    """
    packed = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115  handed to the caller, who closes it
    with room_for(Path(tempfile.gettempdir())), tarfile.open(fileobj=packed, mode="w") as archive:
        files = {path: inputs.directory / path for path in inputs.files}
        files |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o755 if os.access(path, os.X_OK) else 0o644
            with path.open("rb") as content:
                archive.addfile(member, content)
    packed.seek(0)
    return packed


def _paths(directory: Path, settings: Settings) -> tuple[str, ...]:
    wheels = settings.image.wheels
    single = [settings.image.dockerfile, *([wheels.requirements] if wheels else [])]
    found: set[str] = set()
    for pattern in (*settings.app.files, *single):
        # Until Python 3.13 a closing ** means folders alone.
        spelt = f"{pattern}/*" if pattern.endswith("**") else pattern
        matches = {path.relative_to(directory).as_posix() for path in directory.glob(spelt) if path.is_file() and not _is_cache(path)}
        if not matches:
            raise SourceUnreadable("no file matches", on=str(directory / pattern), next="mend `files` in [app], or `dockerfile` in [image]")
        found |= matches
    return tuple(sorted(found))


def _is_cache(path: Path) -> bool:
    return "__pycache__" in path.parts or path.suffix == ".pyc"


def _state(path: Path) -> str:
    if not path.resolve().is_relative_to(path.parent.resolve()) and path.is_symlink():
        raise SourceUnreadable("a link leads out of its folder", on=str(path), next="replace it by the file it points to")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceUnreadable(f"a file cannot be read: {error.strerror}", on=str(path), next="make it readable") from error
    return f"{'x' if os.access(path, os.X_OK) else '-'} {digest}"


def _git(directory: Path, *arguments: str, refused_ok: bool = False) -> str | None:
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode == 0:
        return done.stdout.strip()
    if refused_ok and "dubious ownership" not in done.stderr:
        return None
    raise SourceUnreadable(
        "git cannot read this repository", on=str(directory), next="see git's message", detail=f"  {done.stderr.strip()}"
    )
