"""The build of an app image on an engine, from the files of the application."""

from __future__ import annotations

from collections.abc import Callable

from deploy import progress, source
from deploy.cache import Cache
from deploy.clients.docker import buildkit
from deploy.clients.docker.protocol import Engine
from deploy.image.build import create_app_image
from deploy.image.export import export_image
from deploy.image.wheels import download_wheels
from deploy.machine.base_image import ensure_base_image
from deploy.machine.host import Host
from deploy.records import AppImage
from deploy.settings.reading import Settings


def build_app(
    inputs: source.Inputs, settings: Settings, cache: Cache, host: Host, engine: Engine
) -> AppImage:
    """Build an app image and bring it into the cache.

    Args:
        inputs: what the image is made of.
        settings: the settings of the application.
        cache: the cache of this machine.
        host: this machine, which may have to make the base image.
        engine: where the image is built.

    Raises:
        BuildFailed: the Dockerfile cannot be built.
        BaseUnavailable: the base image can neither be pulled nor made.
    """
    name = settings.app.name
    base = ensure_base_image(engine, settings.image, host)
    wheels = settings.image.wheels
    packages = (
        download_wheels(wheels, inputs.directory, engine.architecture, cache) if wheels else ()
    )
    tag = f"twinship/{name}:app-{inputs.key}"
    build = _choose_builder(settings.image.builder, engine)
    with source.pack_build_context(inputs, packages) as context:
        build(
            context,
            dockerfile=settings.image.dockerfile,
            args={"BASE": base},
            tag=tag,
            on_line=progress.report,
        )
    config, layers = export_image(engine.save(tag), cache, tag)
    return create_app_image(name, inputs.key, inputs.commit, config, layers, cache)


def _choose_builder(named: str, engine: Engine) -> Callable[..., object]:
    """Return what builds: BuildKit if the settings name it or it is installed, else the engine."""
    uses_buildkit = named == "buildkit" or (named == "auto" and buildkit.find_command() is not None)
    return buildkit.build if uses_buildkit else engine.build
