"""A registry of container images, as a protocol; `client.py` has the one over HTTP."""

from __future__ import annotations

from typing import IO, Protocol

from deploy.clients.oci.bodies import Advance
from deploy.clients.oci.upload import OpenBlob


class Registry(Protocol):
    """What a release needs of a registry. A thing that is not there gives None or False; not being able to ask is an error."""

    host: str

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository holds that blob."""

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Takes a blob over from another repository of this registry; False if that cannot be done."""

    def upload(
        self, repository: str, digest: str, size: int, opened: OpenBlob, advance: Advance
    ) -> None:
        """Sends a blob, going on where a broken connection left off if the registry can."""

    def download(self, repository: str, digest: str) -> IO[bytes]:
        """A blob's bytes as they arrive, going on where a broken connection left off; closed by the caller, and not checked here."""

    def get_manifest(self, repository: str, reference: str) -> bytes | None:
        """A manifest by tag or digest, checked if by digest."""

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        """Stores a manifest under a tag or its digest; the registry refuses it while a blob of it is missing."""
