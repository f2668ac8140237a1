"""An OCI registry over its HTTP API; uploads and downloads resume after broken connections.

Source: OCI distribution specification 1.1, "Endpoints", "Mounting a blob from another repository".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import IO, cast

from deploy.clients.oci.credentials import Login
from deploy.clients.oci.download import Download
from deploy.clients.oci.http import OK, RegistryHttp, RetryPolicy
from deploy.clients.oci.responses import stored_digest
from deploy.clients.oci.upload import BlobSource, OpenBlob, Upload
from deploy.errors import (
    BlobCorrupt,
    RegistryDenied,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from deploy.progress import Advance

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ACCEPT = f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
_CHUNK = 64 << 20
_MAX_MANIFEST = 4 << 20
_CREATED = 201
_ACCEPTED = 202


class HttpRegistry:
    """A registry at a host.

    Args:
        host: A name or address, with its port if that is not the scheme's own. Loopback hosts use
            plain HTTP.
        find_login: Returns credentials, or None for anonymous access. It is called when the
            registry requires a login.
        chunk_size: The size in bytes of the chunks of a larger blob.
        retry_policy: The timeouts and pauses.
    """

    def __init__(
        self,
        host: str,
        find_login: Callable[[], Login | None] = lambda: None,
        *,
        chunk_size: int = _CHUNK,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self.host = host
        self._chunk_size = chunk_size
        self._http = RegistryHttp(host, find_login, retry_policy or RetryPolicy())

    def has_blob(self, repository: str, digest: str) -> bool:
        return self._http.has_blob(repository, digest)

    def mount(self, repository: str, digest: str, source: str) -> bool:
        path = f"/v2/{repository}/blobs/uploads/"
        params = {"mount": digest, "from": source}
        try:
            response = self._http.send(
                "POST",
                path,
                repository,
                source=source,
                params=params,
                expect=(_CREATED, _ACCEPTED, 404, 405),
            )
        except RegistryDenied:
            # This account may not read there, but it may still push here.
            return False
        if response.status_code == _ACCEPTED:
            # The registry has started an upload instead. One that cannot be cancelled expires.
            with suppress(RegistryError):
                self._http.send_once(
                    "DELETE",
                    self._http.upload_url(response),
                    repository,
                    expect=(OK, _ACCEPTED, 204),
                )
        return response.status_code == _CREATED

    def upload(
        self, repository: str, digest: str, size: int, open_blob: OpenBlob, advance: Advance
    ) -> None:
        source = BlobSource(repository, digest, size, open_blob)
        stored = Upload(self._http, source, self._chunk_size, advance).send()
        self._check_stored(stored, digest, f"/v2/{repository}/blobs/{digest}")

    def download(self, repository: str, digest: str) -> IO[bytes]:
        path = f"/v2/{repository}/blobs/{digest}"
        response = self._http.send("GET", path, repository, stream=True)
        return cast(
            "IO[bytes]", Download(self._http, path, repository, self._http.stream_body(response))
        )

    def get_manifest(self, repository: str, reference: str) -> bytes | None:
        path = f"/v2/{repository}/manifests/{reference}"

        def read() -> bytes | None:
            with self._http.send_once(
                "GET", path, repository, headers={"Accept": _ACCEPT}, stream=True, expect=(OK, 404)
            ) as response:
                return (
                    self._http.read_body(response, _MAX_MANIFEST + 1)
                    if response.status_code == OK
                    else None
                )

        data = self._http.retry(read)
        if data is None:
            return None
        if len(data) > _MAX_MANIFEST:
            raise RegistryRefused(
                "the registry answered with a manifest of more than 4 MB",
                on=f"{self.host}{path}",
                next="push the release again",
            )
        if reference.startswith("sha256:") and _digest(data) != reference:
            raise BlobCorrupt(
                "the registry answered with another manifest than the requested one",
                on=f"{self.host}{path}",
                next="the registry's storage is damaged; push the release again, "
                "or use another registry",
                detail=f"  expected {reference}\n  actual   {_digest(data)}",
            )
        return data

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        path = f"/v2/{repository}/manifests/{reference}"
        response = self._http.send(
            "PUT",
            path,
            repository,
            data=data,
            headers={"Content-Type": MANIFEST},
            expect=(OK, _CREATED, _ACCEPTED),
        )
        self._check_stored(stored_digest(response, _digest(data)), _digest(data), path)

    def ping(self) -> None:
        """Check that a registry answers; one that requires a login does.

        Raises:
            RegistryUnreachable: No registry answers at the host.
        """
        response = self._http.send_once("GET", "/v2/", expect=(OK, 401, 403), anonymous=True)
        if (
            "docker-distribution-api-version" not in response.headers
            and response.status_code == OK
            and response.content.strip() not in (b"", b"{}")
        ):
            raise RegistryUnreachable(
                "another server answers in place of the registry",
                on=self.host,
                next="choose another port or host",
            )

    def _check_stored(self, stored: str, digest: str, path: str) -> None:
        if stored != digest:
            raise BlobCorrupt(
                "the registry stored other bytes than were sent",
                on=f"{self.host}{path}",
                next="run again; if it fails again, the registry or its proxy changes content",
                detail=f"  sent   {digest}\n  stored {stored}",
            )


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
