"""Fixtures for the real parts. A test whose part is missing is skipped, or fails on CI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.clients.oci.client import HttpRegistry
from deploy.errors import PlatformError, RegistryError
from tests.missing import lacking
from tests.scheduling import GroupScheduling

REGISTRY = "127.0.0.1:5000"


# What starts first, so that all processes end at about the same time: the module that takes
# longest, and then the tests that mostly wait for a cluster, while others use the processors.
_FIRST = ("bench/test_quick.py", "targets/kubernetes/test_target.py")


def _group(node: str) -> str:
    """Return the group of a test: its module, whose tests share fixtures.

    Tests of a target have an environment each, and there are many of them, so each is a group.
    """
    module, _, _ = node.partition("::")
    return node if Path(module).stem == "test_target" else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Run the tests of a module in one process, and those of a target in any."""
    return GroupScheduling(config, log, _group)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest module first, and next what mostly waits."""
    items.sort(key=_position)


def _position(item: pytest.Item) -> int:
    """Return the place of a test's module in the order."""
    path = item.path.as_posix()
    return next((at for at, name in enumerate(_FIRST) if path.endswith(name)), len(_FIRST))


@pytest.fixture(scope="session")
def engine() -> DockerEngine:
    """Return a client of the container engine."""
    try:
        found = DockerEngine()
    except PlatformError as error:
        lacking(error.what, "`invoke up` starts one")
    return found


@pytest.fixture(scope="session")
def registry_host() -> str:
    """Return the host of a registry on this machine that needs no login."""
    try:
        HttpRegistry(REGISTRY).ping()
    except RegistryError:
        lacking(f"no registry answers on {REGISTRY}", "`invoke up` starts one")
    return REGISTRY
