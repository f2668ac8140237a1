"""The app image: built on an engine, only when its inputs have changed; the cache records them."""

from __future__ import annotations

from collections.abc import Callable

from deploy import progress, source
from deploy.cache import Cache
from deploy.clients.docker import buildkit
from deploy.clients.docker.protocol import Engine
from deploy.image.export import export_image
from deploy.image.manifest import INPUTS_KEY, REVISION_KEY, put_image_manifest
from deploy.image.wheels import download_wheels
from deploy.machine.base_image import ensure_base_image
from deploy.machine.host import Host
from deploy.records import AppImage, Commit, Descriptor, Record
from deploy.settings.reading import Settings


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


def find_built_app(name: str, inputs: source.Inputs, cache: Cache) -> AppImage | None:
    """Return the app image that was built from exactly these inputs, if the cache has it."""
    record = BuildRecord.from_cache(cache.read_note(_note_kind(name), inputs.key))
    if record is None:
        return None
    manifest = record.image.manifest
    return record.image if cache.has(manifest.digest, manifest.size) else None


def explain_build(name: str, inputs: source.Inputs, cache: Cache) -> str:
    """Return why these inputs need a build, in a few words."""
    last = BuildRecord.from_cache(cache.latest_note(_note_kind(name)))
    if last is None:
        return f"this machine has not built {name} yet"
    return inputs.describe_changes(last.inputs) or "the cache has lost the image"


def remember_app(image: AppImage, inputs: source.Inputs, cache: Cache) -> None:
    """Record in the cache from which inputs an app image was built."""
    record = BuildRecord(image=image, inputs=inputs.by_name)
    cache.write_note(_note_kind(image.name), inputs.key, record.to_json())


def _note_kind(name: str) -> str:
    # Applications that share files and a machine must not share their records.
    return f"apps-{name}"


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
