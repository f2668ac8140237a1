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
from deploy.image import pull
from deploy.image.join import join_image
from deploy.image.manifest import ImageManifest
from deploy.records import Descriptor
from tests.fakes import halves
from tests.fakes.halves import MOUNT, REPOSITORY, WEIGHTS, digest, join, push
from tests.fakes.registry import MemoryRegistry


def test_a_blob_is_fetched_once(remote: MemoryRegistry, cache: Cache, tmp_path: Path) -> None:
    """It is checked against its digest."""
    image = join(cache)
    push(image, remote, cache)
    other = Cache(tmp_path / "other")
    item = Descriptor(media_type="", digest=image.layer.digest, size=image.layer.size)
    pull.fetch_blob(item, REPOSITORY, remote, other)
    assert other.read(item.digest) == WEIGHTS
    remote.blobs.clear()
    pull.fetch_blob(item, REPOSITORY, remote, other)


@pytest.mark.parametrize(
    "wrong", [b"", WEIGHTS[::-1], WEIGHTS[:-1], WEIGHTS + b"x", bytes(5 << 20)]
)
def test_other_bytes_than_those_of_the_digest_are_refused(
    remote: MemoryRegistry, cache: Cache, wrong: bytes
) -> None:
    """The error has both digests, and the cache keeps nothing."""
    remote.blobs[REPOSITORY][digest(WEIGHTS)] = wrong
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


def test_a_blob_that_is_too_long_is_not_read_to_its_end(cache: Cache) -> None:
    """Reading ends with the chunk in which it is too long."""

    class Endless(io.RawIOBase):
        sent = 0

        def read(self, size: int = -1) -> bytes:
            assert self.sent < 8 << 20
            self.sent += size
            return bytes(size)

    class WrongRegistry(MemoryRegistry):
        def download(self, repository: str, digest: str) -> IO[bytes]:
            return Endless()  # type: ignore[return-value]  # as much of a file as is asked for

    with pytest.raises(BlobCorrupt):
        pull.fetch_blob(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=2 << 20),
            REPOSITORY,
            WrongRegistry(),
            cache,
        )


def test_a_blob_that_the_registry_lacks_is_an_error(remote: MemoryRegistry, cache: Cache) -> None:
    """The cache has no unfinished file."""
    with pytest.raises(RegistryNotFound):
        pull.fetch_blob(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=7), REPOSITORY, remote, cache
        )
    assert not list(cache.temporary.iterdir())


def test_an_app_image_is_fetched_for_a_join(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """If neither the registry nor the cache has it, it is an error."""
    image = join(cache)
    push(image, remote, cache)
    other = Cache(tmp_path / "other")
    pull.fetch_app(image.app, REPOSITORY, remote, other)
    assert join_image(image.app, image.layer, MOUNT, other) == image
    remote.manifests.clear()
    with pytest.raises(BlobCorrupt, match="app image"):
        pull.fetch_app(image.app, REPOSITORY, remote, Cache(tmp_path / "third"))


def test_a_config_without_an_end_is_not_fetched(remote: MemoryRegistry, cache: Cache) -> None:
    """Configs have a few kilobytes, and are read into memory."""
    config = Descriptor(media_type="", digest=digest(b"large"), size=1 << 40)
    with pytest.raises(BlobCorrupt, match="more than any config"):
        pull.fetch_config(ImageManifest(config, (), {}), REPOSITORY, remote, cache)


def test_golden_cases_are_read_from_the_cache_or_the_registry(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """If neither has the layer, it is an error."""
    layer_bytes = io.BytesIO()
    with tarfile.open(fileobj=layer_bytes, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    layer = halves.model(cache, layer_bytes.getvalue())
    remote.blobs[REPOSITORY][layer.digest] = layer_bytes.getvalue()
    for each in (cache, Cache(tmp_path / "other")):
        with pytest.raises(ManifestInvalid):
            pull.read_golden_set(layer, REPOSITORY, remote, each)
    remote.blobs.clear()
    with pytest.raises(RegistryNotFound):
        pull.read_golden_set(layer, REPOSITORY, remote, Cache(tmp_path / "third"))
