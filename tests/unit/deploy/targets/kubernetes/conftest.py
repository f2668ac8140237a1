"""Environments on a cluster in memory, and releases for them; a module that is about other ones has a `place` of its own."""

from __future__ import annotations

import pytest

from deploy.records import Release
from tests.fakes.places import STRATEGIES, FakePlace


@pytest.fixture(params=STRATEGIES, ids=lambda settings: settings["strategy"])
def place(request: pytest.FixtureRequest) -> FakePlace:
    """An environment of each strategy."""
    return FakePlace(**request.param)


@pytest.fixture
def a(place: FakePlace) -> Release:
    """A release."""
    return place.release("a")


@pytest.fixture
def b(place: FakePlace) -> Release:
    """Another one."""
    return place.release("b")
