"""An OCI registry over its HTTP API: small questions, and blobs that are streamed and resumed.

Source: OCI distribution specification 1.1, "Endpoints", "Pushing a blob in chunks", "Mounting a blob from another
repository".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol, cast
from urllib.parse import urljoin

from deploy.clients.oci_http import ATTEMPTS, OK, Advance, Conversation, Login, Part, pause
from deploy.errors import BlobCorrupt, RegistryDenied, RegistryError, RegistryUnreachable

if TYPE_CHECKING:
    import requests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ACCEPT = f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
_PART = 64 << 20
_MAX_MANIFEST = 4 << 20
_CREATED, _ACCEPTED = 201, 202

Opener = Callable[[], BinaryIO]


class Registry(Protocol):
    """What a release needs of a registry. A thing that is not there gives None or False; not being able to ask is an error."""

    host: str

    def has(self, repository: str, digest: str) -> bool:
        """Whether the repository holds that blob."""

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Takes a blob over from another repository of this registry; False if that cannot be done."""

    def upload(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
        """Sends a blob, going on where a broken connection left off if the registry can."""

    def blob(self, repository: str, digest: str) -> IO[bytes]:
        """A blob's bytes as they arrive, to be closed by the caller; they are not checked here."""

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """A manifest by tag or digest, checked if by digest."""

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        """Stores a manifest under a tag or its digest; the registry refuses it while a blob of it is missing."""


class HttpRegistry:
    """A registry at a host.

    Args:
        host: name or address, with its port if it is not the scheme's own; loopback hosts are asked over plain HTTP.
        login: credentials, or None for anonymous access.
    """

    def __init__(self, host: str, login: Login | None = None) -> None:
        self.host = host
        self._http = Conversation(host, login)

    def has(self, repository: str, digest: str) -> bool:
        return self._http.ask("HEAD", f"/v2/{repository}/blobs/{digest}", repository, expect=(OK, 404)).status_code == OK

    def mount(self, repository: str, digest: str, source: str) -> bool:
        path = f"/v2/{repository}/blobs/uploads/"
        answer = self._http.ask(
            "POST", path, repository, source=source, params={"mount": digest, "from": source}, expect=(_CREATED, _ACCEPTED, 401, 403, 404)
        )
        if answer.status_code == _ACCEPTED:
            self._http.ask("DELETE", self._location(answer), repository, expect=(200, 202, 204, 404, 405))
        return answer.status_code == _CREATED

    def upload(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
        if size <= _PART or not self._upload_in_parts(repository, digest, size, opened, advance):
            self._upload_at_once(repository, digest, size, opened, advance)

    def blob(self, repository: str, digest: str) -> IO[bytes]:
        answer = self._http.ask("GET", f"/v2/{repository}/blobs/{digest}", repository, stream=True)
        answer.raw.decode_content = False
        return cast("IO[bytes]", answer.raw)

    def manifest(self, repository: str, reference: str) -> bytes | None:
        path = f"/v2/{repository}/manifests/{reference}"
        with self._http.ask("GET", path, repository, headers={"Accept": _ACCEPT}, stream=True, expect=(OK, 404)) as answer:
            if answer.status_code != OK:
                return None
            data = bytes(answer.raw.read(_MAX_MANIFEST, decode_content=True))
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
        answer = self._http.ask("PUT", path, repository, data=data, headers={"Content-Type": MANIFEST}, expect=(OK, _CREATED, _ACCEPTED))
        self._same(answer, _digest(data), path)

    def ping(self) -> None:
        """Asks whether a registry answers at all.

        Raises:
            RegistryUnreachable: nothing there speaks the registry's API.
        """
        answer = self._http.once("GET", "/v2/", expect=(OK, 401, 403))
        if (
            "docker-distribution-api-version" not in answer.headers
            and answer.status_code == OK
            and answer.content.strip() not in (b"", b"{}")
        ):
            raise RegistryUnreachable(
                "something else answers where the registry should be", on=self.host, next="choose another port or host"
            )

    # --- uploads

    def _upload_at_once(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
        def send() -> requests.Response:
            with opened() as file:
                body = Part(file, 0, size, advance)
                try:
                    return self._http.once(
                        "PUT", self._begin(repository), repository, params={"digest": digest}, data=body, expect=(_CREATED,)
                    )
                except RegistryError:
                    advance(-body.sent)
                    raise

        self._same(self._http.patiently(send), digest, f"/v2/{repository}/blobs/{digest}")

    def _upload_in_parts(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> bool:
        """Sends in parts, each repeated from where the registry says it stopped; False if it does not take parts."""
        location, offset, failures = self._begin(repository), 0, 0
        while offset < size:
            length = min(_PART, size - offset)
            with opened() as file:
                part = Part(file, offset, length, advance)
                headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{offset + length - 1}"}
                try:
                    answer = self._http.once("PATCH", location, repository, data=part, headers=headers, expect=(_ACCEPTED, _CREATED, 204))
                    location, offset, failures = self._location(answer), offset + length, 0
                    continue
                except RegistryError as error:
                    advance(-part.sent)
                    failures += 1
                    if isinstance(error, RegistryDenied) or failures >= ATTEMPTS:
                        raise
                    if not error.transient:
                        advance(-offset)
                        return False
                    pause(failures, error.retry_after)
            there = self._held(location, repository)
            if there is None:
                advance(-offset)
                return False
            advance(there - offset)
            offset = there
        answer = self._http.ask("PUT", location, repository, params={"digest": digest}, expect=(_CREATED, _ACCEPTED, 204))
        self._same(answer, digest, f"/v2/{repository}/blobs/{digest}")
        return True

    def _held(self, location: str, repository: str) -> int | None:
        """How many bytes of an upload the registry has, or None if it will not say."""
        answer = self._http.ask("GET", location, repository, expect=(204, 404, 405, 416, 400))
        found = re.match(r"^(?:bytes=)?0-(\d+)$", answer.headers.get("Range", ""))
        if answer.status_code != 204 or not found:
            return None
        return int(found[1]) + 1 if int(found[1]) else 0

    def _begin(self, repository: str) -> str:
        return self._location(self._http.ask("POST", f"/v2/{repository}/blobs/uploads/", repository, expect=(_ACCEPTED,)))

    def _location(self, answer: requests.Response) -> str:
        return urljoin(answer.url, answer.headers["Location"])

    def _same(self, answer: requests.Response, digest: str, path: str) -> None:
        stored = answer.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise BlobCorrupt(
                "the registry says it stored other bytes than were sent",
                on=f"{self.host}{path}",
                next="run again; if it stays so, the registry or a proxy before it changes content",
                detail=f"  sent   {digest}\n  stored {stored}",
            )


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
