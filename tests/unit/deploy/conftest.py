"""An application in memory, for the tests of all that knows a whole site."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import pipeline
from tests.fakes.application import Application
from tests.fakes.deployers import Killed, is_held, mortal


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """An application with one published model, that was never released."""
    application = Application(tmp_path)
    application.publish("1")
    return application


@pytest.fixture
def released(application: Application) -> Application:
    """The same, released once to its local environment, and with a clean record of what was asked for."""
    pipeline.release(application.context())
    application.forget()
    return application


@pytest.fixture
def staged(application: Application) -> Application:
    """The same, released once to `staging` on the cluster, and with a clean record of what was asked for."""
    pipeline.release(application.context("staging"))
    application.forget()
    return application


@pytest.fixture
def trying(staged: Application, monkeypatch: pytest.MonkeyPatch) -> Application:
    """Released once to `staging`, which is worked with from now on, and with a new model of which a canary will be held there."""
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
def orphaned(trying: Application) -> Application:
    """A canary whose deployer was killed while it held it."""
    with mortal(trying, "staging", lambda _: is_held(trying)), pytest.raises(Killed):
        pipeline.release(trying.context())
    trying.forget()
    return trying
