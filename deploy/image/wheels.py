"""The locked Python packages of a build, downloaded on this machine.

The build needs no index, CA or credential. The pip configuration of this machine applies, and no
part of it enters an image.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from deploy.cache import Cache, translate_full_disk
from deploy.clients import pip
from deploy.image.requirements import select_requirements
from deploy.platforms import kernel_name
from deploy.settings.image import Wheels

log = logging.getLogger(__name__)

# From Debian 12's version (2.36) down: a wheel for an older C library runs on a newer one.
_GLIBC = range(36, 16, -1)


def download_wheels(
    wanted: Wheels, directory: Path, platform: str, cache: Cache
) -> tuple[Path, ...]:
    """Return the wheels that a lock file names, and download them if the cache has none.

    The wheels are for Debian on the given platform; pip checks each one by its hash.

    Args:
        wanted: The lock file and the Python version of the image.
        directory: The application's folder.
        platform: The image's platform.
        cache: The cache that keeps the wheels.

    Raises:
        WheelsUnavailable: Pip could not get a wheel; its last lines are in the detail. Or the
            lock file does not say what the image needs.
        DiskFull: The disk has no space left for them.
    """
    lock = directory / wanted.requirements
    needed = select_requirements(lock, wanted.python, platform)
    key = hashlib.sha256(f"{needed}{wanted.python} {platform}".encode()).hexdigest()
    folder = cache.root / "wheels" / key[:24]
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        log.info("downloading the locked dependencies of %s", wanted.requirements)
        with cache.folder() as temporary:
            target = temporary / "wheels"
            with translate_full_disk(temporary):
                target.mkdir()
                (temporary / lock.name).write_text(needed, encoding="utf-8")
            pip.download_locked(
                temporary / lock.name,
                target,
                python=wanted.python,
                platforms=_platform_tags(platform),
                on=str(lock),
            )
            move_into_place(target, folder)
    return tuple(sorted(folder.iterdir()))


def _platform_tags(platform: str) -> list[str]:
    processor = kernel_name(platform)
    modern = [f"manylinux_2_{minor}_{processor}" for minor in _GLIBC]
    return [*modern, f"manylinux2014_{processor}"]


def move_into_place(source: Path, folder: Path) -> None:
    """Move downloaded wheels to their final folder, unless another run has created it meanwhile."""
    with translate_full_disk(folder):
        try:
            source.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise
