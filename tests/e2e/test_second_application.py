"""The release of another application, with its own model, port, mount path and responses.

Everything that its release needs is in its folder. The tests run in order: each continues from the
state in which the previous one left the application.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.application import Application
from tests.e2e.digits import FOLDER, train


@pytest.fixture(scope="module", name="digits")
def _digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Return the example with its model published, not yet released; remove it afterwards."""
    application = Application.create(tmp_path_factory.mktemp("digits"), FOLDER)
    application.ok("model.publish", "--directory", "model")
    yield application
    application.invoke("down", "--purge")


def test_an_application_in_its_own_folder_is_released(digits: Application) -> None:
    """A configuration, a Dockerfile and a model bundle are enough for a release."""
    result = digits.ok("release")

    assert result.out.startswith(f"{digits.url}  seven → 7, 0.8")
    assert "smoke  2 golden cases passed" in result.err
    assert _seven(digits)["digit"] == 7
    serving = digits.ok("status", "--json").json["serving"]
    assert (serving["model"], serving["outcome"]) == ("digits@1", "succeeded")
    assert serving["commit"] == digits.git("rev-parse", "HEAD") == digits.get("/about")["commit"]


def test_the_reason_for_a_build_concerns_only_this_application(digits: Application) -> None:
    """Builds of other applications on the same machine do not matter."""
    other = Application(digits.folder, digits.home, "another", digits.port)
    steps = {
        step["stage"]: step
        for step in other.ok("release", "--dry-run", "--json", TWINSHIP_APP__NAME="another").json
    }

    assert steps["build"]["runs"]
    assert steps["build"]["why"] == "this machine has not built another yet"


def test_another_python_needs_another_build(digits: Application) -> None:
    """Wheels are selected for a Python version, so another version needs another image."""
    steps = {
        step["stage"]: step
        for step in digits.ok(
            "release", "--dry-run", "--json", TWINSHIP_IMAGE__WHEELS__PYTHON="3.12"
        ).json
    }

    assert steps["build"]["runs"]
    assert steps["build"]["why"] == "the wheels' Python changed"


def test_a_new_model_is_released_without_a_build(digits: Application) -> None:
    """The same picture gets the other model's response, and only that model's layer is pushed."""
    before = _seven(digits)["probability"]
    train(digits.folder / "model", version="2", seed=1)
    digits.ok("model.publish", "--directory", "model")
    result = digits.ok("release")

    assert "nothing to build" in result.err
    (pushed,) = [
        line for line in result.err.splitlines() if line.startswith("· push") and "lacked" in line
    ]
    assert " kB in " in pushed, "more than a model of ten kilobytes was sent"
    assert digits.get("/about")["model"]["version"] == "2"
    assert _seven(digits)["probability"] != before


def test_only_the_model_is_rolled_back(digits: Application) -> None:
    """The new code keeps serving, with the previous model."""
    digits.edit("service.py", '"ready")', '"ready, and newer")')
    newer = digits.commit("newer code")
    assert "building: service.py changed" in digits.ok("release").err
    digits.ok("rollback", "--only", "model")

    about = digits.get("/about")
    assert (about["commit"], about["model"]["version"]) == (newer, "1")


def test_a_model_that_fails_its_golden_case_is_refused(digits: Application) -> None:
    """Nothing is pushed, and the previous release keeps serving."""
    before = digits.ok("history", "--json").json
    train(digits.folder / "model", version="3", seed=2)
    digits.edit(
        "model/model.toml", '{ at = "/digit", equals = 7 }', '{ at = "/digit", equals = 1 }'
    )
    digits.ok("model.publish", "--directory", "model")
    result = digits.invoke("release")

    assert result.code == 40, result.err
    assert "/digit: expected 1, got 7" in result.err
    assert digits.ok("history", "--json").json == before
    assert digits.get("/about")["model"]["version"] == "1"
    assert digits.ok("verify").code == 0


def _seven(digits: Application) -> Any:
    """Return the response to a picture of a seven that is not in the training data."""
    return digits.post(
        "/predict",
        (Path(__file__).parents[2] / FOLDER / "model" / "golden" / "seven.json").read_bytes(),
    )
