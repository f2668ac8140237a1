"""Environments on a cluster in memory, and releases for them.

A module for other environments overrides the fixture `namespace`.
"""

from __future__ import annotations

import pytest

from deploy.records import Release
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.namespaces import STRATEGIES, FakeNamespace


@pytest.fixture(params=STRATEGIES, ids=lambda settings: settings["strategy"])
def namespace(request: pytest.FixtureRequest) -> FakeNamespace:
    """Return an environment of each strategy."""
    return FakeNamespace(**request.param)


@pytest.fixture
def cluster() -> FakeCluster:
    """Return an empty namespace."""
    return FakeCluster()


@pytest.fixture
def a(namespace: FakeNamespace) -> Release:
    """Return a release."""
    return namespace.release("a")


@pytest.fixture
def b(namespace: FakeNamespace) -> Release:
    """Return another release."""
    return namespace.release("b")
