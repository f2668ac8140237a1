"""A signal during a rollout on a Docker host: the previous release is restored first."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from bench.application import Application
from tests.e2e.cluster import until
from tests.e2e.containers import docker


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_rollout_that_gets_a_signal_is_undone(
    serving: Application, number: signal.Signals, code: int
) -> None:
    """The previous release serves with the same containers, and the history has the reason."""
    before = _status(serving)
    running = _replicas(serving)
    process = serving.start("release", "--model", "imagenet@2")
    until(lambda: _replicas(serving) - running, "a replica of the new release runs")
    process.send_signal(number)
    printed = process.communicate(timeout=120)[1]

    assert process.returncode == code, printed
    after = _status(serving)
    assert after["healthy"] is True
    assert after["serving"] == before["serving"]
    assert (after["last"]["outcome"], after["last"]["why"]) == ("undone", "interrupted")
    assert _replicas(serving) == running


def _status(application: Application) -> Any:
    return application.ok("status", "--json").json


def _replicas(application: Application) -> set[str]:
    labels = {"dev.twinship.app": application.name, "dev.twinship.role": "replica"}
    filters = [
        word for name, value in labels.items() for word in ("--filter", f"label={name}={value}")
    ]
    return set(docker("ps", "--quiet", *filters).split())
