"""No request is lost: ten rollouts in a row under a steady load, and again at the most that this machine serves."""

from __future__ import annotations

import subprocess
import time

import pytest

from bench import rollouts
from bench.application import Application
from bench.load import Answer, Load
from tests.e2e.cluster import until
from tests.e2e.containers import Watched, docker

# Requests a second, below which a load shows nothing.
AT_LEAST = 20.0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("clients", "pause"), [(6, 0.1), (8, 0.0)], ids=["steady", "all it can"])
def test_no_request_is_lost_in_ten_rollouts(
    serving: Application, clients: int, pause: float
) -> None:
    """New models, new code, both, ways back, failures that undo themselves: each answer is whole, and of a model that may serve."""
    serving.ok("release", "--model", "imagenet@1")
    body = serving.score_request(rollouts.PICTURE)
    load = Load(
        "127.0.0.1",
        serving.port,
        body,
        clients=clients,
        pause=pause,
        extractor=rollouts.first_label,
    )
    rolled = rollouts.measure(
        load, "docker", "load", rollouts.ten_rollouts(rollouts.Deployer(serving, body)), rest=1.0
    )

    assert not load.failures, load.failures[:5]
    assert rolled.mixed == 0
    assert rolled.rolling.rate >= AT_LEAST
    assert len(rolled.rollouts) == 10
    released = {item["model_digest"] for item in serving.ok("history", "--json").json}
    assert set(load.models) == released
    assert len(released) == 2


def test_a_replica_that_dies_is_routed_around_and_replaced(serving: Application) -> None:
    """One whose process is killed is back by itself; one that is stopped for good is replaced by the next run."""
    first, second = _names(serving)
    with Load(
        "127.0.0.1", serving.port, serving.score_request("chelsea.jpg"), clients=4, pause=0.1
    ) as load:
        time.sleep(0.5)
        life = Watched(first).life()
        kills = [_timed("docker", "run", "--rm", "--pid=host", "--user=0", *_killing(first))]
        # Asked from within: the door hears of a death, and of the return, only later.
        until(lambda: _is_ready(first), "it is ready again")
        until(lambda: serving.ok("status", "--json").json["healthy"], "the door knows it")
        assert Watched(first).life() != life
        kills.append(_timed("docker", "kill", second))
        until(lambda: not serving.ok("status", "--json").json["healthy"], "it is missed")
        serving.ok("release")

    # A request that a dead replica was working on cannot be answered by anybody; all others are.
    assert all(any(_is_amid(answer, *kill) for kill in kills) for answer in load.failures), (
        load.failures
    )
    assert len(load.failures) <= 8
    assert serving.ok("status", "--json").json["healthy"] is True
    assert len(_names(serving)) == 2


def test_the_door_restarts_without_losing_the_release(serving: Application) -> None:
    """A front door that was killed comes back by itself and opens what served before."""
    door = f"twinship-{serving.name}-local-door"
    before = serving.ok("status", "--json").json["serving"]["digest"]
    lives = _restarts(door)
    _timed("docker", "exec", door, "sh", "-c", "kill -9 -1; true")
    until(lambda: _restarts(door) > lives, "it was started again")
    until(lambda: serving.ok("status", "--json").json["healthy"], "it opens")

    assert serving.ok("status", "--json").json["serving"]["digest"] == before
    assert serving.ok("verify", "--json").json["passed"] is True


def _timed(*command: str) -> tuple[float, float]:
    """Runs a command; between which moments it did."""
    before = time.monotonic()
    subprocess.run(command, capture_output=True, check=False)
    return before, time.monotonic()


def _killing(replica: str) -> tuple[str, ...]:
    """Return the image and the command that kill a replica's process from outside: from within, its first one is safe."""
    image, process = docker("inspect", "-f", "{{.Image}} {{.State.Pid}}", replica).split()
    return image, "python3", "-c", f"import os; os.kill({process}, 9)"


def _is_amid(answer: Answer, before: float, after: float) -> bool:
    """Whether a request was under way when a replica died: the processes of one that are told to go are gone a moment later."""
    return answer.at < after + 1 and answer.at + answer.seconds > before


def _is_ready(replica: str) -> bool:
    ask = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"
    return (
        subprocess.run(
            ["docker", "exec", replica, "python", "-c", ask], capture_output=True, check=False
        ).returncode
        == 0
    )


def _restarts(container: str) -> int:
    return int(docker("inspect", "-f", "{{.RestartCount}}", container))


def _names(application: Application) -> list[str]:
    found = application.ok("status", "--json").json["replicas"]
    return [replica["name"] for replica in found]
