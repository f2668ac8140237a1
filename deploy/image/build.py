"""The app image: built on an engine, only when its inputs have changed; the cache records them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy import progress
from deploy.cache import Cache
from deploy.clients.docker import buildkit
from deploy.clients.docker.protocol import Engine, own_platform
from deploy.errors import BuildFailed
from deploy.image.export import export_image
from deploy.image.manifest import (
    INPUTS_KEY,
    REVISION_KEY,
    parse_platform,
    put_image_manifest,
)
from deploy.image.wheels import download_wheels
from deploy.machine.base_image import ensure_base_image
from deploy.machine.host import Host
from deploy.platforms import is_platform
from deploy.records import AppImage, Commit, Descriptor, Record
from deploy.settings.image import ImageBuild
from deploy.settings.reading import Settings
from deploy.source.inputs import Inputs, pack_build_context

_TAKES_BASE = re.compile(r"(?im)^\s*ARG\s+(?:\S+\s+)*BASE\b")
# The kernel's text for a program of another processor.
_CANNOT_RUN = "exec format error"


class BuildRecord(Record):
    """An app image and the inputs from which it was built, as the cache records them."""

    image: AppImage
    inputs: dict[str, str]


def create_app_image(
    name: str,
    key: str,
    commit: Commit,
    config: Descriptor,
    layers: tuple[Descriptor, ...],
    cache: Cache,
) -> AppImage:
    """Return an app image whose config and layers are in the cache; write its image manifest there.

    Args:
        name: the application's name.
        key: the key of the inputs.
        commit: the commit of the inputs.
        config: the config of the image.
        layers: the layers, from the lowest up.
        cache: gets the image manifest.
    """
    annotations = {REVISION_KEY: commit.full, INPUTS_KEY: key}
    manifest = put_image_manifest(config, layers, annotations, cache)
    return AppImage(name=name, key=key, commit=commit, manifest=manifest)


def find_built_app(name: str, inputs: Inputs, cache: Cache) -> AppImage | None:
    """Return the app image that was built from exactly these inputs, if the cache has it."""
    record = BuildRecord.from_cache(cache.read_note(_note_kind(name), inputs.key))
    if record is None:
        return None
    manifest = record.image.manifest
    return record.image if cache.has(manifest.digest, manifest.size) else None


def explain_build(name: str, inputs: Inputs, cache: Cache) -> str:
    """Return why these inputs need a build, in a few words."""
    last = BuildRecord.from_cache(cache.latest_note(_note_kind(name)))
    if last is None:
        return f"this machine has not built {name} yet"
    return inputs.describe_changes(last.inputs) or "the cache has lost the image"


def remember_app(image: AppImage, inputs: Inputs, cache: Cache) -> None:
    """Record in the cache from which inputs an app image was built."""
    record = BuildRecord(image=image, inputs=inputs.by_name)
    cache.write_note(_note_kind(image.name), inputs.key, record.to_json())


def _note_kind(name: str) -> str:
    # Applications that share files and a machine must not share their records.
    return f"apps-{name}"


def build_app(
    inputs: Inputs, settings: Settings, cache: Cache, host: Host, engine: Engine
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
    platform = inputs.platform
    arguments = _make_arguments(inputs, settings.image, host, engine)
    wheels = settings.image.wheels
    packages = download_wheels(wheels, inputs.directory, platform, cache) if wheels else ()
    tag = f"twinship/{name}:app-{inputs.key}"
    build = _choose_builder(settings.image.builder, engine)
    with (
        pack_build_context(inputs, packages) as context,
        _explain_foreign_platform(platform, engine),
    ):
        build(
            context,
            dockerfile=settings.image.dockerfile,
            args=arguments,
            tag=tag,
            platform=platform,
            on_line=progress.report,
        )
    config, layers = export_image(engine.save(tag), cache, tag)
    _require_platform(cache.read(config.digest), platform, settings.image.dockerfile)
    return create_app_image(name, inputs.key, inputs.commit, config, layers, cache)


def _make_arguments(
    inputs: Inputs, build: ImageBuild, host: Host, engine: Engine
) -> dict[str, str]:
    """Return the argument `BASE`, whose image the engine then has, if the Dockerfile takes it."""
    dockerfile = (inputs.directory / build.dockerfile).read_text(encoding="utf-8", errors="replace")
    if not _TAKES_BASE.search(dockerfile):
        return {}
    return {"BASE": ensure_base_image(engine, build, host, inputs.platform)}


@contextmanager
def _explain_foreign_platform(platform: str, engine: Engine) -> Iterator[None]:
    """Say why a build failed, if the engine cannot run the programs of the image's platform."""
    try:
        yield
    except BuildFailed as error:
        own = own_platform(engine)
        if is_platform(own, platform) or _CANNOT_RUN not in error.detail:
            raise
        raise BuildFailed(
            f"the engine, which is {own}, cannot run the programs of an image for {platform}",
            on=error.on,
            next="build on a machine with such a processor, or install its emulation "
            "(on the engine's host: `docker run --privileged --rm tonistiigi/binfmt "
            "--install all`)",
            detail=error.detail,
        ) from error


def _require_platform(config: bytes, platform: str, dockerfile: str) -> None:
    """Raise unless the config of an image names its platform."""
    built = parse_platform(config)
    if not is_platform(built, platform):
        raise BuildFailed(
            f"the app image was built for {built}, not for {platform}",
            on=dockerfile,
            next="use a base image for that platform, and no `--platform` in the FROM lines; "
            "or set `platform` in [image]",
        )


def _choose_builder(named: str, engine: Engine) -> Callable[..., object]:
    """Return what builds: BuildKit if the settings name it or it is installed, else the engine.

    Podman has no BuildKit.
    """
    uses_buildkit = named == "buildkit" or (
        named == "auto" and engine.product != "Podman" and buildkit.find_command() is not None
    )
    return buildkit.build if uses_buildkit else engine.build
