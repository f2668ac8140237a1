"""The login of `az`, read by several processes while others write it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes.azure.logins import write_az_login
from tests.fakes.azure.stand_in import USER

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[5]
READER = """
import sys
from pathlib import Path
from deploy.clients.azure.az_login import read_token_cache
for _ in range(100):
    read_token_cache(Path(sys.argv[1]), sys.argv[2])
print("all read")
"""


def test_four_processes_read_a_cache_that_is_being_written(tmp_path: Path) -> None:
    """A writer truncates the file first, as the library of `az` does; no reader gives up."""
    folder = tmp_path / "az"
    write_az_login(folder)
    cache = folder / "msal_token_cache.json"
    text = cache.read_text(encoding="utf-8")
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.002):
            cache.write_text(text, encoding="utf-8")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, str(folder), USER],
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        outputs = [reader.communicate()[0] for reader in readers]
    finally:
        done.set()
        writer.join()
    assert outputs == ["all read\n"] * 4
    assert cache.read_text(encoding="utf-8") == text
    assert {path.name for path in folder.iterdir()} == {"azureProfile.json", cache.name}
