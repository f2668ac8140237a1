"""What every image registry does, whatever it is made of."""

from __future__ import annotations

import io
import secrets
from functools import partial

import pytest

from deploy.clients.oci.protocol import Registry
from deploy.errors import RegistryNotFound, RegistryRefused
from tests.fakes.registry import digest, manifest

CONFIG = b'{"architecture": "amd64"}'
LAYER = bytes(range(256)) * 40


def send(registry: Registry, repository: str, *blobs: bytes) -> int:
    """Upload blobs; return the number of bytes that were reported as sent."""
    counts: list[int] = []
    for data in blobs:
        registry.upload(
            repository, digest(data), len(data), partial(io.BytesIO, data), counts.append
        )
    return sum(counts)


class RegistryContract:
    """The contract of registries. Subclasses give the fixture `registry`."""

    @pytest.fixture
    def registry(self) -> Registry:
        """Return a registry."""
        raise NotImplementedError

    @pytest.fixture
    def repository(self) -> str:
        """Return a repository of this test alone."""
        return f"test/{secrets.token_hex(8)}"

    def test_a_blob_that_was_never_pushed_is_missing(
        self, registry: Registry, repository: str
    ) -> None:
        """A missing blob or manifest can be looked up; reading a missing blob is an error."""
        assert not registry.has_blob(repository, digest(LAYER))
        assert registry.get_manifest(repository, "latest") is None
        assert registry.get_manifest(repository, digest(b"{}")) is None
        with pytest.raises(RegistryNotFound):
            registry.download(repository, digest(LAYER))

    def test_an_uploaded_blob_comes_back_as_it_was(
        self, registry: Registry, repository: str
    ) -> None:
        """The bytes can be read more than once, and all of them are reported as sent."""
        assert send(registry, repository, LAYER) == len(LAYER)
        assert registry.has_blob(repository, digest(LAYER))
        for _ in range(2):
            with registry.download(repository, digest(LAYER)) as blob:
                assert blob.read(10) + blob.read() == LAYER

    def test_a_blob_can_be_sent_again(self, registry: Registry, repository: str) -> None:
        """A second upload of the same bytes is not an error."""
        send(registry, repository, LAYER, LAYER)
        assert registry.has_blob(repository, digest(LAYER))

    def test_bytes_of_another_digest_are_refused(self, registry: Registry, repository: str) -> None:
        """They are not stored under either digest."""
        with pytest.raises(RegistryRefused):
            registry.upload(
                repository, digest(LAYER), len(CONFIG), lambda: io.BytesIO(CONFIG), lambda _: None
            )
        assert not registry.has_blob(repository, digest(LAYER))
        assert not registry.has_blob(repository, digest(CONFIG))

    def test_a_blob_belongs_to_its_repository(self, registry: Registry, repository: str) -> None:
        """Another repository has it only after a mount."""
        send(registry, repository, LAYER)
        other = f"{repository}-other"
        assert not registry.has_blob(other, digest(LAYER))
        assert registry.mount(other, digest(LAYER), repository)
        assert registry.has_blob(other, digest(LAYER))
        with registry.download(other, digest(LAYER)) as blob:
            assert blob.read() == LAYER

    def test_what_a_repository_lacks_cannot_be_mounted_from_it(
        self, registry: Registry, repository: str
    ) -> None:
        """The mount returns whether it worked, and a failed one leaves nothing behind."""
        send(registry, f"{repository}-other", CONFIG)
        assert not registry.mount(repository, digest(LAYER), f"{repository}-other")
        assert not registry.mount(repository, digest(LAYER), f"{repository}-absent")
        assert not registry.has_blob(repository, digest(LAYER))

    def test_a_manifest_is_found_by_tag_and_by_digest(
        self, registry: Registry, repository: str
    ) -> None:
        """Both names give exactly the stored bytes."""
        send(registry, repository, CONFIG, LAYER)
        data = manifest(CONFIG, LAYER)
        registry.put_manifest(repository, "one", data)
        assert registry.get_manifest(repository, "one") == data
        assert registry.get_manifest(repository, digest(data)) == data
        assert registry.get_manifest(f"{repository}-other", "one") is None

    def test_a_manifest_is_refused_while_a_blob_of_it_is_missing(
        self, registry: Registry, repository: str
    ) -> None:
        """Neither its tag nor its digest exists before all its blobs."""
        data = manifest(CONFIG, LAYER)
        for sent in (LAYER, CONFIG):
            with pytest.raises(RegistryRefused):
                registry.put_manifest(repository, "one", data)
            assert registry.get_manifest(repository, "one") is None
            assert registry.get_manifest(repository, digest(data)) is None
            send(registry, repository, sent)
        registry.put_manifest(repository, "one", data)
        assert registry.get_manifest(repository, "one") == data

    def test_a_tag_leads_to_what_was_put_last(self, registry: Registry, repository: str) -> None:
        """A manifest without a tag is still found by its digest."""
        send(registry, repository, CONFIG, LAYER)
        first = manifest(CONFIG, LAYER)
        second = manifest(CONFIG)
        for data in (first, second):
            registry.put_manifest(repository, "moving", data)
        assert registry.get_manifest(repository, "moving") == second
        assert registry.get_manifest(repository, digest(first)) == first

    def test_a_manifest_can_be_put_under_its_digest(
        self, registry: Registry, repository: str
    ) -> None:
        """It needs no tag."""
        send(registry, repository, CONFIG)
        data = manifest(CONFIG)
        registry.put_manifest(repository, digest(data), data)
        assert registry.get_manifest(repository, digest(data)) == data
