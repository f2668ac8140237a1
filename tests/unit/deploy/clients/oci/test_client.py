"""The registry in memory that other tests use."""

from __future__ import annotations

import pytest

from deploy.clients.oci.protocol import Registry
from tests.contracts.registry import RegistryContract
from tests.fakes.registry import MemoryRegistry


class TestMemoryRegistry(RegistryContract):
    """The fake keeps the contract of the real one."""

    @pytest.fixture
    def registry(self) -> Registry:
        """Return an empty registry."""
        return MemoryRegistry()
