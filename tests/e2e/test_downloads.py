"""The download of the benchmark, by the suite's store and by Azure's library, from Azurite."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import azurite, downloads

SIZE = 20_000_000


def test_both_ways_download_the_whole_blob(tmp_path: Path) -> None:
    """Each program fails if a byte is missing; the blob is larger than one range of the store."""
    if not azurite.is_installed():
        pytest.skip("Azurite is not installed; install Node.js and npm, and `./run nox -s e2e`")
    found = downloads.measure(tmp_path / "azure", SIZE, 1)

    assert found.size == SIZE
    assert len(found.suite) == len(found.library) == 1
    assert (tmp_path / "azure" / "downloaded").stat().st_size == SIZE
