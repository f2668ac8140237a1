"""Told to stop in mid-rollout, by a person or by a CI system: the previous release is put back before the command ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.application import Application
from tests.e2e.containers import docker

each_signal = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)


@each_signal
def test_a_rollout_on_a_docker_host_that_is_told_to_stop_is_undone(
    serving: Application, number: signal.Signals, code: int
) -> None:
    """The release before serves with the same containers, and the next run begins afresh."""
    before = _status(serving, "local")
    running = _replicas(serving)
    process = serving.start("release", "--model", "imagenet@2")
    _until(lambda: bool(_replicas(serving) - running))
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]

    assert process.returncode == code, said
    after = _status(serving, "local")
    assert after["healthy"] is True
    assert after["serving"] == before["serving"]
    assert (after["last"]["outcome"], after["last"]["why"]) == ("undone", "interrupted")
    assert _replicas(serving) == running


@each_signal
def test_a_rollout_on_a_cluster_that_is_told_to_stop_is_undone(
    served: Application, number: signal.Signals, code: int
) -> None:
    """The same, where it is the cluster that brings the previous release back."""
    before = _status(served, "staging")
    other = "imagenet@1" if before["serving"]["model"] == "imagenet@2" else "imagenet@2"
    process = served.start("release", "--env", "staging", "--model", other)
    for line in process.stderr or ():
        if "· pod" in line:
            break
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]

    assert process.returncode == code, said
    after = _status(served, "staging")
    assert after["healthy"] is True
    assert after["serving"] == before["serving"]
    assert (after["last"]["outcome"], after["last"]["why"]) == ("undone", "interrupted")


def _status(application: Application, environment: str) -> Any:
    return application.ok("status", "--env", environment, "--json").json


def _replicas(application: Application) -> set[str]:
    labels = {"dev.twinship.app": application.name, "dev.twinship.role": "replica"}
    filters = [
        word for name, value in labels.items() for word in ("--filter", f"label={name}={value}")
    ]
    return set(docker("ps", "--quiet", *filters).split())


def _until(moment: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not moment():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
