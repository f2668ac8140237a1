"""Builds of the app image: the cache records from which inputs an image was built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.image.build import explain_build, find_built_app, remember_app
from deploy.source.inputs import Inputs
from tests.fakes import halves

NAME = "classifier"


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Return the inputs of a build."""
    return Inputs(
        directory=tmp_path,
        files={"app/a.py": "- 1"},
        base="debian@sha256:1",
        commit=halves.COMMIT,
        platform="linux/amd64",
    )


def test_an_app_image_of_the_same_inputs_is_found(cache: Cache, inputs: Inputs) -> None:
    """It is not found when the cache has lost the image."""
    assert find_built_app(NAME, inputs, cache) is None
    assert explain_build(NAME, inputs, cache) == "this machine has not built classifier yet"
    app = halves.app(cache, key=inputs.key)
    remember_app(app, inputs, cache)
    assert find_built_app(NAME, inputs, cache) == app
    cache.drop(app.manifest.digest)
    assert find_built_app(NAME, inputs, cache) is None
    assert explain_build(NAME, inputs, cache) == "the cache has lost the image"


def test_the_reason_of_a_build_is_the_difference_to_the_last_one(
    cache: Cache, inputs: Inputs
) -> None:
    """The reason names the file that changed."""
    remember_app(halves.app(cache), inputs, cache)
    now = replace(inputs, files={"app/a.py": "- 2"})
    assert find_built_app(NAME, now, cache) is None
    assert explain_build(NAME, now, cache) == "app/a.py changed"


def test_an_app_image_of_another_application_is_not_found(cache: Cache, inputs: Inputs) -> None:
    """Two applications may be built from the same files on one machine."""
    remember_app(halves.app(cache, key=inputs.key), inputs, cache)
    assert find_built_app("other", inputs, cache) is None
    assert explain_build("other", inputs, cache) == "this machine has not built other yet"
