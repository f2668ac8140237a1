"""A registry in memory, and functions for image manifests and digests."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable
from typing import IO, Any

from deploy.clients.oci.upload import OpenBlob
from deploy.errors import RegistryNotFound, RegistryRefused
from deploy.progress import Advance


def digest(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest(config: bytes, *layers: bytes) -> bytes:
    """Return an image manifest of a config and layers."""
    described = [
        {"mediaType": "application/octet-stream", "digest": digest(data), "size": len(data)}
        for data in (config, *layers)
    ]
    media_type = "application/vnd.oci.image.manifest.v1+json"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": described[0],
            "layers": described[1:],
        }
    ).encode()


class MemoryRegistry:
    """A registry in memory.

    Attributes:
        blobs: The blobs, by repository and digest.
        manifests: The image manifests, by repository and reference, a tag or a digest.
        uploaded: The repositories and digests of uploads, in order.
        mounted: The repositories and digests of mounts, in order.
        stored_references: The references of stored image manifests, in order.
    """

    def __init__(self, host: str = "registry.example") -> None:
        self.host = host
        self.blobs: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self.manifests: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self.uploaded: list[tuple[str, str]] = []
        self.mounted: list[tuple[str, str]] = []
        self.stored_references: list[str] = []

    def has_blob(self, repository: str, digest: str) -> bool:
        return digest in self.blobs[repository]

    def mount(self, repository: str, digest: str, source: str) -> bool:
        if digest not in self.blobs[source]:
            return False
        self.blobs[repository][digest] = self.blobs[source][digest]
        self.mounted.append((repository, digest))
        return True

    def upload(
        self, repository: str, digest: str, size: int, open_blob: OpenBlob, advance: Advance
    ) -> None:
        with open_blob() as file:
            data = file.read()
        advance(len(data))
        if self._digest(data) != digest or len(data) != size:
            raise RegistryRefused(
                "the digest is not that of the bytes", on=digest, next="send other bytes"
            )
        self.blobs[repository][digest] = data
        self.uploaded.append((repository, digest))

    def download(self, repository: str, digest: str) -> IO[bytes]:
        if digest not in self.blobs[repository]:
            raise RegistryNotFound("no such blob", on=f"{repository}@{digest}", next="push it")
        return io.BytesIO(self.blobs[repository][digest])

    def get_manifest(self, repository: str, reference: str) -> bytes | None:
        return self.manifests[repository].get(reference)

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        document = json.loads(data)
        missing = [
            item["digest"]
            for item in (document["config"], *document["layers"])
            if item["digest"] not in self.blobs[repository]
        ]
        if missing:
            raise RegistryRefused(
                f"the manifest names {len(missing)} blobs that are missing",
                on=missing[0],
                next="send them first",
            )
        self.manifests[repository][self._digest(data)] = data
        self.manifests[repository][reference] = data
        self.stored_references.append(reference)

    def _digest(self, data: bytes) -> str:
        return digest(data)


class Meanwhile:
    """A registry that does something else before its first use.

    Args:
        registry: The registry.
        happens: Called before the first use.
    """

    def __init__(self, registry: MemoryRegistry, happens: Callable[[], object]) -> None:
        self._registry = registry
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        happens = self._happens
        self._happens = lambda: None
        happens()
        return getattr(self._registry, name)
