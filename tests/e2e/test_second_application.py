"""The release of another application, with its own model, port, mount path and responses.

Everything that its release needs is in its folder. The tests run in order: each continues from the
state in which the previous one left the application.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.application import Application
from tests.e2e.containers import docker
from tests.e2e.digits import FOLDER, train
from tests.e2e.planted import Secrets

SEVEN = (Path(__file__).parents[2] / FOLDER / "model" / "golden" / "seven.json").read_bytes()
HEADERS = 'headers = { "X-Api-Key" = "${API_KEY}" }'
VARIABLES = """
[environments.local.secrets]
API_KEY = "DIGITS_KEY"

[smoke.env]
API_KEY = "stand-in"
"""


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


def test_an_application_gets_a_secret_that_nothing_shows(
    digits: Application,
) -> None:
    """Requests need it, also golden cases, and another secret is another rollout."""
    train(digits.folder / "model", version="4", seed=0)
    digits.edit("model/model.toml", 'path = "/predict",', f'path = "/predict", {HEADERS},')
    digits.ok("model.publish", "--directory", "model")
    with (digits.folder / "pipeline.toml").open("a", encoding="utf-8") as file:
        file.write(VARIABLES)
    digits.commit("a key")

    done = [digits.invoke("release")]
    assert done[0].code == 2
    assert "the environment variable DIGITS_KEY is not set" in done[0].err
    done.append(digits.ok("release", DIGITS_KEY="planted-one"))
    assert [_status(digits, key) for key in ("planted-one", "stand-in")] == [200, 401]
    planned = digits.ok("release", "--dry-run", "--json", DIGITS_KEY="planted-two")
    done.append(planned)
    assert planned.json[-1]["why"] == "changed variables: API_KEY"
    done.append(digits.ok("--debug", "release", DIGITS_KEY="planted-two"))
    assert [_status(digits, key) for key in ("planted-one", "planted-two")] == [401, 200]
    done += [digits.ok(command) for command in ("verify", "status", "history", "doctor")]

    secrets = Secrets()
    shown = "".join(f"{result.out}{result.err}" for result in done)
    (proxy,) = [name for name in _containers(digits) if name.endswith("-door")]
    for text in (shown, docker("inspect", proxy), docker("image", "inspect", _image(digits))):
        assert secrets.find(text.encode()) == ""
    for folder in (digits.folder, digits.home):
        assert secrets.find_in_folder(folder) == {}
    assert secrets.find_in_container(proxy, "/state") == {}


def _status(digits: Application, key: str) -> int:
    """Return the status of a prediction with that key."""
    request = urllib.request.Request(f"{digits.url}/predict", SEVEN, {"X-Api-Key": key})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def _containers(digits: Application) -> list[str]:
    """Return the names of the application's containers."""
    chosen = f"label=dev.twinship.app={digits.name}"
    return docker("ps", "--all", "--filter", chosen, "--format", "{{.Names}}").split()


def _image(digits: Application) -> str:
    """Return the image of a replica."""
    name = next(name for name in _containers(digits) if not name.endswith("-door"))
    return docker("inspect", "--format", "{{.Image}}", name).strip()


def _seven(digits: Application) -> Any:
    """Return the response to a picture of a seven that is not in the training data."""
    return digits.post("/predict", SEVEN)
