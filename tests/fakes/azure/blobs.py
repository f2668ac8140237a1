"""The store of the stand-in for Azure: a container whose blobs are in memory.

Source: the REST API of Azure Storage, "Put Blob", "Put Block List", "Get Blob", "List Blobs".
"""

from __future__ import annotations

import hashlib
import re
import threading
from urllib.parse import unquote
from xml.sax.saxutils import escape

from tests.fakes.azure.exchange import Answer, Asked

CONTAINER = "models"
_DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


class BlobService:
    """A storage account with one container, under the path `/ACCOUNT/CONTAINER`.

    Attributes:
        blobs: the bytes of each name.
        cuts: after how many bytes the next answers with a range are cut.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self._blocks: dict[str, bytes] = {}
        self._one = threading.Lock()

    def answer(self, asked: Asked) -> Answer:
        """Return the answer to a request that is allowed."""
        _, _, container, *rest = unquote(asked.path).split("/")
        if container != CONTAINER:
            return blob_error(404, "ContainerNotFound")
        name = "/".join(rest)
        if asked.value("comp") == "list":
            return self._list(asked)
        if asked.method == "PUT":
            with self._one:
                return self._put(asked, name)
        return self._get(asked, name)

    def _put(self, asked: Asked, name: str) -> Answer:
        if asked.value("comp") == "block":
            self._blocks[asked.value("blockid")] = asked.body
            return Answer(201)
        if asked.headers.get("if-none-match") == "*" and name in self.blobs:
            return blob_error(409, "BlobAlreadyExists")
        expected = asked.headers.get("if-match")
        if expected and (name not in self.blobs or _tag(self.blobs[name]) != expected):
            return blob_error(412, "ConditionNotMet")
        data = asked.body
        if asked.value("comp") == "blocklist":
            ids = re.findall(r"<(?:Uncommitted|Latest)>([^<]+)<", asked.body.decode())
            data = b"".join(self._blocks.pop(one) for one in ids)
        self.blobs[name] = data
        return Answer(201, b"", {"ETag": _tag(data), "Last-Modified": _DATE})

    def _get(self, asked: Asked, name: str) -> Answer:
        if name not in self.blobs:
            return blob_error(404, "BlobNotFound")
        data = self.blobs[name]
        headers = {"ETag": _tag(data), "Last-Modified": _DATE}
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        if part is None:
            return Answer(200, data, headers)
        start = int(part[1])
        found = data[start : int(part[2]) + 1]
        where = f"bytes {start}-{start + len(found) - 1}/{len(data)}"
        cut = self.cuts.pop() if self.cuts else None
        return Answer(206, found, {**headers, "Content-Range": where}, cut)

    def _list(self, asked: Asked) -> Answer:
        prefix = asked.value("prefix")
        below = [name.removeprefix(prefix) for name in self.blobs if name.startswith(prefix)]
        folders = sorted({rest.split("/", 1)[0] for rest in below if "/" in rest})
        items = "".join(
            f"<BlobPrefix><Name>{escape(prefix + name)}/</Name></BlobPrefix>" for name in folders
        )
        text = f"<EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>"
        return Answer(200, text.encode(), {"Content-Type": "application/xml"})


def blob_error(status: int, code: str) -> Answer:
    """Return a refusal of the service."""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    return Answer(status, text.encode(), {"x-ms-error-code": code})


def _tag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'
