"""Another application: its own framework, port, mount and answers, released by nothing but what is in its folder.

The tests are one story, in order: each goes on from where the one before left the application.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.application import Application

FOLDER = "examples/digits"


@pytest.fixture(scope="module", name="digits")
def _digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The example with its model published, not yet released; all it started is gone afterwards."""
    application = Application.create(tmp_path_factory.mktemp("digits"), FOLDER)
    application.ok("model.publish", "--directory", "model")
    yield application
    application.invoke("down", "--purge")


def test_a_folder_of_its_own_is_released_from_there(digits: Application) -> None:
    """A configuration, a Dockerfile and a model bundle are all it takes to get to an answer at the front door."""
    done = digits.ok("release")

    assert done.out.startswith(f"{digits.url}  seven → 7, 0.8")
    assert "smoke  2 golden cases passed" in done.err
    assert _seven(digits)["digit"] == 7
    serving = digits.ok("status", "--json").json["serving"]
    assert (serving["model"], serving["outcome"]) == ("digits@1", "succeeded")
    assert serving["commit"] == digits.git("rev-parse", "HEAD") == digits.get("/about")["commit"]


def test_the_reason_for_a_build_speaks_of_this_application_alone(digits: Application) -> None:
    """What other applications were built from on the same machine does not matter."""
    other = Application(digits.folder, digits.home, "another", digits.port)
    steps = {
        step["stage"]: step
        for step in other.ok("release", "--dry-run", "--json", TWINSHIP_APP__NAME="another").json
    }

    assert steps["build"]["runs"]
    assert steps["build"]["why"] == "this machine has not built another yet"


def test_another_python_needs_another_build(digits: Application) -> None:
    """Wheels are chosen for a version, so the image made of them is no longer the one that is asked for."""
    steps = {
        step["stage"]: step
        for step in digits.ok(
            "release", "--dry-run", "--json", TWINSHIP_IMAGE__WHEELS__PYTHON="3.12"
        ).json
    }

    assert steps["build"]["runs"]
    assert steps["build"]["why"] == "the wheels' Python changed"


def test_a_model_trained_anew_serves_without_a_build(digits: Application) -> None:
    """The same picture gets another model's answer, and only that model's layer was sent."""
    before = _seven(digits)["probability"]
    _trained(digits.folder / "model", version="2", seed=1)
    digits.ok("model.publish", "--directory", "model")
    done = digits.ok("release")

    assert "nothing to build" in done.err
    (pushed,) = [
        line for line in done.err.splitlines() if line.startswith("· push") and "lacked" in line
    ]
    assert " kB in " in pushed, "more than a model of ten kilobytes was sent"
    assert digits.get("/about")["model"]["version"] == "2"
    assert _seven(digits)["probability"] != before


def test_the_model_alone_goes_back(digits: Application) -> None:
    """New code keeps serving, with the model that served before."""
    digits.edit("service.py", '"ready")', '"ready, and newer")')
    newer = digits.commit("newer code")
    assert "building: service.py changed" in digits.ok("release").err
    digits.ok("rollback", "--only", "model")

    about = digits.get("/about")
    assert (about["commit"], about["model"]["version"]) == (newer, "1")


def test_a_model_that_breaks_its_promise_is_refused(digits: Application) -> None:
    """A golden case that the model misses stops the release before anything is pushed; what serves goes on."""
    before = digits.ok("history", "--json").json
    _trained(digits.folder / "model", version="3", seed=2)
    digits.edit(
        "model/model.toml", '{ at = "/digit", equals = 7 }', '{ at = "/digit", equals = 1 }'
    )
    digits.ok("model.publish", "--directory", "model")
    done = digits.invoke("release")

    assert done.code == 40, done.err
    assert "/digit: expected 1, got 7" in done.err
    assert digits.ok("history", "--json").json == before
    assert digits.get("/about")["model"]["version"] == "1"
    assert digits.ok("verify").code == 0


def _seven(digits: Application) -> Any:
    """What the front door answers to a picture of a seven that no model was trained on."""
    return digits.post(
        "/predict",
        (Path(__file__).parents[2] / FOLDER / "model" / "golden" / "seven.json").read_bytes(),
    )


def _trained(folder: Path, version: str, seed: int) -> None:
    """Trains the example's model as its author does."""
    program = folder.parent / "training" / "train.py"
    subprocess.run(
        [sys.executable, program, "--version", version, "--seed", str(seed), folder],
        check=True,
        capture_output=True,
    )
