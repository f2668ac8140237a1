"""Sending one blob: in parts that go on where a broken connection left off, or at once where a registry takes no parts.

Source: OCI distribution specification 1.1, "Pushing a blob in chunks" and "POST then PUT".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from deploy.clients.oci.bodies import Advance, FileChunk
from deploy.clients.oci.http import ATTEMPTS, OK, RegistryHttp
from deploy.errors import RegistryDenied, RegistryError, RegistryNotFound

if TYPE_CHECKING:
    import requests

_CREATED = 201
_ACCEPTED = 202
_NO_CONTENT = 204

OpenBlob = Callable[[], BinaryIO]


@dataclass(frozen=True)
class BlobSource:
    """What is sent where: `opened` gives its bytes from the start, each time anew."""

    repository: str
    digest: str
    size: int
    open: OpenBlob


class Upload:
    """One blob on its way.

    Args:
        http: the registry.
        blob: what is sent where.
        part: the largest number of bytes sent in one request, as long as the registry takes parts.
        advance: is told how many bytes were sent; a negative number takes back what did not arrive.
    """

    def __init__(self, http: RegistryHttp, blob: BlobSource, part: int, advance: Advance) -> None:
        self._http = http
        self._blob = blob
        self._part = part
        self._advance = advance
        self._location = ""
        self._offset = self._furthest = self._failures = 0

    def send(self) -> str:
        """Sends the blob; returns the digest under which the registry says it stored it.

        Raises:
            RegistryError: as its kinds say, after retries.
        """
        stored = self._in_parts() if self._blob.size > self._part else None
        return stored or self._at_once()

    def _in_parts(self) -> str | None:
        """Sends part by part; None if the registry does not take parts."""
        self._begin()
        while True:
            try:
                while self._offset < self._blob.size:
                    self._send_part()
                return self._finish(None)
            except RegistryError as error:
                if self._offset == self._blob.size and self._is_stored():
                    return self._blob.digest
                if (
                    self._furthest == 0
                    and not error.transient
                    and not isinstance(error, RegistryDenied)
                ):
                    return None
                self._go_on_after(error)

    def _begin(self) -> None:
        self._location = self._http.upload_url(self._http.retry(self._asked_to_begin))
        self._offset = 0

    def _asked_to_begin(self) -> requests.Response:
        repository = self._blob.repository
        return self._http.send_once(
            "POST", f"/v2/{repository}/blobs/uploads/", repository, expect=(_ACCEPTED,)
        )

    def _send_part(self) -> None:
        length = min(self._part, self._blob.size - self._offset)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._offset}-{self._offset + length - 1}",
        }
        with self._blob.open() as file:
            part = FileChunk(file, self._offset, length, self._advance)
            try:
                answer = self._http.send_once(
                    "PATCH",
                    self._location,
                    self._blob.repository,
                    data=part,
                    headers=headers,
                    expect=(_ACCEPTED, _CREATED, _NO_CONTENT),
                )
                self._location = self._http.upload_url(answer)
            except RegistryError:
                self._advance(-part.sent)
                raise
        self._stands_at(self._offset + length)

    def _stands_at(self, offset: int) -> None:
        """Goes on from there; only what was never reached before is progress, and forgives the failures."""
        self._offset = offset
        if offset > self._furthest:
            self._furthest = offset
            self._failures = 0

    def _finish(self, body: FileChunk | None) -> str:
        """Names the digest of what was sent, and sends the last bytes with it."""
        answer = self._http.send_once(
            "PUT",
            self._location,
            self._blob.repository,
            params={"digest": self._blob.digest},
            data=body,
            headers={"Content-Type": "application/octet-stream"},
            expect=(_CREATED, _ACCEPTED, _NO_CONTENT),
        )
        return str(answer.headers.get("Docker-Content-Digest", self._blob.digest))

    def _go_on_after(self, error: RegistryError) -> None:
        """Finds out where to go on; from the start if the registry has lost the upload, never without end."""
        self._failures += 1
        if self._failures >= ATTEMPTS or not (
            error.transient or isinstance(error, RegistryNotFound)
        ):
            raise error
        self._http.pause(self._failures, error)
        before = self._offset
        held = self._held()
        if held is None:
            self._begin()
        else:
            self._stands_at(held)
        self._advance(self._offset - before)

    def _held(self) -> int | None:
        """How many bytes of the upload the registry has, or None if it will not say."""
        answer = self._http.send(
            "GET", self._location, self._blob.repository, expect=(_NO_CONTENT, 400, 404, 405, 416)
        )
        found = re.match(r"^(?:bytes=)?0-(\d+)$", answer.headers.get("Range", ""))
        if answer.status_code != _NO_CONTENT or not found:
            return None
        # Registries say 0-0 of an upload that has no byte yet.
        held = int(found[1]) + 1 if int(found[1]) else 0
        return held if held <= self._blob.size else None

    def _is_stored(self) -> bool:
        """Whether the blob arrived, though its last answer did not."""
        path = f"/v2/{self._blob.repository}/blobs/{self._blob.digest}"
        return (
            self._http.send("HEAD", path, self._blob.repository, expect=(OK, 404)).status_code == OK
        )

    def _at_once(self) -> str:
        return self._http.retry(self._sent_at_once)

    def _sent_at_once(self) -> str:
        with self._blob.open() as file:
            body = FileChunk(file, 0, self._blob.size, self._advance)
            try:
                self._location = self._http.upload_url(self._asked_to_begin())
                return self._finish(body)
            except RegistryError:
                self._advance(-body.sent)
                raise
