"""A registry of container images, as a protocol; `client.py` implements it over HTTP."""

from __future__ import annotations

from typing import IO, Protocol

from deploy.clients.oci.upload import OpenBlob
from deploy.progress import Advance


class Registry(Protocol):
    """A registry. A missing object gives None or False; a failed request is an error."""

    host: str

    def has_blob(self, repository: str, digest: str) -> bool:
        """Return whether the repository has that blob."""

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Copy a blob from another repository of this registry; return whether that worked."""

    def upload(
        self, repository: str, digest: str, size: int, open_blob: OpenBlob, advance: Advance
    ) -> None:
        """Upload a blob; resume after a broken connection if the registry supports that."""

    def download(self, repository: str, digest: str) -> IO[bytes]:
        """Return a blob's bytes as a file; resume after a broken connection.

        The caller closes the file and verifies the digest.
        """

    def get_manifest(self, repository: str, reference: str) -> bytes | None:
        """Return an image manifest by tag, or by digest, which is verified."""

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        """Store an image manifest under a tag or its digest, after all its blobs."""
