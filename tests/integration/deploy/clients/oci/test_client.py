"""The client of registries, with a real registry."""

from __future__ import annotations

import secrets

import pytest

from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.protocol import Registry
from tests.contracts.registry import RegistryContract, send
from tests.fakes.registry import digest
from tests.integration.deploy.clients.oci.forwarder import run_forwarder

pytestmark = pytest.mark.integration

PART = 4096


class TestRealRegistry(RegistryContract):
    """A registry keeps the contract with whole blobs."""

    @pytest.fixture
    def registry(self, registry_host: str) -> Registry:
        """Return a client of this machine's registry."""
        return HttpRegistry(registry_host)


class TestRealRegistryInParts(RegistryContract):
    """A registry keeps the contract with chunks."""

    @pytest.fixture
    def registry(self, registry_host: str) -> Registry:
        """Return a client that sends small chunks."""
        return HttpRegistry(registry_host, chunk_size=PART)

    def test_a_blob_of_any_length_arrives(self, registry: Registry, repository: str) -> None:
        """The last chunk may be full, short, or a single byte."""
        for length in (PART, PART + 1, 2 * PART - 1, 2 * PART, 3 * PART + 7):
            assert send(registry, repository, bytes(length)) == length


def test_a_download_resumes_after_a_broken_connection(registry_host: str) -> None:
    """A registry sends the rest of a blob."""
    repository = f"test/{secrets.token_hex(8)}"
    data = secrets.token_bytes(16 << 20)
    send(HttpRegistry(registry_host), repository, data)
    host, _, port = registry_host.partition(":")
    with (
        run_forwarder((host, int(port))) as way,
        HttpRegistry(way.url.removeprefix("https://")).download(repository, digest(data)) as blob,
    ):
        start = blob.read(1 << 20)
        way.lose_response()
        rest = iter(lambda: blob.read(1 << 20), b"")
        assert b"".join((start, *rest)) == data


def test_a_registry_answers_to_a_ping(registry_host: str) -> None:
    """A ping is not an error."""
    HttpRegistry(registry_host).ping()
