"""The app image, which is built only when its inputs have changed; the cache records them."""

from __future__ import annotations

from deploy.cache import Cache
from deploy.image.manifest import INPUTS_KEY, REVISION_KEY, put_image_manifest
from deploy.records import AppImage, Commit, Descriptor, Record
from deploy.source import Inputs


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
