"""One large blob to a registry, by the suite and as one plain streamed PUT, in turns."""

from __future__ import annotations

import hashlib
import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.figures import Transfer
from deploy.clients.oci.client import HttpRegistry

_BLOCK = 1 << 20


def raced(registry: str, blob: Path, turns: int) -> Transfer:
    """Sends a file by both ways, after each sent it once uncounted.

    Args:
        registry: host and port.
        blob: a file.
        turns: how often.
    """
    with blob.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        size = blob.stat().st_size
    pairs = []
    for turn in range(turns + 1):
        if turn % 2:
            put = plain(registry, "bench/plain", digest, blob)
            suite = by_suite(registry, "bench/suite", digest, blob)
        else:
            suite = by_suite(registry, "bench/suite", digest, blob)
            put = plain(registry, "bench/plain", digest, blob)
        pairs.append((suite, put))
    mine, other = zip(*pairs[1:], strict=True)
    return Transfer(size=size, suite=mine, put=other)


def by_suite(registry: str, repository: str, digest: str, blob: Path) -> float:
    """The seconds of an upload by the suite's client."""
    client = HttpRegistry(registry)
    started = time.monotonic()
    client.upload(repository, digest, blob.stat().st_size, lambda: blob.open("rb"), lambda _: None)
    return time.monotonic() - started


def plain(registry: str, repository: str, digest: str, blob: Path) -> float:
    """The seconds of the least that the protocol allows: one POST for the place, one PUT with all the bytes."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(registry, blocksize=_BLOCK)
    connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
    answer = connection.getresponse()
    answer.read()
    place = urlsplit(answer.headers["Location"])
    with blob.open("rb") as body:
        headers = {
            "Content-Length": str(blob.stat().st_size),
            "Content-Type": "application/octet-stream",
        }
        connection.request("PUT", f"{place.path}?{place.query}&digest={digest}", body, headers)
        answer = connection.getresponse()
        answer.read()
    connection.close()
    if answer.status != http.client.CREATED:
        raise RuntimeError(f"the registry answered {answer.status} to a plain PUT")
    return time.monotonic() - started
