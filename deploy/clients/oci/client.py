"""An OCI registry over its HTTP API: small questions, and blobs that are streamed and resumed.

Source: OCI distribution specification 1.1, "Endpoints", "Mounting a blob from another repository".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, cast

from deploy.clients.oci.bodies import Advance
from deploy.clients.oci.download import Download
from deploy.clients.oci.http import OK, Login, RegistryHttp, RetryPolicy
from deploy.clients.oci.upload import BlobSource, OpenBlob, Upload
from deploy.errors import (
    BlobCorrupt,
    RegistryDenied,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)

if TYPE_CHECKING:
    import requests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ACCEPT = f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
_PART = 64 << 20
_MAX_MANIFEST = 4 << 20
_CREATED = 201
_ACCEPTED = 202


class HttpRegistry:
    """A registry at a host.

    Args:
        host: name or address, with its port if it is not the scheme's own; loopback hosts are asked over plain HTTP.
        login: gives credentials, or None for anonymous access; asked when the registry wants some.
        part: blobs above that many bytes are sent in parts of that size.
        patience: how long it is waited for.
    """

    def __init__(
        self,
        host: str,
        login: Callable[[], Login | None] = lambda: None,
        *,
        part: int = _PART,
        patience: RetryPolicy | None = None,
    ) -> None:
        self.host = host
        self._part = part
        self._http = RegistryHttp(host, login, patience or RetryPolicy())

    def has_blob(self, repository: str, digest: str) -> bool:
        return (
            self._http.send(
                "HEAD", f"/v2/{repository}/blobs/{digest}", repository, expect=(OK, 404)
            ).status_code
            == OK
        )

    def mount(self, repository: str, digest: str, source: str) -> bool:
        path = f"/v2/{repository}/blobs/uploads/"
        params = {"mount": digest, "from": source}
        try:
            answer = self._http.send(
                "POST",
                path,
                repository,
                source=source,
                params=params,
                expect=(_CREATED, _ACCEPTED, 404, 405),
            )
        except RegistryDenied:
            # Who may not read there may still push here; if not, the upload says so.
            return False
        if answer.status_code == _ACCEPTED:
            # The registry has begun an upload instead. Not everybody may cancel one, and it expires by itself.
            with suppress(RegistryError):
                self._http.send_once(
                    "DELETE", self._http.upload_url(answer), repository, expect=(OK, _ACCEPTED, 204)
                )
        return answer.status_code == _CREATED

    def upload(
        self, repository: str, digest: str, size: int, opened: OpenBlob, advance: Advance
    ) -> None:
        stored = Upload(
            self._http, BlobSource(repository, digest, size, opened), self._part, advance
        ).send()
        self._same(stored, digest, f"/v2/{repository}/blobs/{digest}")

    def download(self, repository: str, digest: str) -> IO[bytes]:
        path = f"/v2/{repository}/blobs/{digest}"
        answer = self._http.send("GET", path, repository, stream=True)
        return cast(
            "IO[bytes]", Download(self._http, path, repository, self._http.stream_body(answer))
        )

    def get_manifest(self, repository: str, reference: str) -> bytes | None:
        path = f"/v2/{repository}/manifests/{reference}"

        def read() -> bytes | None:
            with self._http.send_once(
                "GET", path, repository, headers={"Accept": _ACCEPT}, stream=True, expect=(OK, 404)
            ) as answer:
                return (
                    self._http.read_body(answer, _MAX_MANIFEST + 1)
                    if answer.status_code == OK
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
                "the registry answered with another manifest than was asked for",
                on=f"{self.host}{path}",
                next="the registry's storage is damaged or it lies; push the release again, or use another registry",
                detail=f"  expected {reference}\n  actual   {_digest(data)}",
            )
        return data

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        path = f"/v2/{repository}/manifests/{reference}"
        answer = self._http.send(
            "PUT",
            path,
            repository,
            data=data,
            headers={"Content-Type": MANIFEST},
            expect=(OK, _CREATED, _ACCEPTED),
        )
        self._same(_stored(answer, _digest(data)), _digest(data), path)

    def ping(self) -> None:
        """Asks whether a registry answers at all.

        Raises:
            RegistryUnreachable: nothing there speaks the registry's API.
        """
        answer = self._http.send_once("GET", "/v2/", expect=(OK, 401, 403))
        if (
            "docker-distribution-api-version" not in answer.headers
            and answer.status_code == OK
            and answer.content.strip() not in (b"", b"{}")
        ):
            raise RegistryUnreachable(
                "something else answers where the registry should be",
                on=self.host,
                next="choose another port or host",
            )

    def _same(self, stored: str, digest: str, path: str) -> None:
        if stored != digest:
            raise BlobCorrupt(
                "the registry says it stored other bytes than were sent",
                on=f"{self.host}{path}",
                next="run again; if it stays so, the registry or a proxy before it changes content",
                detail=f"  sent   {digest}\n  stored {stored}",
            )


def _stored(answer: requests.Response, digest: str) -> str:
    """What the registry says it stored; not every one does."""
    return str(answer.headers.get("Docker-Content-Digest", digest))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
