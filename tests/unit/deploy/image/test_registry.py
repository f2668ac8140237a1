"""What a push sends and leaves, and how both streams are found again in a registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from deploy import progress
from deploy.cache import Cache
from deploy.clients.oci.bodies import Advance
from deploy.clients.oci.upload import OpenBlob
from deploy.errors import (
    BlobCorrupt,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
)
from deploy.image import registry
from deploy.image.build import create_app_image
from deploy.image.join import create_model_image, join_image
from deploy.image.manifest import parse_image_manifest
from deploy.records import Image, Release
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


# --- what is sent


def test_a_first_push_leaves_the_image_by_its_digest(remote: MemoryRegistry, cache: Cache) -> None:
    """With all that it names, and what is deployed is repository and digest."""
    made = joined(cache)
    release = push(made, remote, cache)
    assert release.reference == f"registry.example/{REPOSITORY}@{made.digest}"
    assert remote.manifest(REPOSITORY, made.digest) == cache.read(made.digest)
    assert named(cache.read(made.digest)) <= remote.blobs[REPOSITORY].keys()
    assert registry.has_release(release, remote)


def test_no_blob_is_sent_twice(remote: MemoryRegistry, cache: Cache) -> None:
    """Not within a push, though three manifests name the same layers, and not by the next push."""
    made = joined(cache)
    push(made, remote, cache)
    assert len(remote.sent) == len(set(remote.sent))
    remote.sent.clear()
    remote.put.clear()
    assert push(made, remote, cache).image == made
    assert not remote.sent
    assert not remote.put


def test_new_code_sends_no_byte_of_the_model(remote: MemoryRegistry, cache: Cache) -> None:
    """Not even the cache need hold the model."""
    push(joined(cache), remote, cache)
    remote.sent.clear()
    made = joined(cache, code=b"new code")
    cache.drop(made.layer.digest)
    push(made, remote, cache)
    sent = {name for _, name in remote.sent}
    _, layers, _ = parse_image_manifest(cache.read(made.digest))
    assert sent == {
        layers[-1].digest,
        made.config,
        parse_image_manifest(cache.read(made.app.manifest.digest))[0].digest,
    }


def test_a_new_model_sends_its_layer_and_json_alone(remote: MemoryRegistry, cache: Cache) -> None:
    """No layer of the app image moves."""
    push(joined(cache), remote, cache)
    remote.sent.clear()
    made = joined(cache, weights=b"new weights")
    push(made, remote, cache)
    alone = create_model_image(made.layer, MOUNT, cache)
    assert {name for _, name in remote.sent} == {
        digest(b"new weights"),
        made.config,
        parse_image_manifest(cache.read(alone.digest))[0].digest,
    }


def test_what_another_repository_holds_is_mounted(remote: MemoryRegistry, cache: Cache) -> None:
    """From the first that has it; nothing is sent."""
    made = joined(cache)
    push(made, remote, cache, repository="team/staging")
    remote.sent.clear()
    push(made, remote, cache, "team/empty", "team/staging")
    assert not remote.sent
    assert {name for _, name in remote.mounted} >= named(cache.read(made.digest))
    assert remote.manifest(REPOSITORY, made.digest) is not None


def test_what_is_there_is_not_mounted(remote: MemoryRegistry, cache: Cache) -> None:
    """Another repository is asked only for what this one lacks."""
    push(joined(cache), remote, cache, repository="team/staging")
    push(joined(cache), remote, cache)
    push(joined(cache, code=b"new code"), remote, cache, "team/staging")
    assert not remote.mounted


def test_the_progress_of_a_push_is_in_bytes_that_are_sent(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """The total is told before, and reached."""
    seen: list[tuple[str, int, list[int]]] = []

    class Display(progress.QuietDisplay):
        @contextmanager
        def track(self, label: str, total: int) -> Iterator[progress.Advance]:
            counts: list[int] = []
            seen.append((label, total, counts))
            yield counts.append

    with progress.use_display(Display()):
        push(joined(cache), remote, cache)
    ((label, total, counts),) = seen
    assert label == "pushing"
    assert total == sum(counts) == sum(map(len, remote.blobs[REPOSITORY].values()))


# --- what fails


class Failing(MemoryRegistry):
    """Fails when a blob of these digests is sent."""

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
    """What arrived before is kept."""
    made = joined(cache)
    remote = Failing(made.layer.digest)
    with pytest.raises(RegistryUnreachable):
        push(made, remote, cache)
    assert not remote.put
    before = set(remote.sent)
    remote.failing.clear()
    push(made, remote, cache)
    assert len(remote.sent) == len(set(remote.sent)) > len(before)
    assert remote.manifest(REPOSITORY, made.digest) is not None


def test_a_layer_that_is_nowhere_is_told(remote: MemoryRegistry, cache: Cache) -> None:
    """The error says how it is made anew; nothing can be pulled."""
    made = joined(cache)
    cache.drop(made.layer.digest)
    with pytest.raises(BlobCorrupt) as caught:
        push(made, remote, cache)
    assert caught.value.on == made.layer.digest
    assert "invoke release" in caught.value.next
    assert not remote.put


def test_a_layer_that_is_damaged_here_is_dropped_when_the_registry_refuses_it(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """Else every further run would send it and be refused again."""
    made = joined(cache)
    cache.path(made.layer.digest).write_bytes(WEIGHTS[::-1])
    with pytest.raises(BlobCorrupt) as caught:
        push(made, remote, cache)
    assert digest(WEIGHTS[::-1]) in caught.value.detail
    assert not cache.has(made.layer.digest, len(WEIGHTS))
    assert not remote.put


def test_a_layer_that_is_refused_though_it_is_sound_is_kept(cache: Cache) -> None:
    """It was not its fault."""

    class Full(MemoryRegistry):
        def upload(
            self, repository: str, digest: str, size: int, opened: OpenBlob, advance: Advance
        ) -> None:
            raise RegistryRefused("the registry answered 507", on=self.host, next="run again")

    made = joined(cache)
    with pytest.raises(RegistryRefused):
        push(made, Full(), cache)
    assert cache.has(made.layer.digest, len(WEIGHTS))


# --- what is found again


def test_an_app_image_is_found_by_its_inputs_on_another_machine(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """With all that a join needs, and nothing else is brought."""
    made = joined(cache)
    push(made, remote, cache)
    other = Cache(tmp_path / "other")
    found = registry.find_app("classifier", made.app.key, REPOSITORY, remote, other)
    assert found == made.app
    assert join_image(found, made.layer, MOUNT, other) == made
    assert not other.has(made.layer.digest, made.layer.size)


def test_an_app_image_of_changed_files_is_found_as_such(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """The mark of uncommitted files travels with it."""
    app = halves.app(cache)
    dirty = app.commit.model_copy(update={"dirty": True})
    parts = parse_image_manifest(cache.read(app.manifest.digest))
    app = create_app_image("classifier", "k2", dirty, parts[0], parts[1], cache)
    push(join_image(app, halves.model(cache), MOUNT, cache), remote, cache)
    assert registry.find_app("classifier", "k2", REPOSITORY, remote, cache) == app


def test_an_app_image_that_nobody_pushed_is_not_found(remote: MemoryRegistry, cache: Cache) -> None:
    """Nor one that somebody else has put under that tag."""
    assert registry.find_app("classifier", "k1", REPOSITORY, remote, cache) is None
    made = joined(cache)
    push(made, remote, cache)
    remote.manifests[REPOSITORY]["app-k1"] = cache.read(made.app.manifest.digest)
    assert registry.find_app("classifier", "k1", REPOSITORY, remote, cache) is None


def test_a_models_layer_is_found_by_the_model(remote: MemoryRegistry, cache: Cache) -> None:
    """Its bytes stay where they are."""
    made = joined(cache)
    assert registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote) is None
    push(made, remote, cache)
    assert registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote) == made.layer


def test_a_layer_for_another_mount_is_not_this_one(remote: MemoryRegistry, cache: Cache) -> None:
    """The same model elsewhere in the image is another layer."""
    made = joined(cache)
    push(made, remote, cache)
    assert registry.find_layer(made.layer.model, "/elsewhere", REPOSITORY, remote) is None


def test_a_layer_that_somebody_else_put_under_the_tag_is_not_found(
    remote: MemoryRegistry, cache: Cache
) -> None:
    """A manifest of another model, or without layers, is not taken."""
    made = joined(cache)
    other = joined(cache, weights=b"other")
    push(made, remote, cache)
    tag = registry.model_tag(other.layer.model)
    remote.manifests[REPOSITORY][tag] = remote.manifests[REPOSITORY][
        registry.model_tag(made.layer.model)
    ]
    assert registry.find_layer(other.layer.model, MOUNT, REPOSITORY, remote) is None
    document = json.loads(remote.manifests[REPOSITORY][registry.model_tag(made.layer.model)])
    remote.manifests[REPOSITORY][registry.model_tag(made.layer.model)] = json.dumps(
        {**document, "layers": []}
    ).encode()
    assert registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote) is None


def test_something_else_under_a_tag_is_told(remote: MemoryRegistry, cache: Cache) -> None:
    """A web page is no manifest."""
    made = joined(cache)
    remote.manifests[REPOSITORY] = {
        f"app-{made.app.key}": b"<html>",
        registry.model_tag(made.layer.model): b"<html>",
    }
    with pytest.raises(BlobCorrupt):
        registry.find_app("classifier", made.app.key, REPOSITORY, remote, cache)
    with pytest.raises(BlobCorrupt):
        registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote)


def test_a_release_that_was_cleaned_up_is_not_held(remote: MemoryRegistry, cache: Cache) -> None:
    """So that a rollback can say so before it begins."""
    release = push(joined(cache), remote, cache)
    remote.manifests[REPOSITORY].clear()
    assert not registry.has_release(release, remote)


class Away(MemoryRegistry):
    """Does not answer when it is asked for a manifest."""

    def manifest(self, repository: str, reference: str) -> bytes | None:
        raise RegistryUnreachable("the registry gave no answer", on=self.host, next="run again")


@pytest.mark.parametrize("cached", [True, False])
def test_a_release_is_as_large_as_its_layers(
    remote: MemoryRegistry, cache: Cache, tmp_path: Path, cached: bool
) -> None:
    """As they are sent over the wire; the cache is asked before the registry."""
    release = push(joined(cache), remote, cache)
    sent = [
        remote.blobs[REPOSITORY][layer.digest]
        for layer in parse_image_manifest(cache.read(release.image.digest))[1]
    ]
    found = (
        registry.pull_size(release, Away(), cache)
        if cached
        else registry.pull_size(release, remote, Cache(tmp_path / "other"))
    )
    assert found == sum(map(len, sent)) > len(WEIGHTS)


def cleaned_up(remote: MemoryRegistry, release: Release) -> MemoryRegistry:
    """A registry that has lost a release."""
    remote.manifests.clear()
    return remote


def lying(remote: MemoryRegistry, release: Release) -> MemoryRegistry:
    """A registry that has something else in its place."""
    remote.manifests[REPOSITORY][release.image.digest] = b"<html>"
    return remote


def away(remote: MemoryRegistry, release: Release) -> MemoryRegistry:
    """A registry that does not answer."""
    return Away()


@pytest.mark.parametrize("broken", [cleaned_up, lying, away])
def test_the_size_of_a_release_never_stops_anything(
    remote: MemoryRegistry,
    cache: Cache,
    tmp_path: Path,
    broken: Callable[[MemoryRegistry, Release], MemoryRegistry],
) -> None:
    """It is asked for to tell how long a pull may take, also when a release is taken back; the model's size is known anyway."""
    release = push(joined(cache), remote, cache)
    assert registry.pull_size(release, broken(remote, release), Cache(tmp_path / "other")) == len(
        WEIGHTS
    )


# --- what is copied


class Counting(MemoryRegistry):
    """Notes which blobs are read."""

    def __init__(self, host: str = "registry.example") -> None:
        super().__init__(host)
        self.read: list[str] = []

    def blob(self, repository: str, digest: str) -> IO[bytes]:
        self.read.append(digest)
        return super().blob(repository, digest)


@pytest.fixture
def near() -> Counting:
    """The registry that is copied from."""
    return Counting()


@pytest.fixture
def far() -> MemoryRegistry:
    """Another one."""
    return MemoryRegistry("far.example")


def copied(
    release: Release,
    near: MemoryRegistry,
    far: MemoryRegistry,
    cache: Cache,
    repository: str = "live/classifier",
) -> Release:
    """Copies a release."""
    return registry.copy(release, near, repository, far, cache, mount_path=MOUNT)


def test_a_copy_is_the_same_image_byte_for_byte(
    near: Counting, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """On a machine that has never seen it, under the same digest, with all that it names."""
    release = push(joined(cache), near, cache)
    copy = copied(release, near, far, Cache(tmp_path / "other"))
    assert (copy.image, copy.repository) == (release.image, "far.example/live/classifier")
    manifest = near.manifests[REPOSITORY][release.image.digest]
    assert far.manifests["live/classifier"][release.image.digest] == manifest
    assert {name: near.blobs[REPOSITORY][name] for name in named(manifest)}.items() <= far.blobs[
        "live/classifier"
    ].items()


def test_both_halves_of_a_copy_are_found_where_it_is(
    near: Counting, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """So that a release there builds and fetches nothing that was promoted before."""
    made = joined(cache)
    copied(push(made, near, cache), near, far, Cache(tmp_path / "other"))
    assert (
        registry.find_app(
            "classifier", made.app.key, "live/classifier", far, Cache(tmp_path / "third")
        )
        == made.app
    )
    assert registry.find_layer(made.layer.model, MOUNT, "live/classifier", far) == made.layer


def test_what_was_copied_is_not_copied_again(
    near: Counting, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """Nothing is sent, and from an empty cache nothing but JSON is read."""
    release = push(joined(cache), near, cache)
    copied(release, near, far, Cache(tmp_path / "other"))
    for noted in (far.sent, far.put, near.read):
        noted.clear()
    assert copied(release, near, far, Cache(tmp_path / "third")).image == release.image
    configs = {
        release.image.config,
        parse_image_manifest(cache.read(release.image.app.manifest.digest))[0].digest,
    }
    assert (far.sent, far.put, set(near.read)) == ([], [], configs)


def test_a_new_model_is_copied_alone(
    near: Counting, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """No layer of the code is read or sent, even by a machine that has none of them."""
    copied(push(joined(cache), near, cache), near, far, Cache(tmp_path / "other"))
    made = joined(cache, weights=b"new weights")
    release = push(made, near, cache)
    far.sent.clear()
    near.read.clear()
    copied(release, near, far, Cache(tmp_path / "third"))
    layers = {layer.digest for layer in parse_image_manifest(cache.read(made.digest))[1]}
    assert layers & {name for _, name in far.sent} == layers & set(near.read) == {made.layer.digest}


def test_what_the_cache_holds_is_not_read_from_the_registry(
    near: Counting, far: MemoryRegistry, cache: Cache
) -> None:
    """On the machine that made it."""
    copied(push(joined(cache), near, cache), near, far, cache)
    assert near.read == []


def test_a_copy_within_a_registry_moves_nothing(
    near: Counting, cache: Cache, tmp_path: Path
) -> None:
    """Its other repository takes the blobs over."""
    release = push(joined(cache), near, cache)
    near.sent.clear()
    copy = copied(release, near, near, Cache(tmp_path / "other"))
    assert copy.reference == f"registry.example/live/classifier@{release.image.digest}"
    assert near.sent == []
    assert {name for _, name in near.mounted} >= named(
        near.manifests["live/classifier"][release.image.digest]
    )
    assert release.image.layer.digest not in near.read


def test_what_is_where_it_shall_be_is_only_looked_at(
    near: Counting, cache: Cache, tmp_path: Path
) -> None:
    """Environments may share a repository."""
    release = push(joined(cache), near, cache)
    for noted in (near.sent, near.put):
        noted.clear()
    assert copied(release, near, near, Cache(tmp_path / "other"), REPOSITORY) == release
    assert (near.sent, near.mounted, near.put, near.read) == ([], [], [], [])


@pytest.mark.parametrize("repository", [REPOSITORY, "live/classifier"])
def test_a_release_that_was_cleaned_up_cannot_be_copied(
    near: Counting, cache: Cache, repository: str
) -> None:
    """Not even to where it was: what the registry does not have cannot serve elsewhere."""
    release = push(joined(cache), near, cache)
    near.manifests[REPOSITORY].pop(release.image.digest)
    with pytest.raises(RegistryNotFound) as caught:
        copied(release, near, near, cache, repository)
    assert caught.value.on == release.reference
    assert near.manifests["live/classifier"] == {}


def test_a_copy_that_breaks_off_leaves_no_manifest_and_the_next_sends_only_the_rest(
    near: Counting, cache: Cache, tmp_path: Path
) -> None:
    """What arrived before is kept."""
    release = push(joined(cache), near, cache)
    other = Cache(tmp_path / "other")
    far = Failing(release.image.layer.digest)
    far.host = "far.example"
    with pytest.raises(RegistryUnreachable):
        copied(release, near, far, other)
    assert far.put == []
    far.failing.clear()
    near.read.clear()
    copied(release, near, far, other)
    assert len(far.sent) == len(set(far.sent))
    assert near.read == []
    assert release.image.digest in far.manifests["live/classifier"]


def test_a_blob_that_is_damaged_where_it_is_copied_from_is_not_passed_on(
    near: Counting, far: MemoryRegistry, cache: Cache, tmp_path: Path
) -> None:
    """Nor anything that names it."""
    release = push(joined(cache), near, cache)
    near.blobs[REPOSITORY][release.image.layer.digest] = WEIGHTS[::-1]
    with pytest.raises(BlobCorrupt):
        copied(release, near, far, Cache(tmp_path / "other"))
    assert (far.sent, far.put) == ([], [])
