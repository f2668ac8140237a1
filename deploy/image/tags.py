"""The images of releases in a registry, and the tags by which they are found.

<repository>@sha256:...          a release; no deployer deploys a tag
<repository>:release-<hex>       protects that image from the removal of untagged images
<repository>:app-<key>           the app image of those inputs
<repository>:model-<hex>         the layer of that model
"""

from __future__ import annotations

import logging

from deploy.cache import Cache
from deploy.clients.oci.protocol import Registry
from deploy.errors import RegistryError
from deploy.image.manifest import (
    INPUTS_KEY,
    MANIFEST_TYPE,
    MODEL_KEY,
    MOUNT_KEY,
    REVISION_KEY,
    parse_image_manifest,
    parse_platform,
)
from deploy.image.pull import fetch_config
from deploy.records import (
    AppImage,
    Commit,
    Descriptor,
    Model,
    ModelLayer,
    Release,
    short_digest,
)

log = logging.getLogger(__name__)

_TAG_LENGTH = 32


def app_tag(key: str) -> str:
    """Return the tag of the app image of the inputs with that key."""
    return f"app-{key}"


def model_tag(model: Model) -> str:
    """Return the tag of a model's layer."""
    return f"model-{model.digest.removeprefix('sha256:')[:_TAG_LENGTH]}"


def release_tag(digest: str) -> str:
    """Return the tag of the release with that digest."""
    return f"release-{digest.removeprefix('sha256:')[:_TAG_LENGTH]}"


def find_app(
    name: str, key: str, repository: str, registry: Registry, cache: Cache
) -> AppImage | None:
    """Return the app image of the inputs with that key, if the registry has it.

    Any machine may have built it. Its image manifest and config are fetched into the cache.
    """
    manifest = registry.get_manifest(repository, app_tag(key))
    if manifest is None:
        return None
    image = parse_image_manifest(manifest)
    if image.annotations.get(INPUTS_KEY) != key:
        return None
    fetch_config(image, repository, registry, cache)
    digest = cache.put(manifest)
    return AppImage(
        name=name,
        key=key,
        commit=_parse_commit(image.annotations.get(REVISION_KEY, "")),
        manifest=Descriptor(media_type=MANIFEST_TYPE, digest=digest, size=len(manifest)),
    )


def _parse_commit(text: str) -> Commit:
    return Commit(revision=text.removesuffix("-dirty"), dirty=text.endswith("-dirty"))


def find_layer(
    model: Model, mount_path: str, repository: str, registry: Registry
) -> ModelLayer | None:
    """Return the layer of a model, if the registry has it; its bytes are not fetched."""
    manifest = registry.get_manifest(repository, model_tag(model))
    if manifest is None:
        return None
    image = parse_image_manifest(manifest)
    if (
        not image.layers
        or image.annotations.get(f"{MODEL_KEY}.digest") != model.digest
        or image.annotations.get(MOUNT_KEY) != mount_path
    ):
        return None
    return ModelLayer(model=model, digest=image.layers[0].digest, size=image.layers[0].size)


def has_release(release: Release, registry: Registry) -> bool:
    """Return whether the registry has the image manifest of a release."""
    return registry.get_manifest(repository_path(release), release.image.digest) is not None


def read_layers(release: Release, registry: Registry, cache: Cache) -> tuple[Descriptor, ...]:
    """Return the layers of a release's image, the lowest first; none if the registry has none."""
    manifest = _read_manifest(release, registry, cache)
    return parse_image_manifest(manifest).layers if manifest else ()


def pull_size(release: Release, registry: Registry, cache: Cache) -> int:
    """Return how many bytes of a release a node pulls at most.

    It is the size of the model's layer alone if the registry does not answer or has no such image.
    """
    digest = release.image.digest
    try:
        layers = read_layers(release, registry, cache)
    except RegistryError as error:
        # An undo must not need the registry: the nodes may still have the image.
        log.info("the size of %s is taken to be its model's: %s", short_digest(digest), error.what)
        layers = ()
    return sum(item.size for item in layers) or release.image.layer.size


def find_platform(release: Release, registry: Registry, cache: Cache) -> str:
    """Return the platform of a release's image; empty if neither cache nor registry knows it."""
    digest = release.image.digest
    try:
        manifest = _read_manifest(release, registry, cache)
        if manifest is None:
            return ""
        image = parse_image_manifest(manifest)
        fetch_config(image, repository_path(release), registry, cache)
        return parse_platform(cache.read(image.config.digest))
    except RegistryError as error:
        # A rollback must not need the registry: the nodes may still have the image.
        log.info("the platform of %s is not known: %s", short_digest(digest), error.what)
        return ""


def _read_manifest(release: Release, registry: Registry, cache: Cache) -> bytes | None:
    digest = release.image.digest
    if cache.has(digest, release.image.manifest.size):
        return cache.read(digest)
    is_there = release.repository.startswith(f"{registry.host}/")
    return registry.get_manifest(repository_path(release), digest) if is_there else None


def repository_path(release: Release) -> str:
    """Return the path of a release's repository below the registry's host."""
    return release.repository.partition("/")[2]
