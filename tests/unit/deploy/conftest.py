"""What many tests start from: an empty cache, an image, and an application in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy import pipeline
from deploy.cache import Cache
from deploy.image.join import join_image
from deploy.records import Image
from tests.fakes import halves
from tests.fakes.application import Application
from tests.fakes.deployers import Killed, is_held, mortal


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture
def joined(cache: Cache) -> Image:
    """Return an image of base, libraries, weights and code."""
    return join_image(halves.app(cache), halves.model(cache), halves.MOUNT, cache)


@pytest.fixture
def git_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give git an author, and no configuration of this machine."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.com")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """Return an application with one published model that was never released."""
    application = Application(tmp_path)
    application.publish("1")
    return application


@pytest.fixture
def released(application: Application) -> Application:
    """Return an application that was released once to `local`, with empty records of calls."""
    pipeline.release(application.context())
    application.clear_records()
    return application


@pytest.fixture
def staged(application: Application) -> Application:
    """Return an application that was released once to `staging`, with empty records of calls."""
    pipeline.release(application.context("staging"))
    application.clear_records()
    return application


@pytest.fixture
def staged_with_canaries(staged: Application, monkeypatch: pytest.MonkeyPatch) -> Application:
    """Return an application released to `staging`, where the next model becomes a canary."""
    for key, value in {
        "STRATEGY": "canary",
        "CANARY__METRICS": "",
        "CANARY__SECONDS": "600",
    }.items():
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__STAGING__{key}", value)
    staged.environment = "staging"
    staged.publish("2")
    return staged


@pytest.fixture
def orphaned(staged_with_canaries: Application) -> Application:
    """Return an application whose canary is on hold in `staging`, and whose deployer was killed."""
    with (
        mortal(staged_with_canaries, "staging", lambda _: is_held(staged_with_canaries)),
        pytest.raises(Killed),
    ):
        pipeline.release(staged_with_canaries.context())
    staged_with_canaries.clear_records()
    return staged_with_canaries
