"""The real parts: each is looked for once, and a test that needs a missing one is skipped, or fails on a CI runner."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.clients.oci.client import HttpRegistry
from deploy.errors import PlatformError, RegistryError

REGISTRY = "127.0.0.1:5000"


def lacking(what: str, cure: str) -> NoReturn:
    """Skips a test that cannot run here; where everything should be there, it fails instead."""
    text = f"{what}; {cure}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


@pytest.fixture(scope="session")
def engine() -> DockerEngine:
    """A container engine."""
    try:
        found = DockerEngine()
    except PlatformError as error:
        lacking(error.what, "`invoke up` starts one")
    return found


@pytest.fixture(scope="session")
def registry_host() -> str:
    """The host of a registry on this machine, which takes images without a login."""
    try:
        HttpRegistry(REGISTRY).ping()
    except RegistryError:
        lacking(f"no registry answers on {REGISTRY}", "`invoke up` starts one")
    return REGISTRY
