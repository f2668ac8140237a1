"""Fixtures for the tests of models: an author and an empty store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.models import WEIGHTS, write_author_directory
from tests.fakes.store import MemoryStore


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an author's directory and returns its path."""

    def write(version: str = "1", weights: bytes = WEIGHTS, labels: bytes = b"one\n") -> Path:
        directory = tmp_path / f"author-{len(list(tmp_path.glob('author-*')))}"
        write_author_directory(directory, version, weights, labels)
        return directory

    return write


@pytest.fixture
def store() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore(chunk=700)
