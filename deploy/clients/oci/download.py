"""Receiving one blob: as it arrives, going on where a broken connection left off.

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
    """A blob's bytes as they arrive; they are not checked here.

    Args:
        http: the registry.
        path: where the blob is.
        repository: the one that it is in.
        arriving: its bytes from the start.
    """

    def __init__(
        self, http: RegistryHttp, path: str, repository: str, arriving: ResponseStream
    ) -> None:
        self._http = http
        self._path = path
        self._repository = repository
        self._arriving = arriving
        self._offset = self._again = self._failures = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            try:
                self._drop()
                data = self._arriving.read(size)
            except RegistryUnreachable as error:
                self._go_on_after(error)
            else:
                break
        if data:
            self._offset = self._offset + len(data)
            self._failures = 0
        return data

    def close(self) -> None:
        self._arriving.close()
        super().close()

    def _drop(self) -> None:
        """Passes over what had arrived before."""
        while self._again and (data := self._arriving.read(min(self._again, _BLOCK))):
            self._again -= len(data)

    def _go_on_after(self, error: RegistryUnreachable) -> None:
        """Asks again; only what never arrived before is progress, and forgives the failures."""
        self._failures += 1
        if self._failures >= ATTEMPTS or not error.transient:
            raise error
        self._http.pause(self._failures, error)
        self._arriving.close()
        headers = {"Range": f"bytes={self._offset}-"}
        answer = self._http.send(
            "GET", self._path, self._repository, headers=headers, stream=True, expect=(OK, _PARTIAL)
        )
        self._arriving = self._http.stream_body(answer)
        # A registry that gives no parts begins anew.
        self._again = self._offset if answer.status_code == OK else 0
