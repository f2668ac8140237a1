"""Fixtures for the real parts. A test whose part is missing is skipped, or fails on CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.clients.oci.client import HttpRegistry
from deploy.errors import PlatformError, RegistryError

REGISTRY = "127.0.0.1:5000"


def lacking(what: str, cure: str) -> NoReturn:
    """Skip a test that cannot run here; on CI, where nothing may be missing, it fails instead."""
    text = f"{what}; {cure}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


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
