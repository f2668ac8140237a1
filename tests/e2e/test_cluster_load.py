"""No request is lost on a cluster: ten rollouts in a row, by all strategies, under a steady load through the Service."""

from __future__ import annotations

import time

from tests.e2e.application import Application
from tests.e2e.cluster import Namespace
from tests.e2e.load import Load

AT_LEAST = 20.0
# Wrong for a golden case alone, and only on a cluster: the load itself keeps its answers.
WRONG = """

_made = create_app


def create_app(*args, **kwargs):
    import os

    import flask

    made = _made(*args, **kwargs)

    @made.before_request
    def refuse():
        golden = flask.request.path == "/score" and flask.request.content_length != %d
        return ("teapot", 418) if golden and "KUBERNETES_SERVICE_HOST" in os.environ else None

    return made
"""


def test_no_request_is_lost_in_ten_rollouts_of_mixed_strategies(served: Application, cluster: Namespace) -> None:
    """New models, new code, rollbacks, and rollouts that fail and undo themselves: each answer is a whole one, of one of two models."""
    body = served.scored("chelsea.jpg")
    served.ok("release", "--env", "staging", "--model", "imagenet@1", **_by("rolling"))
    with Load(cluster.host(), cluster.port(f"{served.name}-staging"), body, clients=6, pause=0.1) as load:
        started = time.monotonic()
        _release(served, "rolling", "imagenet@2")
        _change(served, "one")
        _release(served, "blue-green", "imagenet@2")
        _release(served, "canary", "imagenet@1")
        served.ok("rollback", "--env", "staging", "--only", "model", **_by("rolling"))
        _fails_and_is_undone(served, "canary", len(body))
        _change(served, "two")
        _release(served, "rolling", "imagenet@1")
        served.ok("rollback", "--env", "staging", **_by("blue-green"))
        _fails_and_is_undone(served, "rolling", len(body))
        _fails_and_is_undone(served, "blue-green", len(body))
        _release(served, "rolling", "imagenet@2")
        took = time.monotonic() - started

    assert not load.failures, load.failures[:5]
    assert len(load.answers) / took >= AT_LEAST, f"{len(load.answers)} answers in {took:.0f} s"
    released = {item["model_digest"] for item in served.ok("history", "--env", "staging", "--json").json}
    assert set(load.models) == released
    assert len(released) == 2


def _by(strategy: str) -> dict[str, str]:
    return {
        "TWINSHIP_ENVIRONMENTS__STAGING__STRATEGY": strategy,
        "TWINSHIP_ENVIRONMENTS__STAGING__CANARY__SECONDS": "5",
        "TWINSHIP_ENVIRONMENTS__STAGING__STANDBY": "false",
    }


def _release(application: Application, strategy: str, model: str) -> None:
    done = application.ok("release", "--env", "staging", "--model", model, "--json", **_by(strategy)).json
    assert (done["changed"], done["model"]) == (True, model)


def _change(application: Application, word: str) -> None:
    path = application.folder / "app" / "routes.py"
    path.write_text(path.read_text(encoding="utf-8") + f"\n# {word} {time.time()}\n", encoding="utf-8")
    application.commit(f"change {word}")


def _fails_and_is_undone(application: Application, strategy: str, length: int) -> None:
    path = application.folder / "app" / "__init__.py"
    good = path.read_text(encoding="utf-8")
    path.write_text(good + WRONG % length, encoding="utf-8")
    done = application.invoke("release", "--env", "staging", **_by(strategy))
    path.write_text(good, encoding="utf-8")
    assert done.code == 60, done.err
