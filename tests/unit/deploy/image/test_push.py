"""Pushes and copies of images: only what the registry lacks is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from deploy import progress
from deploy.cache import Cache
from deploy.clients.oci.upload import OpenBlob
from deploy.errors import (
    BlobCorrupt,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
)
from deploy.image import tags
from deploy.image.join import create_model_image
from deploy.image.manifest import parse_image_manifest
from deploy.image.push import copy_release
from deploy.progress import Advance
from deploy.records import Release
from tests.fakes.halves import MOUNT, REPOSITORY, WEIGHTS, digest, join, list_digests, push
from tests.fakes.registry import MemoryRegistry


def test_a_pushed_image_is_found_by_its_digest(remote: MemoryRegistry, cache: Cache) -> None:
    """All its blobs are there, and the release is repository and digest."""
    image = join(cache)
    release = push(image, remote, cache)
    assert release.reference == f"registry.example/{REPOSITORY}@{image.digest}"
    assert remote.get_manifest(REPOSITORY, image.digest) == cache.read(image.digest)
    assert list_digests(cache.read(image.digest)) <= remote.blobs[REPOSITORY].keys()
    assert tags.has_release(release, remote)


def test_no_blob_is_sent_twice(remote: MemoryRegistry, cache: Cache) -> None:
    """Three image manifests of a push have the same layers, and a second push sends nothing."""
    image = join(cache)
    push(image, remote, cache)
    assert len(remote.uploaded) == len(set(remote.uploaded))
    remote.uploaded.clear()
    remote.stored_references.clear()
    assert push(image, remote, cache).image == image
    assert not remote.uploaded
    assert not remote.stored_references


def test_each_blob_is_asked_for_once(cache: Cache) -> None:
    """Most of them are in two image manifests of a push."""
    asked: list[str] = []

    class Recording(MemoryRegistry):
        def has_blob(self, repository: str, digest: str) -> bool:
            asked.append(digest)
            return super().has_blob(repository, digest)

    push(join(cache), remote := Recording(), cache)
    assert sorted(asked) == sorted(remote.blobs[REPOSITORY])


def test_new_code_does_not_send_the_model(remote: MemoryRegistry, cache: Cache) -> None:
    """The cache does not need the model."""
    push(join(cache), remote, cache)
    remote.uploaded.clear()
    image = join(cache, code=b"new code")
    cache.drop(image.layer.digest)
    push(image, remote, cache)
    sent = {name for _, name in remote.uploaded}
    _, layers, _ = parse_image_manifest(cache.read(image.digest))
    assert sent == {
        layers[-1].digest,
        image.config,
        parse_image_manifest(cache.read(image.app.manifest.digest))[0].digest,
    }


def test_a_new_model_sends_only_its_layer_and_json(remote: MemoryRegistry, cache: Cache) -> None:
    """No layer of the app image is sent."""
    push(join(cache), remote, cache)
    remote.uploaded.clear()
    image = join(cache, weights=b"new weights")
    push(image, remote, cache)
    alone = create_model_image(image.layer, MOUNT, cache)
    assert {name for _, name in remote.uploaded} == {
        digest(b"new weights"),
        image.config,
        parse_image_manifest(cache.read(alone.digest))[0].digest,
    }


def test_blobs_of_another_repository_are_mounted(remote: MemoryRegistry, cache: Cache) -> None:
    """The first repository that has a blob is used, and nothing is sent."""
    image = join(cache)
    push(image, remote, cache, repository="team/staging")
    remote.uploaded.clear()
    push(image, remote, cache, "team/empty", "team/staging")
    assert not remote.uploaded
    assert {name for _, name in remote.mounted} >= list_digests(cache.read(image.digest))
    assert remote.get_manifest(REPOSITORY, image.digest) is not None


def test_blobs_that_are_there_are_not_mounted(remote: MemoryRegistry, cache: Cache) -> None:
    """Other repositories are used only for blobs that this one lacks."""
    push(join(cache), remote, cache, repository="team/staging")
    push(join(cache), remote, cache)
    push(join(cache, code=b"new code"), remote, cache, "team/staging")
    assert not remote.mounted


def test_the_progress_of_a_push_counts_the_bytes_that_are_sent(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """The announced total is reached."""
    tracked: list[tuple[str, int, list[int]]] = []

    class Display(progress.QuietDisplay):
        @contextmanager
        def track(self, label: str, total: int) -> Iterator[Advance]:
            counts: list[int] = []
            tracked.append((label, total, counts))
            yield counts.append

    with progress.use_display(Display()):
        push(join(cache), remote, cache)
    ((label, total, counts),) = tracked
    assert label == "pushing"
    assert total == sum(counts) == sum(map(len, remote.blobs[REPOSITORY].values()))


class FailingRegistry(MemoryRegistry):
    """A registry that fails when certain blobs are sent."""

    def __init__(self, *digests: str) -> None:
        super().__init__()
        self.failing = set(digests)

    def upload(
        self, repository: str, digest: str, size: int, opened: OpenBlob, advance: Advance
    ) -> None:
        if digest in self.failing:
            raise RegistryUnreachable("the registry gave no answer", on=self.host, next="run again")
        super().upload(repository, digest, size, opened, advance)


def test_a_push_that_fails_leaves_no_manifest_and_the_next_sends_only_the_rest(
    cache: Cache,
) -> None:
    """Blobs that were sent stay."""
    image = join(cache)
    remote = FailingRegistry(image.layer.digest)
    with pytest.raises(RegistryUnreachable):
        push(image, remote, cache)
    assert not remote.stored_references
    before = set(remote.uploaded)
    remote.failing.clear()
    push(image, remote, cache)
    assert len(remote.uploaded) == len(set(remote.uploaded)) > len(before)
    assert remote.get_manifest(REPOSITORY, image.digest) is not None


def test_a_layer_that_neither_cache_nor_registry_has_is_an_error(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """The error says how to make the layer again, and no image manifest is pushed."""
    image = join(cache)
    cache.drop(image.layer.digest)
    with pytest.raises(BlobCorrupt) as caught:
        push(image, remote, cache)
    assert caught.value.on == image.layer.digest
    assert "invoke release" in caught.value.next
    assert not remote.stored_references


def test_a_damaged_layer_is_dropped_when_the_registry_refuses_it(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """Otherwise each further run would be refused too."""
    image = join(cache)
    cache.path(image.layer.digest).write_bytes(WEIGHTS[::-1])
    with pytest.raises(BlobCorrupt) as caught:
        push(image, remote, cache)
    assert digest(WEIGHTS[::-1]) in caught.value.detail
    assert not cache.has(image.layer.digest, len(WEIGHTS))
    assert not remote.stored_references


def test_a_valid_layer_that_the_registry_refuses_is_kept(cache: Cache) -> None:
    """The layer is not the reason of the refusal."""

    class Full(MemoryRegistry):
        def upload(
            self, repository: str, digest: str, size: int, opened: OpenBlob, advance: Advance
        ) -> None:
            raise RegistryRefused("the registry answered 507", on=self.host, next="run again")

    image = join(cache)
    with pytest.raises(RegistryRefused):
        push(image, Full(), cache)
    assert cache.has(image.layer.digest, len(WEIGHTS))


class CountingRegistry(MemoryRegistry):
    """A registry that records which blobs are read."""

    def __init__(self, host: str = "registry.example") -> None:
        super().__init__(host)
        self.read: list[str] = []

    def download(self, repository: str, digest: str) -> IO[bytes]:
        self.read.append(digest)
        return super().download(repository, digest)


@pytest.fixture
def near() -> CountingRegistry:
    """Return the registry from which releases are copied."""
    return CountingRegistry()


@pytest.fixture
def far() -> MemoryRegistry:
    """Return another registry."""
    return MemoryRegistry("far.example")


def copy(
    release: Release,
    near: MemoryRegistry,
    far: MemoryRegistry,
    cache: Cache,
    repository: str = "live/classifier",
) -> Release:
    """Copy a release."""
    return copy_release(release, near, repository, far, cache, mount_path=MOUNT)


def test_a_copy_is_the_same_image_byte_for_byte(
    near: CountingRegistry, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """It has the same digest and all its blobs, and the machine needs no cache."""
    release = push(join(cache), near, cache)
    copied = copy(release, near, far, Cache(tmp_path / "other"))
    assert (copied.image, copied.repository) == (release.image, "far.example/live/classifier")
    manifest = near.manifests[REPOSITORY][release.image.digest]
    assert far.manifests["live/classifier"][release.image.digest] == manifest
    assert {
        name: near.blobs[REPOSITORY][name] for name in list_digests(manifest)
    }.items() <= far.blobs["live/classifier"].items()


def test_the_app_image_and_the_model_of_a_copy_are_found(
    near: CountingRegistry, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """A release there needs no build and no fetch."""
    image = join(cache)
    copy(push(image, near, cache), near, far, Cache(tmp_path / "other"))
    assert (
        tags.find_app(
            "classifier", image.app.key, "live/classifier", far, Cache(tmp_path / "third")
        )
        == image.app
    )
    assert tags.find_layer(image.layer.model, MOUNT, "live/classifier", far) == image.layer


def test_a_second_copy_sends_nothing(
    near: CountingRegistry, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """With an empty cache it reads JSON only."""
    release = push(join(cache), near, cache)
    copy(release, near, far, Cache(tmp_path / "other"))
    for record in (far.uploaded, far.stored_references, near.read):
        record.clear()
    assert copy(release, near, far, Cache(tmp_path / "third")).image == release.image
    configs = {
        release.image.config,
        parse_image_manifest(cache.read(release.image.app.manifest.digest))[0].digest,
    }
    assert (far.uploaded, far.stored_references, set(near.read)) == ([], [], configs)


def test_a_copy_of_a_new_model_sends_only_its_layer(
    near: CountingRegistry, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """No layer of the code is read or sent."""
    copy(push(join(cache), near, cache), near, far, Cache(tmp_path / "other"))
    image = join(cache, weights=b"new weights")
    release = push(image, near, cache)
    far.uploaded.clear()
    near.read.clear()
    copy(release, near, far, Cache(tmp_path / "third"))
    layers = {layer.digest for layer in parse_image_manifest(cache.read(image.digest))[1]}
    assert (
        layers & {name for _, name in far.uploaded}
        == layers & set(near.read)
        == {image.layer.digest}
    )


def test_cached_blobs_are_not_read_from_the_registry(
    near: CountingRegistry, far: MemoryRegistry, cache: Cache
) -> None:
    """The machine that made the image has them all."""
    copy(push(join(cache), near, cache), near, far, cache)
    assert near.read == []


def test_a_copy_within_a_registry_sends_no_blobs(
    near: CountingRegistry, cache: Cache, tmp_path: Path
) -> None:
    """The other repository mounts them."""
    release = push(join(cache), near, cache)
    near.uploaded.clear()
    copied = copy(release, near, near, Cache(tmp_path / "other"))
    assert copied.reference == f"registry.example/live/classifier@{release.image.digest}"
    assert near.uploaded == []
    assert {name for _, name in near.mounted} >= list_digests(
        near.manifests["live/classifier"][release.image.digest]
    )
    assert release.image.layer.digest not in near.read


def test_a_copy_to_the_same_repository_changes_nothing(
    near: CountingRegistry, cache: Cache, tmp_path: Path
) -> None:
    """Environments may share a repository."""
    release = push(join(cache), near, cache)
    for record in (near.uploaded, near.stored_references):
        record.clear()
    assert copy(release, near, near, Cache(tmp_path / "other"), REPOSITORY) == release
    assert (near.uploaded, near.mounted, near.stored_references, near.read) == ([], [], [], [])


@pytest.mark.parametrize("repository", [REPOSITORY, "live/classifier"])
def test_a_release_that_was_removed_cannot_be_copied(
    near: CountingRegistry, cache: Cache, repository: str
) -> None:
    """This holds for a copy to the same repository too."""
    release = push(join(cache), near, cache)
    near.manifests[REPOSITORY].pop(release.image.digest)
    with pytest.raises(RegistryNotFound) as caught:
        copy(release, near, near, cache, repository)
    assert caught.value.on == release.reference
    assert near.manifests["live/classifier"] == {}


def test_a_copy_that_fails_leaves_no_manifest_and_the_next_sends_only_the_rest(
    near: CountingRegistry, cache: Cache, tmp_path: Path
) -> None:
    """Blobs that were sent stay."""
    release = push(join(cache), near, cache)
    other = Cache(tmp_path / "other")
    far = FailingRegistry(release.image.layer.digest)
    far.host = "far.example"
    with pytest.raises(RegistryUnreachable):
        copy(release, near, far, other)
    assert far.stored_references == []
    far.failing.clear()
    near.read.clear()
    copy(release, near, far, other)
    assert len(far.uploaded) == len(set(far.uploaded))
    assert near.read == []
    assert release.image.digest in far.manifests["live/classifier"]


def test_a_damaged_blob_is_not_copied(
    near: CountingRegistry, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """No image manifest with it is copied either."""
    release = push(join(cache), near, cache)
    near.blobs[REPOSITORY][release.image.layer.digest] = WEIGHTS[::-1]
    with pytest.raises(BlobCorrupt):
        copy(release, near, far, Cache(tmp_path / "other"))
    assert (far.uploaded, far.stored_references) == ([], [])
