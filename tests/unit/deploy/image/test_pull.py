"""Blobs that are pulled from a registry: each is fetched once and checked."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import IO

import pytest

from deploy.cache import Cache
from deploy.errors import (
    BlobCorrupt,
    ManifestInvalid,
    RegistryNotFound,
)
from deploy.image import pull, registry
from deploy.image.join import join_image
from deploy.image.manifest import parse_image_manifest
from deploy.records import Descriptor, Image, Release
from tests.fakes import halves
from tests.fakes.halves import CODE, MOUNT, WEIGHTS, digest
from tests.fakes.registry import MemoryRegistry

REPOSITORY = "team/classifier"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def remote() -> MemoryRegistry:
    """An empty registry."""
    return MemoryRegistry()


def joined(cache: Cache, code: bytes = CODE, weights: bytes = WEIGHTS) -> Image:
    """An image whose halves are in the cache."""
    return join_image(
        halves.app(cache, code, key=code.hex()), halves.model(cache, weights), MOUNT, cache
    )


def push(
    made: Image, remote: MemoryRegistry, cache: Cache, *elsewhere: str, repository: str = REPOSITORY
) -> Release:
    """Pushes an image."""
    return registry.push(made, repository, remote, cache, mount_path=MOUNT, mount_sources=elsewhere)


def named(manifest: bytes) -> set[str]:
    """The digests that a manifest names."""
    config, layers, _ = parse_image_manifest(manifest)
    return {config.digest, *(layer.digest for layer in layers)}


def test_a_blob_is_brought_once(remote: MemoryRegistry, cache: Cache, tmp_path: Path) -> None:
    """And checked."""
    made = joined(cache)
    push(made, remote, cache)
    other = Cache(tmp_path / "other")
    item = Descriptor(media_type="", digest=made.layer.digest, size=made.layer.size)
    pull.fetch_blob(item, REPOSITORY, remote, other)
    assert other.read(item.digest) == WEIGHTS
    remote.blobs.clear()
    pull.fetch_blob(item, REPOSITORY, remote, other)


@pytest.mark.parametrize("lie", [b"", WEIGHTS[::-1], WEIGHTS[:-1], WEIGHTS + b"x", bytes(5 << 20)])
def test_other_bytes_than_were_asked_for_are_refused(
    remote: MemoryRegistry, cache: Cache, lie: bytes
) -> None:
    """Both digests are shown, and nothing is kept."""
    remote.blobs[REPOSITORY][digest(WEIGHTS)] = lie
    with pytest.raises(BlobCorrupt) as caught:
        pull.fetch_blob(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=len(WEIGHTS)),
            REPOSITORY,
            remote,
            cache,
        )
    assert digest(WEIGHTS) in caught.value.detail
    assert not cache.path(digest(WEIGHTS)).exists()
    assert not list(cache.temporary.iterdir())


def test_a_lie_of_any_length_is_not_read_to_its_end(cache: Cache) -> None:
    """Reading ends with the block in which it is too long."""

    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            assert self.given < 8 << 20
            self.given += size
            return bytes(size)

    class Lying(MemoryRegistry):
        def blob(self, repository: str, digest: str) -> IO[bytes]:
            return Endless()  # type: ignore[return-value]  # as much of a file as is asked for

    with pytest.raises(BlobCorrupt):
        pull.fetch_blob(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=2 << 20),
            REPOSITORY,
            Lying(),
            cache,
        )


def test_a_blob_that_the_registry_lacks_is_told(remote: MemoryRegistry, cache: Cache) -> None:
    """Nothing is left in the cache."""
    with pytest.raises(RegistryNotFound):
        pull.fetch_blob(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=7), REPOSITORY, remote, cache
        )
    assert not list(cache.temporary.iterdir())


def test_an_app_image_is_brought_for_a_join(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """From the registry by its digest, or not at all."""
    made = joined(cache)
    push(made, remote, cache)
    other = Cache(tmp_path / "other")
    pull.fetch_app(made.app, REPOSITORY, remote, other)
    assert join_image(made.app, made.layer, MOUNT, other) == made
    remote.manifests.clear()
    with pytest.raises(BlobCorrupt, match="app image"):
        pull.fetch_app(made.app, REPOSITORY, remote, Cache(tmp_path / "third"))


def test_golden_cases_are_read_from_the_cache_or_the_registry(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """What is in neither is told."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    layer = halves.model(cache, packed.getvalue())
    remote.blobs[REPOSITORY][layer.digest] = packed.getvalue()
    for each in (cache, Cache(tmp_path / "other")):
        with pytest.raises(ManifestInvalid):
            pull.read_golden_set(layer, REPOSITORY, remote, each)
    remote.blobs.clear()
    with pytest.raises(RegistryNotFound):
        pull.read_golden_set(layer, REPOSITORY, remote, Cache(tmp_path / "third"))
