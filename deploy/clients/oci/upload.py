"""The upload of one blob: in chunks that resume, or in one request where a registry has no chunks.

Source: OCI distribution specification 1.1, "Pushing a blob in chunks" and "POST then PUT".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from deploy.clients.oci.bodies import FileChunk
from deploy.clients.oci.http import ATTEMPTS, RegistryHttp
from deploy.clients.oci.responses import stored_digest
from deploy.errors import RegistryDenied, RegistryError, RegistryNotFound
from deploy.progress import Advance

if TYPE_CHECKING:
    import requests

_CREATED = 201
_ACCEPTED = 202
_NO_CONTENT = 204

OpenBlob = Callable[[], BinaryIO]


@dataclass(frozen=True)
class BlobSource:
    """A blob to upload; `open` opens its bytes from the start, each time it is called."""

    repository: str
    digest: str
    size: int
    open: OpenBlob


class Upload:
    """The upload of one blob.

    Args:
        http: The registry.
        blob: The blob and its repository.
        chunk_size: The most bytes of one request, if the registry accepts chunks.
        advance: Receives the number of bytes that were sent; a negative number takes back bytes
            that did not arrive.
    """

    def __init__(
        self, http: RegistryHttp, blob: BlobSource, chunk_size: int, advance: Advance
    ) -> None:
        self._http = http
        self._blob = blob
        self._chunk_size = chunk_size
        self._advance = advance
        self._url = ""
        self._offset = 0
        self._furthest = 0
        self._failures = 0

    def send(self) -> str:
        """Send the blob; return the digest that the registry reports.

        Raises:
            RegistryError: The upload failed after retries.
        """
        stored = self._send_in_chunks() if self._blob.size > self._chunk_size else None
        return stored or self._send_at_once()

    def _send_in_chunks(self) -> str | None:
        """Send chunk by chunk; return None if the registry does not accept chunks."""
        self._begin()
        while True:
            try:
                while self._offset < self._blob.size:
                    self._send_chunk()
                return self._finish(None)
            except RegistryError as error:
                # The blob may have arrived, though the last response did not.
                if self._offset == self._blob.size and self._http.has_blob(
                    self._blob.repository, self._blob.digest
                ):
                    return self._blob.digest
                if (
                    self._furthest == 0
                    and not error.transient
                    and not isinstance(error, RegistryDenied)
                ):
                    return None
                self._resume_after(error)

    def _begin(self) -> None:
        self._url = self._http.upload_url(self._http.retry(self._request_upload))
        self._offset = 0

    def _request_upload(self) -> requests.Response:
        repository = self._blob.repository
        return self._http.send_once(
            "POST", f"/v2/{repository}/blobs/uploads/", repository, expect=(_ACCEPTED,)
        )

    def _send_chunk(self) -> None:
        length = min(self._chunk_size, self._blob.size - self._offset)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._offset}-{self._offset + length - 1}",
        }
        with self._blob.open() as file:
            chunk = FileChunk(file, self._offset, length, self._advance)
            try:
                response = self._http.send_once(
                    "PATCH",
                    self._url,
                    self._blob.repository,
                    data=chunk,
                    headers=headers,
                    expect=(_ACCEPTED, _CREATED, _NO_CONTENT),
                )
                self._url = self._http.upload_url(response)
            except RegistryError:
                self._advance(-chunk.sent)
                raise
        self._continue_at(self._offset + length)

    def _continue_at(self, offset: int) -> None:
        """Continue at an offset; one that was never reached before resets the count of failures."""
        self._offset = offset
        if offset > self._furthest:
            self._furthest = offset
            self._failures = 0

    def _finish(self, body: FileChunk | None) -> str:
        """End the upload with the blob's digest, and with a body if none was sent before."""
        response = self._http.send_once(
            "PUT",
            self._url,
            self._blob.repository,
            params={"digest": self._blob.digest},
            data=body,
            headers={"Content-Type": "application/octet-stream"},
            expect=(_CREATED, _ACCEPTED, _NO_CONTENT),
        )
        return stored_digest(response, self._blob.digest)

    def _resume_after(self, error: RegistryError) -> None:
        """Find the offset to continue at: the start if the registry has lost the upload."""
        self._failures += 1
        if self._failures >= ATTEMPTS or not (
            error.transient or isinstance(error, RegistryNotFound)
        ):
            raise error
        self._http.pause(self._failures, error)
        before = self._offset
        stored = self._stored_bytes()
        if stored is None:
            self._begin()
        else:
            self._continue_at(stored)
        self._advance(self._offset - before)

    def _stored_bytes(self) -> int | None:
        """Return how many bytes the registry has, or None if it does not report them."""
        response = self._http.send(
            "GET", self._url, self._blob.repository, expect=(_NO_CONTENT, 400, 404, 405, 416)
        )
        found = re.match(r"^(?:bytes=)?0-(\d+)$", response.headers.get("Range", ""))
        if response.status_code != _NO_CONTENT or not found:
            return None
        # Registries report 0-0 for an upload without a byte.
        stored = int(found[1]) + 1 if int(found[1]) else 0
        return stored if stored <= self._blob.size else None

    def _send_at_once(self) -> str:
        return self._http.retry(self._attempt_at_once)

    def _attempt_at_once(self) -> str:
        with self._blob.open() as file:
            body = FileChunk(file, 0, self._blob.size, self._advance)
            try:
                self._url = self._http.upload_url(self._request_upload())
                return self._finish(body)
            except RegistryError:
                self._advance(-body.sent)
                raise
