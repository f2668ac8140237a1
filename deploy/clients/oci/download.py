"""The download of one blob, which resumes after a broken connection.

Source: OCI distribution specification 1.1, "Pulling blobs"; RFC 9110, section 14.
"""

from __future__ import annotations

import io

from deploy.clients.oci.bodies import ResponseStream
from deploy.clients.oci.http import ATTEMPTS, OK, RegistryHttp
from deploy.errors import RegistryUnreachable

_PARTIAL = 206
_BLOCK = 1 << 20


class Download(io.RawIOBase):
    """A blob's bytes as they arrive, without a check of their digest.

    Args:
        http: The registry.
        path: The path of the blob.
        repository: The repository of the blob.
        body: The blob's bytes from the start.
    """

    def __init__(
        self, http: RegistryHttp, path: str, repository: str, body: ResponseStream
    ) -> None:
        self._http = http
        self._path = path
        self._repository = repository
        self._body = body
        self._offset = 0
        self._to_skip = 0
        self._failures = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            try:
                self._skip()
                data = self._body.read(size)
            except RegistryUnreachable as error:
                self._resume_after(error)
            else:
                break
        if data:
            self._offset = self._offset + len(data)
            self._failures = 0
        return data

    def close(self) -> None:
        self._body.close()
        super().close()

    def _skip(self) -> None:
        """Skip the bytes that had arrived before."""
        while self._to_skip and (data := self._body.read(min(self._to_skip, _BLOCK))):
            self._to_skip -= len(data)

    def _resume_after(self, error: RegistryUnreachable) -> None:
        """Request the rest of the blob; new bytes reset the count of failures."""
        self._failures += 1
        if self._failures >= ATTEMPTS or not error.transient:
            raise error
        self._http.pause(self._failures, error)
        self._body.close()
        headers = {"Range": f"bytes={self._offset}-"}
        response = self._http.send(
            "GET", self._path, self._repository, headers=headers, stream=True, expect=(OK, _PARTIAL)
        )
        self._body = self._http.stream_body(response)
        # A registry without range requests sends the blob from its start.
        self._to_skip = self._offset if response.status_code == OK else 0
