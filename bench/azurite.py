"""Azurite, the emulator of Azure Blob, as a process on this machine; Nox installs it with npm.

Source: Azurite's README, "Command line options" and "Customized storage accounts & keys".
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.application import free_port

_PROGRAM = "azurite-blob"
_SECONDS_TO_START = 60.0


def is_installed() -> bool:
    """Return whether it can be run."""
    return shutil.which(_PROGRAM) is not None


@contextmanager
def run_azurite(folder: Path, certificate: Path, account: str, key: str) -> Iterator[int]:
    """Run it with an empty storage account; yield its port, on which it speaks HTTPS.

    Args:
        folder: gets its data and its log.
        certificate: a file with its key and its certificate.
        account: the name of the storage account.
        key: the account's key, in base64; tokens are accepted as well.
    """
    port = free_port()
    command = (
        *(_PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--oauth", "basic", "--cert", str(certificate), "--key", str(certificate)),
        *("--location", str(folder / "azurite"), "--skipApiVersionCheck", "--disableTelemetry"),
    )
    log = folder / "azurite.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a fixed program
            command,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"},
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_open(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"Azurite did not start: {log.read_text(encoding='utf-8')[-1000:]}")
