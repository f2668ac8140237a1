"""What a push sends and leaves, and how both streams are found again in a registry."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from deploy import progress
from deploy.cache import Blobs
from deploy.clients.oci.bodies import Advance
from deploy.clients.oci.upload import Opener
from deploy.errors import (
    BlobCorrupt,
    ManifestInvalid,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
)
from deploy.image import join as image
from deploy.image import registry
from deploy.records import Descriptor, Image, Release
from tests.fakes import halves
from tests.fakes.halves import CODE, MOUNT, WEIGHTS, digest
from tests.fakes.registry import MemoryRegistry

REPOSITORY = "team/classifier"


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty cache."""
    return Blobs(tmp_path / "cache")


@pytest.fixture
def remote() -> MemoryRegistry:
    """An empty registry."""
    return MemoryRegistry()


def joined(blobs: Blobs, code: bytes = CODE, weights: bytes = WEIGHTS) -> Image:
    """An image whose halves are in the cache."""
    return image.join(
        halves.app(blobs, code, key=code.hex()), halves.model(blobs, weights), MOUNT, blobs
    )


def push(
    made: Image, remote: MemoryRegistry, blobs: Blobs, *elsewhere: str, repository: str = REPOSITORY
) -> Release:
    """Pushes an image."""
    return registry.push(made, repository, remote, blobs, mount=MOUNT, elsewhere=elsewhere)


def named(manifest: bytes) -> set[str]:
    """The digests that a manifest names."""
    config, layers, _ = image.parts(manifest)
    return {config.digest, *(layer.digest for layer in layers)}


# --- what is sent


def test_a_first_push_leaves_the_image_by_its_digest(remote: MemoryRegistry, blobs: Blobs) -> None:
    """With all that it names, and what is deployed is repository and digest."""
    made = joined(blobs)
    release = push(made, remote, blobs)
    assert release.reference == f"registry.example/{REPOSITORY}@{made.digest}"
    assert remote.manifest(REPOSITORY, made.digest) == blobs.read(made.digest)
    assert named(blobs.read(made.digest)) <= remote.blobs[REPOSITORY].keys()
    assert registry.holds(release, remote)


def test_no_blob_is_sent_twice(remote: MemoryRegistry, blobs: Blobs) -> None:
    """Not within a push, though three manifests name the same layers, and not by the next push."""
    made = joined(blobs)
    push(made, remote, blobs)
    assert len(remote.sent) == len(set(remote.sent))
    remote.sent.clear()
    remote.put.clear()
    assert push(made, remote, blobs).image == made
    assert not remote.sent
    assert not remote.put


def test_new_code_sends_no_byte_of_the_model(remote: MemoryRegistry, blobs: Blobs) -> None:
    """Not even the cache need hold the model."""
    push(joined(blobs), remote, blobs)
    remote.sent.clear()
    made = joined(blobs, code=b"new code")
    blobs.drop(made.layer.digest)
    push(made, remote, blobs)
    sent = {name for _, name in remote.sent}
    _, layers, _ = image.parts(blobs.read(made.digest))
    assert sent == {
        layers[-1].digest,
        made.config,
        image.parts(blobs.read(made.app.manifest.digest))[0].digest,
    }


def test_a_new_model_sends_its_layer_and_json_alone(remote: MemoryRegistry, blobs: Blobs) -> None:
    """No layer of the app image moves."""
    push(joined(blobs), remote, blobs)
    remote.sent.clear()
    made = joined(blobs, weights=b"new weights")
    push(made, remote, blobs)
    alone = image.model_only(made.layer, MOUNT, blobs)
    assert {name for _, name in remote.sent} == {
        digest(b"new weights"),
        made.config,
        image.parts(blobs.read(alone.digest))[0].digest,
    }


def test_what_another_repository_holds_is_mounted(remote: MemoryRegistry, blobs: Blobs) -> None:
    """From the first that has it; nothing is sent."""
    made = joined(blobs)
    push(made, remote, blobs, repository="team/staging")
    remote.sent.clear()
    push(made, remote, blobs, "team/empty", "team/staging")
    assert not remote.sent
    assert {name for _, name in remote.mounted} >= named(blobs.read(made.digest))
    assert remote.manifest(REPOSITORY, made.digest) is not None


def test_what_is_there_is_not_mounted(remote: MemoryRegistry, blobs: Blobs) -> None:
    """Another repository is asked only for what this one lacks."""
    push(joined(blobs), remote, blobs, repository="team/staging")
    push(joined(blobs), remote, blobs)
    push(joined(blobs, code=b"new code"), remote, blobs, "team/staging")
    assert not remote.mounted


def test_the_progress_of_a_push_is_in_bytes_that_are_sent(
    remote: MemoryRegistry, blobs: Blobs
) -> None:
    """The total is told before, and reached."""
    seen: list[tuple[str, int, list[int]]] = []

    class Display(progress.Quiet):
        @contextmanager
        def track(self, label: str, total: int) -> Iterator[progress.Advance]:
            counts: list[int] = []
            seen.append((label, total, counts))
            yield counts.append

    with progress.shown_on(Display()):
        push(joined(blobs), remote, blobs)
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
        self, repository: str, digest: str, size: int, opened: Opener, advance: Advance
    ) -> None:
        if digest in self.failing:
            raise RegistryUnreachable("the registry gave no answer", on=self.host, next="run again")
        super().upload(repository, digest, size, opened, advance)


def test_a_push_that_fails_leaves_no_manifest_and_the_next_sends_only_the_rest(
    blobs: Blobs,
) -> None:
    """What arrived before is kept."""
    made = joined(blobs)
    remote = Failing(made.layer.digest)
    with pytest.raises(RegistryUnreachable):
        push(made, remote, blobs)
    assert not remote.put
    before = set(remote.sent)
    remote.failing.clear()
    push(made, remote, blobs)
    assert len(remote.sent) == len(set(remote.sent)) > len(before)
    assert remote.manifest(REPOSITORY, made.digest) is not None


def test_a_layer_that_is_nowhere_is_told(remote: MemoryRegistry, blobs: Blobs) -> None:
    """The error says how it is made anew; nothing can be pulled."""
    made = joined(blobs)
    blobs.drop(made.layer.digest)
    with pytest.raises(BlobCorrupt) as caught:
        push(made, remote, blobs)
    assert caught.value.on == made.layer.digest
    assert "invoke release" in caught.value.next
    assert not remote.put


def test_a_layer_that_is_damaged_here_is_dropped_when_the_registry_refuses_it(
    remote: MemoryRegistry, blobs: Blobs
) -> None:
    """Else every further run would send it and be refused again."""
    made = joined(blobs)
    blobs.path(made.layer.digest).write_bytes(WEIGHTS[::-1])
    with pytest.raises(BlobCorrupt) as caught:
        push(made, remote, blobs)
    assert digest(WEIGHTS[::-1]) in caught.value.detail
    assert not blobs.has(made.layer.digest, len(WEIGHTS))
    assert not remote.put


def test_a_layer_that_is_refused_though_it_is_sound_is_kept(blobs: Blobs) -> None:
    """It was not its fault."""

    class Full(MemoryRegistry):
        def upload(
            self, repository: str, digest: str, size: int, opened: Opener, advance: Advance
        ) -> None:
            raise RegistryRefused("the registry answered 507", on=self.host, next="run again")

    made = joined(blobs)
    with pytest.raises(RegistryRefused):
        push(made, Full(), blobs)
    assert blobs.has(made.layer.digest, len(WEIGHTS))


# --- what is found again


def test_an_app_image_is_found_by_its_inputs_on_another_machine(
    remote: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """With all that a join needs, and nothing else is brought."""
    made = joined(blobs)
    push(made, remote, blobs)
    other = Blobs(tmp_path / "other")
    found = registry.find_app("classifier", made.app.key, REPOSITORY, remote, other)
    assert found == made.app
    assert image.join(found, made.layer, MOUNT, other) == made
    assert not other.has(made.layer.digest, made.layer.size)


def test_an_app_image_of_changed_files_is_found_as_such(
    remote: MemoryRegistry, blobs: Blobs
) -> None:
    """The mark of uncommitted files travels with it."""
    app = halves.app(blobs)
    dirty = app.commit.model_copy(update={"dirty": True})
    parts = image.parts(blobs.read(app.manifest.digest))
    app = image.described("classifier", "k2", dirty, parts[0], parts[1], blobs)
    push(image.join(app, halves.model(blobs), MOUNT, blobs), remote, blobs)
    assert registry.find_app("classifier", "k2", REPOSITORY, remote, blobs) == app


def test_an_app_image_that_nobody_pushed_is_not_found(remote: MemoryRegistry, blobs: Blobs) -> None:
    """Nor one that somebody else has put under that tag."""
    assert registry.find_app("classifier", "k1", REPOSITORY, remote, blobs) is None
    made = joined(blobs)
    push(made, remote, blobs)
    remote.manifests[REPOSITORY]["app-k1"] = blobs.read(made.app.manifest.digest)
    assert registry.find_app("classifier", "k1", REPOSITORY, remote, blobs) is None


def test_a_models_layer_is_found_by_the_model(remote: MemoryRegistry, blobs: Blobs) -> None:
    """Its bytes stay where they are."""
    made = joined(blobs)
    assert registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote) is None
    push(made, remote, blobs)
    assert registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote) == made.layer


def test_a_layer_for_another_mount_is_not_this_one(remote: MemoryRegistry, blobs: Blobs) -> None:
    """The same model elsewhere in the image is another layer."""
    made = joined(blobs)
    push(made, remote, blobs)
    assert registry.find_layer(made.layer.model, "/elsewhere", REPOSITORY, remote) is None


def test_a_layer_that_somebody_else_put_under_the_tag_is_not_found(
    remote: MemoryRegistry, blobs: Blobs
) -> None:
    """A manifest of another model, or without layers, is not taken."""
    made = joined(blobs)
    other = joined(blobs, weights=b"other")
    push(made, remote, blobs)
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


def test_something_else_under_a_tag_is_told(remote: MemoryRegistry, blobs: Blobs) -> None:
    """A web page is no manifest."""
    made = joined(blobs)
    remote.manifests[REPOSITORY] = {
        f"app-{made.app.key}": b"<html>",
        registry.model_tag(made.layer.model): b"<html>",
    }
    with pytest.raises(BlobCorrupt):
        registry.find_app("classifier", made.app.key, REPOSITORY, remote, blobs)
    with pytest.raises(BlobCorrupt):
        registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote)


def test_a_release_that_was_cleaned_up_is_not_held(remote: MemoryRegistry, blobs: Blobs) -> None:
    """So that a rollback can say so before it begins."""
    release = push(joined(blobs), remote, blobs)
    remote.manifests[REPOSITORY].clear()
    assert not registry.holds(release, remote)


class Away(MemoryRegistry):
    """Does not answer when it is asked for a manifest."""

    def manifest(self, repository: str, reference: str) -> bytes | None:
        raise RegistryUnreachable("the registry gave no answer", on=self.host, next="run again")


@pytest.mark.parametrize("cached", [True, False])
def test_a_release_is_as_large_as_its_layers(
    remote: MemoryRegistry, blobs: Blobs, tmp_path: Path, cached: bool
) -> None:
    """As they are sent over the wire; the cache is asked before the registry."""
    release = push(joined(blobs), remote, blobs)
    sent = [
        remote.blobs[REPOSITORY][layer.digest]
        for layer in image.parts(blobs.read(release.image.digest))[1]
    ]
    found = (
        registry.size(release, Away(), blobs)
        if cached
        else registry.size(release, remote, Blobs(tmp_path / "other"))
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
    blobs: Blobs,
    tmp_path: Path,
    broken: Callable[[MemoryRegistry, Release], MemoryRegistry],
) -> None:
    """It is asked for to tell how long a pull may take, also when a release is taken back; the model's size is known anyway."""
    release = push(joined(blobs), remote, blobs)
    assert registry.size(release, broken(remote, release), Blobs(tmp_path / "other")) == len(
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
    blobs: Blobs,
    repository: str = "live/classifier",
) -> Release:
    """Copies a release."""
    return registry.copy(release, near, repository, far, blobs, mount=MOUNT)


def test_a_copy_is_the_same_image_byte_for_byte(
    near: Counting, far: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """On a machine that has never seen it, under the same digest, with all that it names."""
    release = push(joined(blobs), near, blobs)
    copy = copied(release, near, far, Blobs(tmp_path / "other"))
    assert (copy.image, copy.repository) == (release.image, "far.example/live/classifier")
    manifest = near.manifests[REPOSITORY][release.image.digest]
    assert far.manifests["live/classifier"][release.image.digest] == manifest
    assert {name: near.blobs[REPOSITORY][name] for name in named(manifest)}.items() <= far.blobs[
        "live/classifier"
    ].items()


def test_both_halves_of_a_copy_are_found_where_it_is(
    near: Counting, far: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """So that a release there builds and fetches nothing that was promoted before."""
    made = joined(blobs)
    copied(push(made, near, blobs), near, far, Blobs(tmp_path / "other"))
    assert (
        registry.find_app(
            "classifier", made.app.key, "live/classifier", far, Blobs(tmp_path / "third")
        )
        == made.app
    )
    assert registry.find_layer(made.layer.model, MOUNT, "live/classifier", far) == made.layer


def test_what_was_copied_is_not_copied_again(
    near: Counting, far: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """Nothing is sent, and from an empty cache nothing but JSON is read."""
    release = push(joined(blobs), near, blobs)
    copied(release, near, far, Blobs(tmp_path / "other"))
    for noted in (far.sent, far.put, near.read):
        noted.clear()
    assert copied(release, near, far, Blobs(tmp_path / "third")).image == release.image
    configs = {
        release.image.config,
        image.parts(blobs.read(release.image.app.manifest.digest))[0].digest,
    }
    assert (far.sent, far.put, set(near.read)) == ([], [], configs)


def test_a_new_model_is_copied_alone(
    near: Counting, far: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """No layer of the code is read or sent, even by a machine that has none of them."""
    copied(push(joined(blobs), near, blobs), near, far, Blobs(tmp_path / "other"))
    made = joined(blobs, weights=b"new weights")
    release = push(made, near, blobs)
    far.sent.clear()
    near.read.clear()
    copied(release, near, far, Blobs(tmp_path / "third"))
    layers = {layer.digest for layer in image.parts(blobs.read(made.digest))[1]}
    assert layers & {name for _, name in far.sent} == layers & set(near.read) == {made.layer.digest}


def test_what_the_cache_holds_is_not_read_from_the_registry(
    near: Counting, far: MemoryRegistry, blobs: Blobs
) -> None:
    """On the machine that made it."""
    copied(push(joined(blobs), near, blobs), near, far, blobs)
    assert near.read == []


def test_a_copy_within_a_registry_moves_nothing(
    near: Counting, blobs: Blobs, tmp_path: Path
) -> None:
    """Its other repository takes the blobs over."""
    release = push(joined(blobs), near, blobs)
    near.sent.clear()
    copy = copied(release, near, near, Blobs(tmp_path / "other"))
    assert copy.reference == f"registry.example/live/classifier@{release.image.digest}"
    assert near.sent == []
    assert {name for _, name in near.mounted} >= named(
        near.manifests["live/classifier"][release.image.digest]
    )
    assert release.image.layer.digest not in near.read


def test_what_is_where_it_shall_be_is_only_looked_at(
    near: Counting, blobs: Blobs, tmp_path: Path
) -> None:
    """Environments may share a repository."""
    release = push(joined(blobs), near, blobs)
    for noted in (near.sent, near.put):
        noted.clear()
    assert copied(release, near, near, Blobs(tmp_path / "other"), REPOSITORY) == release
    assert (near.sent, near.mounted, near.put, near.read) == ([], [], [], [])


@pytest.mark.parametrize("repository", [REPOSITORY, "live/classifier"])
def test_a_release_that_was_cleaned_up_cannot_be_copied(
    near: Counting, blobs: Blobs, repository: str
) -> None:
    """Not even to where it was: what the registry does not have cannot serve elsewhere."""
    release = push(joined(blobs), near, blobs)
    near.manifests[REPOSITORY].pop(release.image.digest)
    with pytest.raises(RegistryNotFound) as caught:
        copied(release, near, near, blobs, repository)
    assert caught.value.on == release.reference
    assert near.manifests["live/classifier"] == {}


def test_a_copy_that_breaks_off_leaves_no_manifest_and_the_next_sends_only_the_rest(
    near: Counting, blobs: Blobs, tmp_path: Path
) -> None:
    """What arrived before is kept."""
    release = push(joined(blobs), near, blobs)
    other = Blobs(tmp_path / "other")
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
    near: Counting, far: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """Nor anything that names it."""
    release = push(joined(blobs), near, blobs)
    near.blobs[REPOSITORY][release.image.layer.digest] = WEIGHTS[::-1]
    with pytest.raises(BlobCorrupt):
        copied(release, near, far, Blobs(tmp_path / "other"))
    assert (far.sent, far.put) == ([], [])


# --- what is brought


def test_a_blob_is_brought_once(remote: MemoryRegistry, blobs: Blobs, tmp_path: Path) -> None:
    """And checked."""
    made = joined(blobs)
    push(made, remote, blobs)
    other = Blobs(tmp_path / "other")
    item = Descriptor(media_type="", digest=made.layer.digest, size=made.layer.size)
    registry.bring(item, REPOSITORY, remote, other)
    assert other.read(item.digest) == WEIGHTS
    remote.blobs.clear()
    registry.bring(item, REPOSITORY, remote, other)


@pytest.mark.parametrize("lie", [b"", WEIGHTS[::-1], WEIGHTS[:-1], WEIGHTS + b"x", bytes(5 << 20)])
def test_other_bytes_than_were_asked_for_are_refused(
    remote: MemoryRegistry, blobs: Blobs, lie: bytes
) -> None:
    """Both digests are shown, and nothing is kept."""
    remote.blobs[REPOSITORY][digest(WEIGHTS)] = lie
    with pytest.raises(BlobCorrupt) as caught:
        registry.bring(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=len(WEIGHTS)),
            REPOSITORY,
            remote,
            blobs,
        )
    assert digest(WEIGHTS) in caught.value.detail
    assert not blobs.path(digest(WEIGHTS)).exists()
    assert not list(blobs.temporary.iterdir())


def test_a_lie_of_any_length_is_not_read_to_its_end(blobs: Blobs) -> None:
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
        registry.bring(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=2 << 20),
            REPOSITORY,
            Lying(),
            blobs,
        )


def test_a_blob_that_the_registry_lacks_is_told(remote: MemoryRegistry, blobs: Blobs) -> None:
    """Nothing is left in the cache."""
    with pytest.raises(RegistryNotFound):
        registry.bring(
            Descriptor(media_type="", digest=digest(WEIGHTS), size=7), REPOSITORY, remote, blobs
        )
    assert not list(blobs.temporary.iterdir())


def test_an_app_image_is_brought_for_a_join(
    remote: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """From the registry by its digest, or not at all."""
    made = joined(blobs)
    push(made, remote, blobs)
    other = Blobs(tmp_path / "other")
    registry.bring_app(made.app, REPOSITORY, remote, other)
    assert image.join(made.app, made.layer, MOUNT, other) == made
    remote.manifests.clear()
    with pytest.raises(BlobCorrupt, match="app image"):
        registry.bring_app(made.app, REPOSITORY, remote, Blobs(tmp_path / "third"))


# --- the proof of a model


def test_golden_cases_are_read_from_the_cache_or_the_registry(
    remote: MemoryRegistry, blobs: Blobs, tmp_path: Path
) -> None:
    """What is in neither is told."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    layer = halves.model(blobs, packed.getvalue())
    remote.blobs[REPOSITORY][layer.digest] = packed.getvalue()
    for cache in (blobs, Blobs(tmp_path / "other")):
        with pytest.raises(ManifestInvalid):
            registry.proof(layer, REPOSITORY, remote, cache)
    remote.blobs.clear()
    with pytest.raises(RegistryNotFound):
        registry.proof(layer, REPOSITORY, remote, Blobs(tmp_path / "third"))
