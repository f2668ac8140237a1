"""A signal during a rollout on a cluster: the previous release is restored first."""

from __future__ import annotations

import signal

import pytest

from bench.application import Application


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_rollout_that_gets_a_signal_is_undone(
    served: Application, number: signal.Signals, code: int
) -> None:
    """The cluster brings back the previous release, and the history has the reason."""
    before = served.ok("status", "--env", "staging", "--json").json
    other = "imagenet@1" if before["serving"]["model"] == "imagenet@2" else "imagenet@2"
    process = served.start("release", "--env", "staging", "--model", other)
    assert any("· pod" in line for line in process.stderr or ()), "the release ended without a pod"
    process.send_signal(number)
    printed = process.communicate(timeout=120)[1]

    assert process.returncode == code, printed
    after = served.ok("status", "--env", "staging", "--json").json
    assert after["healthy"] is True
    assert after["serving"] == before["serving"]
    assert (after["last"]["outcome"], after["last"]["why"]) == ("undone", "interrupted")
