"""The way of blobs out of a registry: into the cache, each checked against its digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from deploy import progress
from deploy.cache import CHUNK, Cache
from deploy.clients.oci.protocol import Registry
from deploy.errors import BlobCorrupt
from deploy.image.manifest import parse_image_manifest
from deploy.model import golden_cases
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
    config = parse_image_manifest(cache.read(digest)).config
    fetch_blob(config, repository, registry, cache)


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


def read_golden_set(
    model: ModelLayer, repository: str, registry: Registry, cache: Cache
) -> golden_cases.GoldenSet:
    """Return a model's golden cases, read from the start of its layer in the cache or registry."""
    with _open_layer(model, repository, registry, cache) as stream:
        return golden_cases.read_golden_set(model.model, stream)


@contextmanager
def _open_layer(
    model: ModelLayer, repository: str, registry: Registry, cache: Cache
) -> Iterator[IO[bytes]]:
    is_cached = cache.has(model.digest, model.size)
    stream = cache.open(model.digest) if is_cached else registry.download(repository, model.digest)
    try:
        yield stream
    finally:
        stream.close()
