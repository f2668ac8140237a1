"""Settings and a machine in memory, for tests of what a machine needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.settings.image import DEBIAN
from deploy.settings.reading import Settings
from tests.fakes.application import PIPELINE
from tests.fakes.machine import MemoryMachine

LOCAL = '[environments.here]\nregistry = "127.0.0.1:5000"\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings whose environments use a registry here, or in the network.

    `here` has a registry on this machine, `local` and `staging` have not.
    """
    (tmp_path / "pipeline.toml").write_text(
        PIPELINE.format(base=DEBIAN, sample="") + LOCAL, encoding="utf-8"
    )
    return Settings.read(tmp_path, {})


@pytest.fixture
def machine() -> MemoryMachine:
    """Return a new Debian on which root may work."""
    return MemoryMachine()
