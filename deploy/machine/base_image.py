"""The base image of application images: used if it is there, pulled if it can be, and made from Debian's packages if not."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from deploy import progress
from deploy.clients.docker.protocol import Engine
from deploy.errors import BaseUnavailable, PlatformError, ReleaseError
from deploy.machine.host import THIS_MACHINE, Host
from deploy.settings.reading import ImageBuild

log = logging.getLogger(__name__)


def ensure_base_image(engine: Engine, build: ImageBuild, here: Host = THIS_MACHINE) -> str:
    """The base image: by its digest where it can be pulled, else, for Debian's own, one of the same content made from packages.

    Returns:
        The reference to build from.

    Raises:
        BaseUnavailable: neither works here.
    """
    found = find_base_image(engine, build)
    if found:
        return found
    refused = _pulled(engine, build.base)
    if refused is None:
        return build.base
    if not build.debian:
        raise BaseUnavailable(
            "the base image cannot be pulled here",
            on=build.base,
            next="give the engine access to a registry that has it; one of Debian's own images could be made here instead",
            detail=f"  pulling: {refused.detail.strip() or refused.what}",
        )
    log.info(
        "%s cannot be pulled: making the same from Debian's packages", build.base.partition("@")[0]
    )
    try:
        return _made(engine, build, here)
    except PlatformError as error:
        raise BaseUnavailable(
            "the base image can neither be pulled nor made here",
            on=build.base,
            next="give the engine access to a registry that has it, or run once on Debian",
            detail=f"  pulling: {refused.detail.strip() or refused.what}\n  making: {error}",
        ) from error


def find_base_image(engine: Engine, build: ImageBuild) -> str:
    """The base image that the engine holds, the real one or what stands in for it; empty if it holds neither."""
    return next(
        (name for name in (build.base, _stand_in(build)) if name and engine.image_id(name)), ""
    )


def _stand_in(build: ImageBuild) -> str:
    """The name of the base image that is made here where the real one cannot be pulled."""
    return f"twinship/base:{build.debian}" if build.debian else ""


def _made(engine: Engine, build: ImageBuild, here: Host) -> str:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "base.tar"
        here.system.make_base_archive(build.debian, target)
        with target.open("rb") as archive:
            engine.import_image(archive, _stand_in(build), ('CMD ["bash"]',))
    return _stand_in(build)


def _pulled(engine: Engine, reference: str) -> ReleaseError | None:
    log.info("pulling %s", reference.partition("@")[0])
    try:
        engine.pull(reference, None, progress.report)
    except ReleaseError as error:
        return error
    return None
