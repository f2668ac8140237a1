"""The images of releases in a registry: each blob is pushed once, and tags name the images.

    <repository>@sha256:...          a release; no deployer deploys a tag
    <repository>:release-<hex>       protects that image from the removal of untagged images
    <repository>:app-<key>           the app image of those inputs
    <repository>:model-<hex>         the layer of that model

An image manifest is pushed after all its blobs. A push that is killed therefore leaves nothing that
can be pulled.
"""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor

from deploy import progress
from deploy.cache import CHUNK, Cache
from deploy.clients.oci.client import Registry
from deploy.errors import BlobCorrupt, RegistryError, RegistryNotFound, RegistryRefused
from deploy.image.join import create_model_image
from deploy.image.manifest import (
    INPUTS_KEY,
    MANIFEST_TYPE,
    MODEL_KEY,
    MOUNT_KEY,
    REVISION_KEY,
    parse_image_manifest,
)
from deploy.image.pull import fetch_app, fetch_blob
from deploy.records import AppImage, Commit, Descriptor, Image, Model, ModelLayer, Release

log = logging.getLogger(__name__)

_AT_ONCE = 3
_TAG_LENGTH = 32


def push(
    joined: Image,
    repository: str,
    registry: Registry,
    cache: Cache,
    *,
    mount_path: str,
    mount_sources: tuple[str, ...] = (),
) -> Release:
    """Push an image; only what the registry lacks is sent.

    Args:
        joined: the image; its image manifest and config are in the cache, and its layers there or
            in the registry.
        repository: the path below the registry's host.
        registry: gets the image.
        cache: has the blobs that the registry lacks.
        mount_path: the folder in the container for which the model's layer was made.
        mount_sources: other repositories of this registry, from which it may take blobs.

    Raises:
        RegistryError: the registry did not accept a blob or a manifest.
        BlobCorrupt: neither the registry nor the cache has a layer.
    """
    wanted = [
        (tag, manifest)
        for tag, manifest in _tag_manifests(joined, mount_path, cache)
        if registry.manifest(repository, tag) != manifest
    ]
    missing = {
        item.digest: item
        for _, manifest in wanted
        for item in find_missing(manifest, repository, registry)
    }
    _push_blobs(tuple(missing.values()), repository, registry, cache, mount_sources)
    for tag, manifest in wanted:
        registry.put_manifest(repository, tag, manifest)
    return Release(image=joined, repository=f"{registry.host}/{repository}")


def _tag_manifests(joined: Image, mount_path: str, cache: Cache) -> tuple[tuple[str, bytes], ...]:
    """Return the image manifests of a release with their tags, the release itself last."""
    model = create_model_image(joined.layer, mount_path, cache)
    release_tag = f"release-{joined.digest.removeprefix('sha256:')[:_TAG_LENGTH]}"
    return (
        (app_tag(joined.app.key), cache.read(joined.app.manifest.digest)),
        (model_tag(joined.layer.model), cache.read(model.digest)),
        (release_tag, cache.read(joined.digest)),
    )


def find_missing(manifest: bytes, repository: str, registry: Registry) -> tuple[Descriptor, ...]:
    """Return the blobs of an image manifest that the repository lacks."""
    image = parse_image_manifest(manifest)
    unique = tuple({item.digest: item for item in (*image.layers, image.config)}.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        present = list(pool.map(lambda item: registry.has(repository, item.digest), unique))
    return tuple(item for item, is_there in zip(unique, present, strict=True) if not is_there)


def _push_blobs(
    missing: tuple[Descriptor, ...],
    repository: str,
    registry: Registry,
    cache: Cache,
    mount_sources: tuple[str, ...],
) -> None:
    remaining = [
        item
        for item in missing
        if not any(registry.mount(repository, item.digest, source) for source in mount_sources)
    ]
    if not remaining:
        return
    total = sum(item.size for item in remaining)
    with progress.track("pushing", total) as advance, ThreadPoolExecutor(_AT_ONCE) as pool:
        list(
            pool.map(lambda item: _push_blob(item, repository, registry, cache, advance), remaining)
        )
    log.info(
        "push   %s in %s that the registry lacked",
        progress.format_size(total),
        progress.format_count(len(remaining), "blob"),
    )


def _push_blob(
    item: Descriptor,
    repository: str,
    registry: Registry,
    cache: Cache,
    advance: progress.Advance,
) -> None:
    if not cache.has(item.digest, item.size):
        raise BlobCorrupt(
            "neither the registry nor the cache has a layer",
            on=item.digest,
            next="run `invoke release`; it makes the layer again",
        )
    try:
        registry.upload(
            repository, item.digest, item.size, lambda: cache.open(item.digest), advance
        )
    except RegistryRefused:
        _drop_damaged(item, cache)
        raise


def _drop_damaged(item: Descriptor, cache: Cache) -> None:
    """Drop a refused layer from the cache if it is damaged, so that the next run makes it again.

    Raises:
        BlobCorrupt: it was damaged.
    """
    content_hash = hashlib.sha256()
    with cache.open(item.digest) as file:
        while chunk := file.read(CHUNK):
            content_hash.update(chunk)
    actual = f"sha256:{content_hash.hexdigest()}"
    if actual != item.digest:
        cache.drop(item.digest)
        raise BlobCorrupt(
            "a cached layer does not have its digest; it was dropped from the cache",
            on=item.digest,
            next="run `invoke release`; it makes the layer again",
            detail=f"  actual {actual}",
        )


def app_tag(key: str) -> str:
    """Return the tag of the app image of the inputs with that key."""
    return f"app-{key}"


def model_tag(model: Model) -> str:
    """Return the tag of a model's layer."""
    return f"model-{model.digest.removeprefix('sha256:')[:_TAG_LENGTH]}"


def find_app(
    name: str, key: str, repository: str, registry: Registry, cache: Cache
) -> AppImage | None:
    """Return the app image of the inputs with that key, if the registry has it.

    Any machine may have built it. Its image manifest and config are fetched into the cache.
    """
    manifest = registry.manifest(repository, app_tag(key))
    if manifest is None:
        return None
    image = parse_image_manifest(manifest)
    if image.annotations.get(INPUTS_KEY) != key:
        return None
    fetch_blob(image.config, repository, registry, cache)
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
    manifest = registry.manifest(repository, model_tag(model))
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
    return registry.manifest(_path(release), release.image.digest) is not None


def pull_size(release: Release, registry: Registry, cache: Cache) -> int:
    """Return how many bytes of a release a node pulls at most.

    It is the size of the model's layer alone if the registry does not answer or has no such image.
    """
    digest = release.image.digest
    try:
        is_cached = cache.has(digest, release.image.manifest.size)
        manifest = cache.read(digest) if is_cached else registry.manifest(_path(release), digest)
        layers = parse_image_manifest(manifest).layers if manifest else ()
    except RegistryError as error:
        # An undo must not need the registry: the nodes may still have the image.
        log.info("the size of %s is taken to be its model's: %s", digest[:19], error.what)
        layers = ()
    return sum(item.size for item in layers) or release.image.layer.size


def copy(
    release: Release,
    source: Registry,
    repository: str,
    registry: Registry,
    cache: Cache,
    *,
    mount_path: str,
) -> Release:
    """Copy a release to another repository or registry, byte for byte; only what it lacks is sent.

    Args:
        release: the release of another environment.
        source: the registry that has the release.
        repository: the path below the other registry's host.
        registry: gets the release.
        cache: gets the blobs that have to be copied from registry to registry.
        mount_path: the folder in the container for which the model's layer was made.

    Raises:
        RegistryNotFound: the source does not have the release any more.
        RegistryError: a registry did not do what it was asked.
        BlobCorrupt: the source sent other bytes.
    """
    path = _path(release)
    joined = release.image
    manifest = source.manifest(path, joined.digest)
    if manifest is None:
        raise RegistryNotFound(
            "the release to promote is no longer in its registry",
            on=release.reference,
            next="release that commit again",
        )
    if release.repository == f"{registry.host}/{repository}":
        return release
    cache.put(manifest)
    fetch_app(joined.app, path, source, cache)
    fetch_blob(parse_image_manifest(manifest).config, path, source, cache)
    mount_sources = (path,) if source.host == registry.host else ()
    for item in find_missing(manifest, repository, registry):
        if not any(registry.mount(repository, item.digest, other) for other in mount_sources):
            fetch_blob(item, path, source, cache)
    return push(
        joined, repository, registry, cache, mount_path=mount_path, mount_sources=mount_sources
    )


def _path(release: Release) -> str:
    return release.repository.partition("/")[2]
