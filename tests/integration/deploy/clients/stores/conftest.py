"""A server of S3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.missing import lacking
from tests.moto import MotoMissing, MotoServer, run_moto


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """Run a server of S3 over TLS."""
    try:
        with run_moto(tmp_path_factory.mktemp("moto")) as server:
            yield server
    except MotoMissing as error:
        lacking(
            f"moto cannot be installed ({error})",
            "let pip reach an index that has the packages of locks/moto.txt",
        )
