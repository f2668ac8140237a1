"""No request is lost: ten rollouts in a row under a steady load, and again at the most that this machine serves."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.e2e.application import Application
from tests.e2e.load import Answer, Load

BEHIND_A_PROXY = """


_made = create_app


def create_app(*args, **kwargs):
    import flask

    made = _made(*args, **kwargs)

    @made.before_request
    def refuse():
        golden = flask.request.path == "/score" and flask.request.content_length != %d
        return ("teapot", 418) if golden and "X-Forwarded-For" in flask.request.headers else None

    return made
"""


@pytest.mark.parametrize(("clients", "pause", "at_least"), [(4, 0.1, 20.0), (8, 0.0, 40.0)], ids=["steady", "all it can"])
def test_no_request_is_lost_in_ten_rollouts(serving: Application, clients: int, pause: float, at_least: float) -> None:
    """New models, new code, both, rollbacks, and rollouts that fail and undo themselves: each answer is a whole one."""
    with Load("127.0.0.1", serving.port, serving.scored("chelsea.jpg"), clients=clients, pause=pause) as load:
        started = time.monotonic()
        serving.ok("release", "--model", "imagenet@2")
        _change(serving, "one")
        serving.ok("release", "--model", "imagenet@2")
        _change(serving, "two")
        serving.ok("release", "--model", "imagenet@1")
        serving.ok("rollback", "--only", "model")
        serving.ok("rollback", "--only", "code")
        _fails_and_is_undone(serving)
        serving.ok("release", "--model", "imagenet@1")
        serving.ok("rollback")
        _fails_and_is_undone(serving)
        serving.ok("release", "--model", "imagenet@2")
        took = time.monotonic() - started

    assert not load.failures, load.failures[:5]
    assert len(load.answers) / took >= at_least, f"{len(load.answers)} answers in {took:.0f} s"
    _assert_models_change_only_in_rollouts(serving, load.answers)


def test_a_replica_that_dies_is_routed_around_and_replaced(serving: Application) -> None:
    """One whose processes are killed is back by itself; one that is stopped for good is replaced by the next run."""
    first, second = _names(serving)
    with Load("127.0.0.1", serving.port, serving.scored("chelsea.jpg"), clients=4, pause=0.1) as load:
        time.sleep(0.5)
        killed = [time.monotonic()]
        subprocess.run(["docker", "exec", first, "sh", "-c", "kill -9 -1"], capture_output=True, check=False)
        time.sleep(4)
        killed.append(time.monotonic())
        subprocess.run(["docker", "kill", second], capture_output=True, check=True)
        time.sleep(2)
        serving.ok("release")

    # A request that a dead replica was working on cannot be answered by anybody; all others are.
    assert all(any(moment - 2 < answer.at < moment + 1 for moment in killed) for answer in load.failures), load.failures
    assert len(load.failures) <= 8
    assert serving.ok("status", "--json").json["healthy"] is True
    assert len(_names(serving)) == 2


def test_the_door_restarts_without_losing_the_release(serving: Application) -> None:
    """A front door that was killed comes back by itself and opens what served before."""
    door = f"twinship-{serving.name}-local-door"
    before = serving.ok("status", "--json").json["serving"]["digest"]
    subprocess.run(["docker", "exec", door, "sh", "-c", "kill -9 -1; true"], capture_output=True, check=False)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = serving.ok("status", "--json").json
        if status["healthy"]:
            break
        time.sleep(0.1)

    assert status["healthy"] is True
    assert status["serving"]["digest"] == before
    assert serving.ok("verify", "--json").json["passed"] is True


def _change(application: Application, word: str) -> None:
    path = application.folder / "app" / "routes.py"
    path.write_text(path.read_text(encoding="utf-8") + f"\n# {word} {time.time()}\n", encoding="utf-8")
    application.commit(f"change {word}")


def _fails_and_is_undone(application: Application) -> None:
    """Releases code that is wrong behind a proxy for a golden case alone: the load itself keeps its answers."""
    path = application.folder / "app" / "__init__.py"
    good = path.read_text(encoding="utf-8")
    path.write_text(good + BEHIND_A_PROXY % len(application.scored("chelsea.jpg")), encoding="utf-8")
    application.commit("wrong behind a proxy")
    done = application.invoke("release")
    assert done.code == 60, done.err
    path.write_text(good, encoding="utf-8")
    application.commit("good again")


def _assert_models_change_only_in_rollouts(application: Application, answers: list[Answer]) -> None:
    """Both models answered, and each answer is of one that was released."""
    released = {item["model_digest"] for item in application.ok("history", "--json").json}
    seen = {answer.model for answer in answers}
    assert seen == released
    assert len(seen) == 2


def _names(application: Application) -> list[str]:
    found = application.ok("status", "--json").json["replicas"]
    return [replica["name"] for replica in found]
