"""No request is lost: ten rollouts in a row under a steady load, and again at the most that this machine serves."""

from __future__ import annotations

import subprocess
import time

import pytest

from bench import rollouts
from bench.application import Application
from bench.load import Load


@pytest.mark.parametrize(("clients", "pause", "at_least"), [(4, 0.1, 20.0), (8, 0.0, 40.0)], ids=["steady", "all it can"])
def test_no_request_is_lost_in_ten_rollouts(serving: Application, clients: int, pause: float, at_least: float) -> None:
    """New models, new code, both, ways back, failures that undo themselves: each answer is whole, and of a model that may serve."""
    serving.ok("release", "--model", "imagenet@1")
    body = serving.scored(rollouts.PICTURE)
    load = Load("127.0.0.1", serving.port, body, clients=clients, pause=pause, kept=rollouts.first_label)
    rolled = rollouts.under(load, "docker", "load", rollouts.ten(rollouts.Deployer(serving, body)), rest=1.0)

    assert not load.failures, load.failures[:5]
    assert rolled.mixed == 0
    assert rolled.rolling.rate >= at_least
    assert len(rolled.rollouts) == 10
    released = {item["model_digest"] for item in serving.ok("history", "--json").json}
    assert set(load.models) == released
    assert len(released) == 2


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


def _names(application: Application) -> list[str]:
    found = application.ok("status", "--json").json["replicas"]
    return [replica["name"] for replica in found]
