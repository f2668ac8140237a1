"""Images in a registry: app images, layers and releases that are found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.errors import (
    BlobCorrupt,
    RegistryUnreachable,
)
from deploy.image import tags
from deploy.image.build import create_app_image
from deploy.image.join import join_image
from deploy.image.manifest import parse_image_manifest
from deploy.records import Release
from tests.fakes import halves
from tests.fakes.halves import MOUNT, REPOSITORY, WEIGHTS, join, push
from tests.fakes.registry import MemoryRegistry


def test_an_app_image_is_found_by_its_inputs_on_another_machine(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """Only what a join needs is fetched."""
    image = join(cache)
    push(image, remote, cache)
    other = Cache(tmp_path / "other")
    found = tags.find_app("classifier", image.app.key, REPOSITORY, remote, other)
    assert found == image.app
    assert join_image(found, image.layer, MOUNT, other) == image
    assert not other.has(image.layer.digest, image.layer.size)


def test_an_app_image_of_uncommitted_files_is_found_as_such(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """Its commit is marked as dirty."""
    app = halves.app(cache)
    dirty = app.commit.model_copy(update={"dirty": True})
    manifest = parse_image_manifest(cache.read(app.manifest.digest))
    app = create_app_image("classifier", "k2", dirty, manifest[0], manifest[1], cache)
    push(join_image(app, halves.model(cache), MOUNT, cache), remote, cache)
    assert tags.find_app("classifier", "k2", REPOSITORY, remote, cache) == app


def test_an_app_image_that_was_not_pushed_is_not_found(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """An image of other inputs under that tag is not used."""
    assert tags.find_app("classifier", "k1", REPOSITORY, remote, cache) is None
    image = join(cache)
    push(image, remote, cache)
    remote.manifests[REPOSITORY]["app-k1"] = cache.read(image.app.manifest.digest)
    assert tags.find_app("classifier", "k1", REPOSITORY, remote, cache) is None


def test_a_models_layer_is_found_by_the_model(remote: MemoryRegistry, cache: Cache) -> None:
    """Its bytes are not fetched."""
    image = join(cache)
    assert tags.find_layer(image.layer.model, MOUNT, REPOSITORY, remote) is None
    push(image, remote, cache)
    assert tags.find_layer(image.layer.model, MOUNT, REPOSITORY, remote) == image.layer


def test_a_layer_of_another_mount_path_is_not_found(remote: MemoryRegistry, cache: Cache) -> None:
    """The same model in another folder is another layer."""
    image = join(cache)
    push(image, remote, cache)
    assert tags.find_layer(image.layer.model, "/other", REPOSITORY, remote) is None


def test_another_image_under_the_tag_is_not_found(remote: MemoryRegistry, cache: Cache) -> None:
    """An image of another model, or one without layers, is not used."""
    image = join(cache)
    other = join(cache, weights=b"other")
    push(image, remote, cache)
    tag = tags.model_tag(other.layer.model)
    remote.manifests[REPOSITORY][tag] = remote.manifests[REPOSITORY][
        tags.model_tag(image.layer.model)
    ]
    assert tags.find_layer(other.layer.model, MOUNT, REPOSITORY, remote) is None
    document = json.loads(remote.manifests[REPOSITORY][tags.model_tag(image.layer.model)])
    remote.manifests[REPOSITORY][tags.model_tag(image.layer.model)] = json.dumps(
        {**document, "layers": []}
    ).encode()
    assert tags.find_layer(image.layer.model, MOUNT, REPOSITORY, remote) is None


def test_another_document_under_a_tag_is_an_error(remote: MemoryRegistry, cache: Cache) -> None:
    """A web page is not an image manifest."""
    image = join(cache)
    remote.manifests[REPOSITORY] = {
        f"app-{image.app.key}": b"<html>",
        tags.model_tag(image.layer.model): b"<html>",
    }
    with pytest.raises(BlobCorrupt):
        tags.find_app("classifier", image.app.key, REPOSITORY, remote, cache)
    with pytest.raises(BlobCorrupt):
        tags.find_layer(image.layer.model, MOUNT, REPOSITORY, remote)


def test_a_release_that_was_removed_is_not_found(remote: MemoryRegistry, cache: Cache) -> None:
    """A rollback can check this before it begins."""
    release = push(join(cache), remote, cache)
    remote.manifests[REPOSITORY].clear()
    assert not tags.has_release(release, remote)


class UnreachableRegistry(MemoryRegistry):
    """A registry that does not answer."""

    def get_manifest(self, repository: str, reference: str) -> bytes | None:
        raise RegistryUnreachable("the registry gave no answer", on=self.host, next="run again")


@pytest.mark.parametrize("cached", [True, False])
def test_the_size_of_a_release_is_that_of_its_layers(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path, cached: bool
) -> None:
    """The layers count as they are sent; the cache is read before the registry."""
    release = push(join(cache), remote, cache)
    sent = [
        remote.blobs[REPOSITORY][layer.digest]
        for layer in parse_image_manifest(cache.read(release.image.digest))[1]
    ]
    found = (
        tags.pull_size(release, UnreachableRegistry(), cache)
        if cached
        else tags.pull_size(release, remote, Cache(tmp_path / "other"))
    )
    assert found == sum(map(len, sent)) > len(WEIGHTS)


def test_the_size_of_a_release_elsewhere_is_not_asked_for(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """The environment's registry does not have it; an undo can meet such a release."""
    release = push(join(cache), remote, cache).model_copy(
        update={"repository": f"other.example/{REPOSITORY}"}
    )
    assert tags.pull_size(release, remote, Cache(tmp_path / "other")) == len(WEIGHTS)


def remove_release(remote: MemoryRegistry, release: Release) -> MemoryRegistry:
    """Return the registry without its releases."""
    remote.manifests.clear()
    return remote


def replace_release(remote: MemoryRegistry, release: Release) -> MemoryRegistry:
    """Return the registry with another document in place of the release."""
    remote.manifests[REPOSITORY][release.image.digest] = b"<html>"
    return remote


def stop_registry(remote: MemoryRegistry, release: Release) -> MemoryRegistry:
    """Return a registry that does not answer."""
    return UnreachableRegistry()


@pytest.mark.parametrize("broken", [remove_release, replace_release, stop_registry])
def test_the_size_of_a_release_falls_back_to_that_of_its_model(
    remote: MemoryRegistry,
    cache: Cache,
    tmp_path: Path,
    broken: Callable[[MemoryRegistry, Release], MemoryRegistry],
) -> None:
    """An undo needs the size too, and must not fail because of the registry."""
    release = push(join(cache), remote, cache)
    assert tags.pull_size(release, broken(remote, release), Cache(tmp_path / "other")) == len(
        WEIGHTS
    )


def test_the_platform_of_a_release_is_that_of_its_config(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """The cache is read before the registry."""
    release = push(join(cache), remote, cache)
    assert tags.find_platform(release, UnreachableRegistry(), cache) == "linux/amd64"
    assert tags.find_platform(release, remote, Cache(tmp_path / "other")) == "linux/amd64"


@pytest.mark.parametrize("broken", [remove_release, replace_release, stop_registry])
def test_the_platform_of_a_release_may_be_unknown(
    remote: MemoryRegistry,
    cache: Cache,
    tmp_path: Path,
    broken: Callable[[MemoryRegistry, Release], MemoryRegistry],
) -> None:
    """A rollback must not fail because of the registry."""
    release = push(join(cache), remote, cache)
    assert tags.find_platform(release, broken(remote, release), Cache(tmp_path / "other")) == ""
