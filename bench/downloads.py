"""One large blob from Azurite, by the suite's store and by Azure's own library, in turns.

Run as a program it downloads the blob once, and prints the seconds.
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bench import azurite, meters
from bench.application import ROOT
from bench.figures import Download
from deploy.clients.azure.blob import open_blob_store
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.sources import Account

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

_ACCOUNT = "bench"
_CONTAINER = "models"
_BLOB = "model"
_LOCATION = f"https://{_ACCOUNT}.blob.core.windows.net/{_CONTAINER}"
_KEY = "BENCH_KEY"
# As many connections as the suite's store has.
_CONNECTIONS = 6
_BLOCK = 1 << 20


def measure(folder: Path, size: int, turns: int) -> Download:
    """Download a blob by both ways in turns, after each has done it once without measurement.

    Args:
        folder: gets the store, and what is downloaded.
        size: the bytes of the blob.
        turns: the number of measurements.
    """
    folder.mkdir()
    certificate = make_certificate(folder)
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    with azurite.run_azurite(folder, certificate, _ACCOUNT, key) as port:
        variables = {
            "AZURE_STORAGE_ENDPOINT": f"https://127.0.0.1:{port}/{_ACCOUNT}",
            "REQUESTS_CA_BUNDLE": str(certificate),
            "NO_PROXY": "127.0.0.1",
            _KEY: key,
        }
        run("upload", folder, variables, size)
        pairs = [
            take_turns(turn, lambda way: run(way, folder, variables, size))
            for turn in range(turns + 1)
        ]
    suite, library = zip(*pairs[1:], strict=True)
    return Download(size=size, suite=suite, library=library)


def take_turns(turn: int, download: Callable[[str], float]) -> tuple[float, float]:
    """Return the seconds of both ways, of which each is the first every other time."""
    if turn % 2:
        library = download("library")
        return download("suite"), library
    return download("suite"), download("library")


def make_certificate(folder: Path) -> Path:
    """Write a key and a certificate for this machine into one file; return its path."""
    path = folder / "certificate.pem"
    command = (
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2"),
        *("-subj", "/CN=azurite", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-keyout", str(path), "-out", str(folder / "only.pem")),
    )
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - a fixed program
    with path.open("ab") as file:
        file.write((folder / "only.pem").read_bytes())
    return path


def run(way: str, folder: Path, variables: Mapping[str, str], size: int) -> float:
    """Run this module as a program; return the seconds that it measured."""
    command = (sys.executable, "-m", "bench.downloads", way, str(folder / "downloaded"), str(size))
    return float(meters.measure(command, ROOT, variables).out)


def main(way: str, target: Path, size: int) -> None:
    """Download the blob into a file, or fill it; print the seconds."""
    if way == "upload":
        started = time.monotonic()
        upload(size)
    else:
        download = {"suite": by_suite, "library": by_library}[way]()
        started = time.monotonic()
        with target.open("wb") as file:
            download(file)
    seconds = time.monotonic() - started
    if way != "upload" and target.stat().st_size != size:
        raise RuntimeError(f"{target.stat().st_size} bytes instead of {size}")
    print(seconds)  # noqa: T201 - the result


def by_suite() -> Callable[[BinaryIO], None]:
    """Return the download by the suite's store; all that it imports is imported."""
    key = {"access_key": os.environ[_KEY]}
    store = open_blob_store(_LOCATION, Identity(Account(), os.environ), os.environ, key)

    def download(file: BinaryIO) -> None:
        chunks = store.stream(_BLOB)
        assert chunks is not None  # noqa: S101 - it was uploaded
        file.writelines(chunks)

    return download


def by_library() -> Callable[[BinaryIO], None]:
    """Return the download by Azure's library, with as many connections."""
    client = _client()

    def download(file: BinaryIO) -> None:
        client.download_blob(max_concurrency=_CONNECTIONS).readinto(file)

    return download


def upload(size: int) -> None:
    """Create the container, and the blob of random bytes."""
    from azure.storage.blob import ContainerClient

    with ContainerClient(
        os.environ["AZURE_STORAGE_ENDPOINT"], _CONTAINER, credential=os.environ[_KEY]
    ) as container:
        container.create_container()
        blocks = (os.urandom(min(_BLOCK, size - start)) for start in range(0, size, _BLOCK))
        container.upload_blob(_BLOB, blocks, length=size)


def _client() -> BlobClient:
    from azure.storage.blob import BlobClient

    return BlobClient(
        os.environ["AZURE_STORAGE_ENDPOINT"], _CONTAINER, _BLOB, credential=os.environ[_KEY]
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
