"""One large blob to a registry, by the suite and as one streamed PUT, in turns."""

from __future__ import annotations

import hashlib
import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.figures import Transfer
from deploy.clients.oci.client import HttpRegistry

_BLOCK = 1 << 20


def measure(registry: str, blob: Path, turns: int) -> Transfer:
    """Send a file by both ways in turns, after each has sent it once without measurement.

    Args:
        registry: host and port.
        blob: the file.
        turns: the number of measurements.
    """
    with blob.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        size = blob.stat().st_size
    pairs = []
    for turn in range(turns + 1):
        if turn % 2:
            put_seconds = put(registry, "bench/plain", digest, blob)
            suite_seconds = upload(registry, "bench/suite", digest, blob)
        else:
            suite_seconds = upload(registry, "bench/suite", digest, blob)
            put_seconds = put(registry, "bench/plain", digest, blob)
        pairs.append((suite_seconds, put_seconds))
    suite, plain = zip(*pairs[1:], strict=True)
    return Transfer(size=size, suite=suite, put=plain)


def upload(registry: str, repository: str, digest: str, blob: Path) -> float:
    """Return the seconds of an upload by the suite's client."""
    client = HttpRegistry(registry)
    started = time.monotonic()
    client.upload(repository, digest, blob.stat().st_size, lambda: blob.open("rb"), lambda _: None)
    return time.monotonic() - started


def put(registry: str, repository: str, digest: str, blob: Path) -> float:
    """Return the seconds of the shortest upload: one POST, then one PUT with all bytes."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(registry, blocksize=_BLOCK)
    connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
    response = connection.getresponse()
    response.read()
    location = urlsplit(response.headers["Location"])
    with blob.open("rb") as body:
        headers = {
            "Content-Length": str(blob.stat().st_size),
            "Content-Type": "application/octet-stream",
        }
        connection.request(
            "PUT", f"{location.path}?{location.query}&digest={digest}", body, headers
        )
        response = connection.getresponse()
        response.read()
    connection.close()
    if response.status != http.client.CREATED:
        raise RuntimeError(f"the registry answered {response.status} to a plain PUT")
    return time.monotonic() - started
