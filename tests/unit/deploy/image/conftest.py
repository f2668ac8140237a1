"""A registry in memory, for tests of images."""

from __future__ import annotations

import pytest

from tests.fakes.registry import MemoryRegistry


@pytest.fixture
def remote() -> MemoryRegistry:
    """Return an empty registry."""
    return MemoryRegistry()
