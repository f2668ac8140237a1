"""Locked Python packages for a build, downloaded on this machine: the build itself needs no index, CA or credential.

The machine's own pip configuration (index, proxy, certificates, login) applies, and nothing of it enters an image.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy import progress
from deploy.cache import Cache, translate_full_disk
from deploy.errors import WheelsUnavailable, disk_full_error
from deploy.settings.reading import Wheels

log = logging.getLogger(__name__)

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# From Debian 12's (2.36) down: a wheel made for an older C library runs on a newer one.
_GLIBC = range(36, 16, -1)
_TAIL = 8


def download(wanted: Wheels, directory: Path, machine: str, cache: Cache) -> tuple[Path, ...]:
    """The wheels that a lock file names, for Debian on that machine; downloaded once, every one checked by its hash.

    Args:
        wanted: the lock file and the Python version of the image.
        directory: the application's folder.
        machine: the image's processor architecture, in OCI's terms.
        cache: the cache, below which the wheels are kept.

    Raises:
        WheelsUnavailable: pip could not get one; its last lines are in the detail.
        DiskFull: there is no room for them.
    """
    lock = directory / wanted.requirements
    name = hashlib.sha256(lock.read_bytes() + f"{wanted.python} {machine}".encode()).hexdigest()[
        :24
    ]
    folder = cache.root / "wheels" / name
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        log.info("downloading the locked dependencies of %s", wanted.requirements)
        with cache.folder() as temporary:
            target = temporary / "wheels"
            _pip(lock, target, wanted.python, machine)
            _keep(target, folder)
    return tuple(sorted(folder.iterdir()))


def _keep(target: Path, folder: Path) -> None:
    """Gives the wheels their final place at once; somebody else may have done so meanwhile."""
    with translate_full_disk(folder):
        try:
            target.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _pip(lock: Path, target: Path, python: str, machine: str) -> None:
    processor = _MACHINES.get(machine, machine)
    platforms = [f"manylinux_2_{minor}_{processor}" for minor in _GLIBC] + [
        f"manylinux2014_{processor}"
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--require-hashes",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    command += [
        "--implementation=cp",
        f"--python-version={python}",
        "--dest",
        str(target),
        "-r",
        str(lock),
        "--progress-bar=off",
    ]
    command += [f"--platform={platform}" for platform in platforms]
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - this interpreter's pip
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                progress.report(line.strip().partition(" from ")[0])
        except BaseException:
            # SIGTERM is for this process alone, and pip may say nothing more for minutes.
            process.terminate()
            raise
    if any(f"[Errno {errno.ENOSPC}]" in line for line in lines):
        raise disk_full_error(f"{target.parent} or {tempfile.gettempdir()}")
    if process.returncode != 0:
        raise WheelsUnavailable(
            "the locked dependencies could not be downloaded",
            on=str(lock),
            next="check the network and pip's own settings (index, PIP_CERT), then run again",
            detail="\n".join(f"  {line}" for line in lines[-_TAIL:]),
        )
