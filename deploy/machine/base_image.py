"""The base image of application images.

It is used if the engine has it, pulled if a registry has it, or else made from Debian's packages.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from deploy import progress
from deploy.clients.docker.protocol import Engine, own_platform
from deploy.errors import BaseUnavailable, PlatformError, ReleaseError
from deploy.machine.host import THIS_MACHINE, Host
from deploy.platforms import is_platform
from deploy.settings.image import ImageBuild

log = logging.getLogger(__name__)


def ensure_base_image(
    engine: Engine, build: ImageBuild, host: Host = THIS_MACHINE, platform: str = ""
) -> str:
    """Make sure that the engine has the base image.

    It is pulled by its digest; one of Debian's own images is made from packages if that fails.

    Args:
        engine: gets the image.
        build: names the image.
        host: this machine, which may have to make it.
        platform: the platform of the image; the engine's own if empty.

    Returns:
        The reference to build from.

    Raises:
        BaseUnavailable: the image can neither be pulled nor made.
    """
    wanted = platform or own_platform(engine)
    existing = find_base_image(engine, build, wanted)
    if existing:
        return existing
    failure = _pull(engine, build.base, wanted)
    if failure is None:
        return build.base
    pulling = f"  pulling: {failure.detail.strip() or failure.what}"
    if not build.debian:
        raise BaseUnavailable(
            "the base image cannot be pulled here",
            on=build.base,
            next="give the engine access to a registry that has it; "
            "only Debian's own images can be made here instead",
            detail=pulling,
        )
    if not wanted == own_platform(engine) == host.system.platform():
        raise BaseUnavailable(
            f"the base image cannot be pulled here for {wanted}",
            on=build.base,
            next="give the engine access to a registry that has it; "
            f"this machine can only make it for {host.system.platform()}",
            detail=pulling,
        )
    name = build.base.partition("@")[0]
    log.info("%s cannot be pulled: making the same image from Debian's packages", name)
    try:
        return _make_substitute(engine, build, host)
    except PlatformError as error:
        raise BaseUnavailable(
            "the base image can neither be pulled nor made here",
            on=build.base,
            next="give the engine access to a registry that has it, or run once on Debian",
            detail=f"{pulling}\n  making: {error}",
        ) from error


def find_base_image(engine: Engine, build: ImageBuild, platform: str = "") -> str:
    """Return the base image that the engine has, or its substitute; empty if it has neither.

    Args:
        engine: the engine.
        build: names the image.
        platform: the platform of the image; the engine's own if empty.
    """
    wanted = platform or own_platform(engine)
    names = (build.base, _substitute_name(build))
    return next(
        (name for name in names if name and is_platform(engine.platform(name) or "", wanted)), ""
    )


def _substitute_name(build: ImageBuild) -> str:
    """Return the name of the image that is made here if the base image cannot be pulled."""
    return f"twinship/base:{build.debian}" if build.debian else ""


def _make_substitute(engine: Engine, build: ImageBuild, host: Host) -> str:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "base.tar"
        host.system.make_base_archive(build.debian, target)
        with target.open("rb") as archive:
            engine.import_image(archive, _substitute_name(build), ('CMD ["bash"]',))
    return _substitute_name(build)


def _pull(engine: Engine, reference: str, platform: str) -> ReleaseError | None:
    """Pull an image; return the error if that fails."""
    log.info("pulling %s", reference.partition("@")[0])
    try:
        engine.pull(reference, None, progress.report, platform)
    except ReleaseError as error:
        return error
    return None
