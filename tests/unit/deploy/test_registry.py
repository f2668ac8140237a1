"""What a push sends and leaves, and how both streams are found again in a registry."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from deploy import image, progress, registry
from deploy.blobs import Blobs
from deploy.clients.oci_bodies import Advance
from deploy.clients.oci_upload import Opener
from deploy.errors import BlobCorrupt, ManifestInvalid, RegistryNotFound, RegistryRefused, RegistryUnreachable
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
    return image.join(halves.app(blobs, code, key=code.hex()), halves.model(blobs, weights), MOUNT, blobs)


def push(made: Image, remote: MemoryRegistry, blobs: Blobs, *elsewhere: str, repository: str = REPOSITORY) -> Release:
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
    assert sent == {layers[-1].digest, made.config, image.parts(blobs.read(made.app.manifest.digest))[0].digest}


def test_a_new_model_sends_its_layer_and_json_alone(remote: MemoryRegistry, blobs: Blobs) -> None:
    """No layer of the app image moves."""
    push(joined(blobs), remote, blobs)
    remote.sent.clear()
    made = joined(blobs, weights=b"new weights")
    push(made, remote, blobs)
    alone = image.model_only(made.layer, MOUNT, blobs)
    assert {name for _, name in remote.sent} == {digest(b"new weights"), made.config, image.parts(blobs.read(alone.digest))[0].digest}


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


def test_the_progress_of_a_push_is_in_bytes_that_are_sent(remote: MemoryRegistry, blobs: Blobs) -> None:
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

    def upload(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
        if digest in self.failing:
            raise RegistryUnreachable("the registry gave no answer", on=self.host, next="run again")
        super().upload(repository, digest, size, opened, advance)


def test_a_push_that_fails_leaves_no_manifest_and_the_next_sends_only_the_rest(blobs: Blobs) -> None:
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


def test_a_layer_that_is_damaged_here_is_dropped_when_the_registry_refuses_it(remote: MemoryRegistry, blobs: Blobs) -> None:
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
        def upload(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
            raise RegistryRefused("the registry answered 507", on=self.host, next="run again")

    made = joined(blobs)
    with pytest.raises(RegistryRefused):
        push(made, Full(), blobs)
    assert blobs.has(made.layer.digest, len(WEIGHTS))


# --- what is found again


def test_an_app_image_is_found_by_its_inputs_on_another_machine(remote: MemoryRegistry, blobs: Blobs, tmp_path: Path) -> None:
    """With all that a join needs, and nothing else is brought."""
    made = joined(blobs)
    push(made, remote, blobs)
    other = Blobs(tmp_path / "other")
    found = registry.find_app("classifier", made.app.key, REPOSITORY, remote, other)
    assert found == made.app
    assert image.join(found, made.layer, MOUNT, other) == made
    assert not other.has(made.layer.digest, made.layer.size)


def test_an_app_image_of_changed_files_is_found_as_such(remote: MemoryRegistry, blobs: Blobs) -> None:
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


def test_a_layer_that_somebody_else_put_under_the_tag_is_not_found(remote: MemoryRegistry, blobs: Blobs) -> None:
    """A manifest of another model, or without layers, is not taken."""
    made, other = joined(blobs), joined(blobs, weights=b"other")
    push(made, remote, blobs)
    tag = registry.model_tag(other.layer.model)
    remote.manifests[REPOSITORY][tag] = remote.manifests[REPOSITORY][registry.model_tag(made.layer.model)]
    assert registry.find_layer(other.layer.model, MOUNT, REPOSITORY, remote) is None
    document = json.loads(remote.manifests[REPOSITORY][registry.model_tag(made.layer.model)])
    remote.manifests[REPOSITORY][registry.model_tag(made.layer.model)] = json.dumps({**document, "layers": []}).encode()
    assert registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote) is None


def test_something_else_under_a_tag_is_told(remote: MemoryRegistry, blobs: Blobs) -> None:
    """A web page is no manifest."""
    made = joined(blobs)
    remote.manifests[REPOSITORY] = {f"app-{made.app.key}": b"<html>", registry.model_tag(made.layer.model): b"<html>"}
    with pytest.raises(BlobCorrupt):
        registry.find_app("classifier", made.app.key, REPOSITORY, remote, blobs)
    with pytest.raises(BlobCorrupt):
        registry.find_layer(made.layer.model, MOUNT, REPOSITORY, remote)


def test_a_release_that_was_cleaned_up_is_not_held(remote: MemoryRegistry, blobs: Blobs) -> None:
    """So that a rollback can say so before it begins."""
    release = push(joined(blobs), remote, blobs)
    remote.manifests[REPOSITORY].clear()
    assert not registry.holds(release, remote)


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
def test_other_bytes_than_were_asked_for_are_refused(remote: MemoryRegistry, blobs: Blobs, lie: bytes) -> None:
    """Both digests are shown, and nothing is kept."""
    remote.blobs[REPOSITORY][digest(WEIGHTS)] = lie
    with pytest.raises(BlobCorrupt) as caught:
        registry.bring(Descriptor(media_type="", digest=digest(WEIGHTS), size=len(WEIGHTS)), REPOSITORY, remote, blobs)
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
        registry.bring(Descriptor(media_type="", digest=digest(WEIGHTS), size=2 << 20), REPOSITORY, Lying(), blobs)


def test_a_blob_that_the_registry_lacks_is_told(remote: MemoryRegistry, blobs: Blobs) -> None:
    """Nothing is left in the cache."""
    with pytest.raises(RegistryNotFound):
        registry.bring(Descriptor(media_type="", digest=digest(WEIGHTS), size=7), REPOSITORY, remote, blobs)
    assert not list(blobs.temporary.iterdir())


def test_an_app_image_is_brought_for_a_join(remote: MemoryRegistry, blobs: Blobs, tmp_path: Path) -> None:
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


def test_golden_cases_are_read_from_the_cache_or_the_registry(remote: MemoryRegistry, blobs: Blobs, tmp_path: Path) -> None:
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
