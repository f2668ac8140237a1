"""Settings of all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.missing import lacking
from tests.moto import PYTHON, MotoServer, run_moto


def pytest_configure() -> None:
    """Let SIGINT reach what tests start.

    A shell makes background processes ignore it, and their children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """Run a server of S3 over TLS."""
    if not PYTHON.exists():
        lacking("moto is not installed", "run the tests by Nox, such as `./run nox -s integration`")
    with run_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server
