"""The way of an image into a registry: each blob is sent once, and the image manifests come last.

A push that is killed therefore leaves nothing that can be pulled.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from deploy import progress
from deploy.cache import Cache
from deploy.clients.oci.protocol import Registry
from deploy.errors import BlobCorrupt, RegistryNotFound, RegistryRefused
from deploy.image.join import create_model_image
from deploy.image.manifest import parse_image_manifest
from deploy.image.pull import fetch_app, fetch_blob, fetch_config
from deploy.image.tags import app_tag, model_tag, release_tag, repository_path
from deploy.records import Descriptor, Image, Release

log = logging.getLogger(__name__)

_AT_ONCE = 3


def push_image(
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
        if registry.get_manifest(repository, tag) != manifest
    ]
    missing = find_missing((manifest for _, manifest in wanted), repository, registry)
    _push_blobs(missing, repository, registry, cache, mount_sources)
    for tag, manifest in wanted:
        registry.put_manifest(repository, tag, manifest)
    return Release(image=joined, repository=f"{registry.host}/{repository}")


def copy_release(
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
    path = repository_path(release)
    joined = release.image
    manifest = source.get_manifest(path, joined.digest)
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
    fetch_config(parse_image_manifest(manifest), path, source, cache)
    mount_sources = (path,) if source.host == registry.host else ()
    for item in find_missing((manifest,), repository, registry):
        if not any(registry.mount(repository, item.digest, other) for other in mount_sources):
            fetch_blob(item, path, source, cache)
    return push_image(
        joined, repository, registry, cache, mount_path=mount_path, mount_sources=mount_sources
    )


def _tag_manifests(joined: Image, mount_path: str, cache: Cache) -> tuple[tuple[str, bytes], ...]:
    """Return the image manifests of a release with their tags, the release itself last."""
    model = create_model_image(joined.layer, mount_path, cache)
    return (
        (app_tag(joined.app.key), cache.read(joined.app.manifest.digest)),
        (model_tag(joined.layer.model), cache.read(model.digest)),
        (release_tag(joined.digest), cache.read(joined.digest)),
    )


def find_missing(
    manifests: Iterable[bytes], repository: str, registry: Registry
) -> tuple[Descriptor, ...]:
    """Return the blobs of image manifests that the repository lacks; each is asked for once."""
    images = map(parse_image_manifest, manifests)
    blobs = {item.digest: item for image in images for item in (*image.layers, image.config)}
    unique = tuple(blobs.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        present = list(pool.map(lambda item: registry.has_blob(repository, item.digest), unique))
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
    with cache.open(item.digest) as file:
        actual = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if actual != item.digest:
        cache.drop(item.digest)
        raise BlobCorrupt(
            "a cached layer does not have its digest; it was dropped from the cache",
            on=item.digest,
            next="run `invoke release`; it makes the layer again",
            detail=f"  actual {actual}",
        )
