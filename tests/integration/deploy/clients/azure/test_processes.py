"""One login of `az`, used by several processes while others write it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.azure.logins import write_az_login
from tests.fakes.azure.proxy import Proxy
from tests.fakes.azure.server import serve
from tests.fakes.azure.stand_in import USER, StandIn

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[5]
LOGIN = "login.microsoftonline.com"
PROCESSES = 4
RESOURCES = ("https://storage.azure.com", "https://containerregistry.azure.net")
# Each identity takes a copy of the login of its own.
USES = 5
READS = 50
RUN = f"""
import os, sys
from pathlib import Path
from deploy.clients.azure.az_login import read_token_cache
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.sources import Account
for _ in range({READS}):
    read_token_cache(Path(os.environ["AZURE_CONFIG_DIR"]), "{USER}")
for _ in range({USES}):
    identity = Identity(Account(), os.environ)
    for resource in {RESOURCES}:
        old = identity.token(resource)
        assert identity.token(resource, old.value).value != old.value
print(identity.principal().name)
"""


@contextmanager
def written_again_and_again(cache: Path) -> Iterator[None]:
    """Write a file all the time, as the library of `az` does: it is truncated first."""
    text = cache.read_text(encoding="utf-8")
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.002):
            cache.write_text(text, encoding="utf-8")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
    assert cache.read_text(encoding="utf-8") == text


def test_four_processes_use_one_login_that_is_being_written(azure: StandIn, tmp_path: Path) -> None:
    """None gives up, each gets tokens of its own, and the folder of `az` stays as it is."""
    variables = write_az_login(tmp_path / "az")
    cache = tmp_path / "az" / "msal_token_cache.json"
    with (
        serve(azure, tmp_path, LOGIN) as served,
        Proxy({LOGIN: served.port}).serve() as proxy,
        written_again_and_again(cache),
    ):
        environ = {
            "PATH": os.environ["PATH"],
            "HTTPS_PROXY": proxy,
            "REQUESTS_CA_BUNDLE": str(served.authority),
            **variables,
        }
        running = [
            subprocess.Popen(
                [sys.executable, "-c", RUN],
                cwd=PROJECT,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(PROCESSES)
        ]
        outputs = [process.communicate() for process in running]
    assert outputs == [(f"{USER}\n", "")] * PROCESSES
    assert [azure.tokens_issued(resource) for resource in RESOURCES] == [2 * USES * PROCESSES] * 2
    assert {path.name for path in cache.parent.iterdir()} == {"azureProfile.json", cache.name}
