"""The registry that other tests use instead of a real one."""

from __future__ import annotations

import pytest

from deploy.clients.oci.protocol import Registry
from tests.contracts.registry import RegistryContract
from tests.fakes.registry import MemoryRegistry


class TestMemoryRegistry(RegistryContract):
    """The fake keeps the contract, so that tests on it mean something."""

    @pytest.fixture
    def registry(self) -> Registry:
        """An empty registry."""
        return MemoryRegistry()
