"""The way of blobs out of a registry: into the cache, each checked against its digest."""

from __future__ import annotations

from typing import IO

from deploy import progress
from deploy.cache import CHUNK, Cache
from deploy.clients.oci.protocol import Registry
from deploy.errors import BlobCorrupt, ModelError
from deploy.image.join import describe_layer
from deploy.image.manifest import MAX_JSON, ImageManifest, parse_image_manifest
from deploy.model import golden_cases
from deploy.model.layer_check import check_layer, is_checked, remember_checked
from deploy.model.manifest import ModelManifest
from deploy.records import AppImage, Descriptor, ModelLayer


def fetch_app(app: AppImage, repository: str, registry: Registry, cache: Cache) -> None:
    """Fetch an app image's manifest and config into the cache, for a join.

    Raises:
        BlobCorrupt: neither the registry nor the cache has them.
    """
    digest = app.manifest.digest
    if not cache.has(digest, app.manifest.size):
        manifest = registry.get_manifest(repository, digest)
        if manifest is None:
            raise BlobCorrupt(
                "neither the registry nor the cache has the app image",
                on=digest,
                next="release that commit again",
            )
        cache.put(manifest)
    fetch_config(parse_image_manifest(cache.read(digest)), repository, registry, cache)


def fetch_config(image: ImageManifest, repository: str, registry: Registry, cache: Cache) -> None:
    """Fetch the config of an image into the cache.

    Raises:
        BlobCorrupt: the registry sent other bytes, or they are too many for a config.
    """
    if image.config.size > MAX_JSON:
        raise BlobCorrupt(
            f"the config of an image has {image.config.size} bytes, more than any config",
            on=f"{registry.host}/{repository}@{image.config.digest}",
            next="see who else writes to the repository",
        )
    fetch_blob(image.config, repository, registry, cache)


def fetch_blob(item: Descriptor, repository: str, registry: Registry, cache: Cache) -> None:
    """Fetch a blob into the cache, unless it is there already.

    Raises:
        BlobCorrupt: the registry sent other bytes.
        RegistryNotFound: the registry does not have the blob.
    """
    if cache.has(item.digest, item.size):
        return
    with (
        registry.download(repository, item.digest) as source,
        cache.writer() as writer,
        progress.track("pulling", item.size) as advance,
    ):
        while writer.size <= item.size and (chunk := source.read(CHUNK)):
            advance(writer.write(chunk))
        if writer.digest != item.digest:
            raise BlobCorrupt(
                "the registry sent other bytes than those of the digest",
                on=f"{registry.host}/{repository}",
                next="the registry's storage is damaged, or another server answers: "
                "push the release again, or use another registry",
                detail=f"  expected {item.digest}\n  actual   {writer.digest}",
            )
        writer.commit()


def fetch_checked_layer(
    layer: ModelLayer, mount_path: str, repository: str, registry: Registry, cache: Cache
) -> None:
    """Make sure that the cache has a model's layer, and that it has nothing but the model.

    Other machines may have pushed it. A layer that this machine wrote is not read again.

    Raises:
        ModelError: it is not the layer of that model; it is dropped from the cache.
        BlobCorrupt, RegistryNotFound: as for any blob.
    """
    fetch_blob(describe_layer(layer), repository, registry, cache)
    if is_checked(layer, cache, mount_path):
        return
    try:
        check_layer(layer, mount_path, lambda: cache.open(layer.digest))
    except ModelError:
        cache.drop(layer.digest)
        raise
    remember_checked(layer, cache, mount_path)


def read_golden_set(
    model: ModelLayer, repository: str, registry: Registry, cache: Cache
) -> golden_cases.GoldenSet:
    """Return a model's golden cases, read from the start of its layer in the cache or registry."""
    with _open_layer(model, repository, registry, cache) as stream:
        return golden_cases.read_golden_set(model.model, stream)


def read_model_manifest(
    model: ModelLayer, repository: str, registry: Registry, cache: Cache
) -> ModelManifest:
    """Return a model's manifest, read from the start of its layer in the cache or registry."""
    with _open_layer(model, repository, registry, cache) as stream:
        return golden_cases.read_layer_manifest(model.model, stream)


def _open_layer(model: ModelLayer, repository: str, registry: Registry, cache: Cache) -> IO[bytes]:
    is_cached = cache.has(model.digest, model.size)
    return cache.open(model.digest) if is_cached else registry.download(repository, model.digest)
