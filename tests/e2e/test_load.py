"""Ten rollouts under a steady load, and ten under the highest possible load."""

from __future__ import annotations

import subprocess
import time

import pytest

from bench import rollouts
from bench.application import Application
from bench.load import Answer, Load
from tests.e2e.cluster import until
from tests.e2e.containers import Container, docker

# With fewer requests a second, a load proves nothing.
AT_LEAST = 20.0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("clients", "pause"), [(6, 0.1), (8, 0.0)], ids=["steady", "highest"])
def test_no_request_is_lost_in_ten_rollouts(
    serving: Application, clients: int, pause: float
) -> None:
    """Each response is whole, and from a model that may serve at that moment."""
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


def test_a_killed_replica_gets_no_requests_and_is_replaced(serving: Application) -> None:
    """A replica whose processes are killed restarts; a stopped one is replaced by the next run."""
    first, second = _names(serving)
    with Load(
        "127.0.0.1", serving.port, serving.score_request("chelsea.jpg"), clients=4, pause=0.1
    ) as load:
        until(lambda: len(load.answers) > 10, "the load has begun")
        state = Container(first).run_state()
        kills = [_run_timed("docker", "run", "--rm", "--pid=host", "--user=0", *_killer(first))]
        # This checks the replica itself: the proxy notices its end and its restart only later.
        until(lambda: _is_ready(first), "it is ready again")
        until(
            lambda: serving.ok("status", "--json").json["healthy"], "the proxy sends requests to it"
        )
        assert Container(first).run_state() != state
        kills.append(_run_timed("docker", "kill", second))
        until(lambda: not serving.ok("status", "--json").json["healthy"], "the proxy misses it")
        serving.ok("release")

    # Only a request that a killed replica was working on may be lost.
    assert all(any(_is_in_flight(answer, *kill) for kill in kills) for answer in load.failures), (
        load.failures
    )
    assert len(load.failures) <= 8
    assert serving.ok("status", "--json").json["healthy"] is True
    assert len(_names(serving)) == 2


def test_the_proxy_restarts_with_the_same_release(serving: Application) -> None:
    """A proxy that was killed starts again and serves the same release as before."""
    proxy = f"twinship-{serving.name}-local-door"
    before = serving.ok("status", "--json").json["serving"]["digest"]
    lives = _restarts(proxy)
    _run_timed("docker", "exec", proxy, "sh", "-c", "kill -9 -1; true")
    until(lambda: _restarts(proxy) > lives, "it was started again")
    until(lambda: serving.ok("status", "--json").json["healthy"], "it serves again")

    assert serving.ok("status", "--json").json["serving"]["digest"] == before
    assert serving.ok("verify", "--json").json["passed"] is True


def _killer(replica: str) -> tuple[str, ...]:
    """Return the image and the command that kill a replica's first process from outside.

    The kernel ignores the signal if a process of the same container sends it.
    """
    image, process = docker("inspect", "-f", "{{.Image}} {{.State.Pid}}", replica).split()
    return image, "python3", "-c", f"import os; os.kill({process}, 9)"


def _run_timed(*command: str) -> tuple[float, float]:
    """Run a command; return the times of its start and its end."""
    before = time.monotonic()
    subprocess.run(command, capture_output=True, check=False)
    return before, time.monotonic()


def _is_in_flight(answer: Answer, before: float, after: float) -> bool:
    """Return whether a request was in flight when a replica was killed, or just after."""
    return answer.at < after + 1 and answer.at + answer.seconds > before


def _is_ready(replica: str) -> bool:
    request = (
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"
    )
    return (
        subprocess.run(
            ["docker", "exec", replica, "python", "-c", request], capture_output=True, check=False
        ).returncode
        == 0
    )


def _restarts(container: str) -> int:
    return int(docker("inspect", "-f", "{{.RestartCount}}", container))


def _names(application: Application) -> list[str]:
    found = application.ok("status", "--json").json["replicas"]
    return [replica["name"] for replica in found]
