"""A folder as a store: the contract, and several processes that publish at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.clients.stores.protocol import Store, open_store
from deploy.errors import VersionExists
from deploy.model.fetch import fetch_layer
from deploy.model.versions import list_versions, resolve_version
from tests.contracts.store import StoreContract

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[5]
DIGITS = PROJECT / "tests" / "models" / "digits"
PUBLISHER = """
import sys
from pathlib import Path
from deploy.clients.stores.protocol import open_store
from deploy.errors import ReleaseError
from deploy.model.publish import publish_model

store = open_store(sys.argv[2], Path())
print("ready", flush=True)
sys.stdin.readline()
try:
    publish_model(Path(sys.argv[1]), store)
except ReleaseError as error:
    sys.exit(error.exit_code)
"""


class TestFolder(StoreContract):
    """A folder keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """Return an empty store."""
        return open_store("store", tmp_path)


def at_once(folder: Path, *directories: Path) -> list[int]:
    """Publish directories to one folder, each in a process; return the exit codes."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(directory), str(folder)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for directory in directories
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    return [process.returncode for process in processes]


def test_the_same_model_is_published_by_many_processes_at_once(tmp_path: Path) -> None:
    """All succeed, and the folder has the complete model."""
    assert at_once(tmp_path / "store", *[DIGITS] * 4) == [0] * 4
    store = open_store("store", tmp_path)
    found = resolve_version("digits", "latest", store)
    assert list_versions("digits", store) == (found,)
    assert fetch_layer(found, store, Cache(tmp_path / "cache"), "/model").model == found


def test_of_two_models_under_one_version_one_is_published(tmp_path: Path) -> None:
    """One process succeeds, the other is refused, and the folder has one complete model."""
    other = tmp_path / "other"
    shutil.copytree(DIGITS, other)
    (other / "labels.txt").write_text("\n".join("abcdefghij"), encoding="utf-8")
    assert sorted(at_once(tmp_path / "store", DIGITS, other)) == [0, VersionExists.exit_code]
    store = open_store("store", tmp_path)
    found = resolve_version("digits", "latest", store)
    assert list_versions("digits", store) == (found,)
    assert fetch_layer(found, store, Cache(tmp_path / "cache"), "/model").model == found
