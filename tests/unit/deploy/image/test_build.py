"""Builds of the app image: the cache records from which inputs an image was built."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.image.build import explain_build, find_built_app, remember_app
from deploy.source import Inputs
from tests.fakes import halves

NAME = "classifier"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """The inputs of a build."""
    return Inputs(
        directory=tmp_path, files={"app/a.py": "- 1"}, base="debian@sha256:1", commit=halves.COMMIT
    )


def test_what_was_built_from_the_same_inputs_is_found(cache: Cache, inputs: Inputs) -> None:
    """Until the cache loses the image."""
    assert find_built_app(NAME, inputs, cache) is None
    assert explain_build(NAME, inputs, cache) == "this machine has not built classifier yet"
    app = halves.app(cache, key=inputs.key)
    remember_app(app, inputs, cache)
    assert find_built_app(NAME, inputs, cache) == app
    cache.drop(app.manifest.digest)
    assert find_built_app(NAME, inputs, cache) is None
    assert explain_build(NAME, inputs, cache) == "the cache has lost the image"


def test_why_a_build_is_needed_is_said_of_the_last_one(
    cache: Cache, inputs: Inputs, tmp_path: Path
) -> None:
    """The file that changed since then is named."""
    remember_app(halves.app(cache), inputs, cache)
    now = Inputs(
        directory=tmp_path, files={"app/a.py": "- 2"}, base=inputs.base, commit=inputs.commit
    )
    assert find_built_app(NAME, now, cache) is None
    assert explain_build(NAME, now, cache) == "app/a.py changed"


def test_what_was_built_for_another_application_does_not_count(
    cache: Cache, inputs: Inputs
) -> None:
    """Several are built on one machine, some from the same files; each image bears its own application's name."""
    remember_app(halves.app(cache, key=inputs.key), inputs, cache)
    assert find_built_app("other", inputs, cache) is None
    assert explain_build("other", inputs, cache) == "this machine has not built other yet"
