"""Fixtures for tests on a real engine: the services image, and names that are removed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import application
from deploy.clients.docker.client import DockerEngine
from deploy.errors import ReleaseError
from deploy.machine import services
from deploy.settings.reading import Settings
from tests.missing import lacking

ROOT = Path(__file__).parents[3]


@pytest.fixture
def parts_image(engine: DockerEngine) -> str:
    """Return the image with the proxy and the registry, which has a shell and socat too."""
    try:
        return services.ensure_services_image(engine, Settings.read(ROOT, {}).image)
    except ReleaseError as error:
        lacking(str(error), "`invoke up` makes it")


@pytest.fixture
def prefix(engine: DockerEngine) -> Iterator[str]:
    """Return a prefix for all names of a test; what has it is removed afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    engine.remove_labelled({"dev.twinship.test": name})
    for image in engine._api.images():
        for tag in image["RepoTags"] or ():
            if tag.startswith(f"{name}:"):
                engine._api.remove_image(tag, force=True)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that finds a port of the loopback address on which no program listens."""
    return application.free_port
