"""Environments on a cluster in memory, and releases for them; a module that is about other ones has a `place` of its own."""

from __future__ import annotations

import pytest

from deploy.records import Release
from tests.fakes.namespaces import STRATEGIES, FakeNamespace


@pytest.fixture(params=STRATEGIES, ids=lambda settings: settings["strategy"])
def place(request: pytest.FixtureRequest) -> FakeNamespace:
    """An environment of each strategy."""
    return FakeNamespace(**request.param)


@pytest.fixture
def a(place: FakeNamespace) -> Release:
    """A release."""
    return place.release("a")


@pytest.fixture
def b(place: FakeNamespace) -> Release:
    """Another one."""
    return place.release("b")
