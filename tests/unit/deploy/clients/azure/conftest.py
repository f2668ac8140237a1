"""A stand-in for Azure in memory."""

from __future__ import annotations

import pytest

from tests.fakes.azure.stand_in import StandIn


@pytest.fixture
def azure() -> StandIn:
    """Return an Azure that knows a service principal and a user."""
    return StandIn()
