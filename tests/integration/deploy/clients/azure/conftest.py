"""A stand-in for Azure."""

from __future__ import annotations

import pytest

from tests.fakes.azure.stand_in import StandIn


@pytest.fixture
def azure() -> StandIn:
    """Return a stand-in."""
    return StandIn()
