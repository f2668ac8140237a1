"""Canaries on a cluster in memory: their requests, and how their hold ends."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.errors import (
    CanaryAborted,
    ClusterForbidden,
    ClusterUnreachable,
    GoldenMiss,
    RolloutFailed,
)
from deploy.rollout.target import ReplicaState
from deploy.targets.kubernetes.pods import Pod
from tests.contracts.target import replicas, states
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, FakeNamespace, observe_responses


def assert_undone(namespace: FakeNamespace) -> None:
    """Assert that the previous release serves alone, and that the history records the undo."""
    assert namespace.answers() == {"a"}
    assert states(namespace.deployer()) == replicas(namespace.release("a"), ReplicaState.SERVING)
    assert namespace.deployer().history()[-1].outcome == "undone"


def report_metrics(namespace: FakeNamespace, failure_rate: float) -> None:
    """Let replicas report ten responses a second, some of which fail if they are of `b`."""

    def metrics(endpoint: Any, _path: str) -> str:
        name = endpoint.url.rpartition("/")[2].partition(":")[0]
        total = 10 * namespace.cluster.seconds()
        failed = total * failure_rate if name in namespace.pods("b") else 0
        return (
            f'app_requests_total{{status="200"}} {total - failed}\n'
            f'app_requests_total{{status="500"}} {failed}\n'
        )

    namespace.metrics = metrics


def canary(**settings: Any) -> FakeNamespace:
    """Return an environment with canaries in which `a` serves."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 30, **settings})
    namespace.apply(namespace.release("a"))
    return namespace


def test_a_canary_that_fails_requests_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a share of the requests, and none afterwards."""
    namespace = canary()
    report_metrics(namespace, 0.2)
    seen = observe_responses(namespace, monkeypatch)
    with pytest.raises(
        CanaryAborted, match=r"failed 20\.0% of its requests, the stable release 0\.0%"
    ):
        namespace.apply(namespace.release("b"))
    assert_undone(namespace)
    assert all("a" in answers for answers in seen)
    assert {"a", "b"} in seen


def test_a_canary_that_dies_is_aborted() -> None:
    """That happens at once; the error has the end of its log."""
    namespace = canary()
    b = namespace.release("b", PodScript(ready_after=1, dies_after=20, says="out of memory"))
    with pytest.raises(RolloutFailed, match="a replica of the canary died") as caught:
        namespace.apply(b)
    assert "out of memory" in caught.value.detail
    assert_undone(namespace)


def test_a_removed_canary_replica_is_waited_for() -> None:
    """A drained node does not say that the release is bad."""
    namespace = canary(metrics="")
    b = namespace.release("b")
    began = namespace.cluster.seconds()
    lost: list[str] = []

    def problem() -> str:
        asked = namespace.player.played[-1][0].rpartition("/")[2].partition(":")[0]
        assert (
            "/services/" in namespace.player.played[-1][0] or Pod(namespace.get("Pod", asked)).ready
        )
        if namespace.cluster.seconds() - began > 12 and not lost and namespace.pods("b"):
            namespace.cluster.scripts[b.image.digest] = PodScript(ready_after=50)
            lost.append(min(namespace.pods("b")))
            namespace.cluster.lose(lost[0])
        return ""

    namespace.player.problem = problem
    namespace.apply(b)
    assert lost
    assert namespace.answers() == {"b"}


def test_a_restarted_canary_is_aborted() -> None:
    """It is ready again, but it has died while it was on hold."""
    namespace = canary()
    b = namespace.release("b")

    def metrics(endpoint: Any, _path: str) -> str:
        name = endpoint.url.rpartition("/")[2].partition(":")[0]
        if name in namespace.pods("b") and not Pod(namespace.get("Pod", name)).restarts:
            namespace.cluster.crash(name)
            namespace.cluster.step(20)
            assert Pod(namespace.get("Pod", name)).ready
        return ""

    namespace.metrics = metrics
    with pytest.raises(RolloutFailed, match="a replica of the canary died"):
        namespace.apply(b)
    assert_undone(namespace)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_canary_has_at_most_as_many_replicas_as_serve(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it gets at most half of the requests."""
    namespace = canary(replicas=count)
    report_metrics(namespace, 0)
    step = namespace.cluster.step
    most = [0]

    def observed_step(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        most[0] = max(most[0], len(namespace.pods("b")))

    monkeypatch.setattr(namespace.cluster, "step", observed_step)
    namespace.apply(b := namespace.release("b"))
    assert most == [2]
    assert states(namespace.deployer()) == replicas(b, ReplicaState.SERVING)
    assert namespace.deployer().serves(b)


@pytest.mark.parametrize("verb", ["promote", "abort"])
def test_a_decision_ends_the_hold(verb: Any) -> None:
    """The error of an abort names the person."""
    namespace = canary(seconds=3600, metrics="")
    b = namespace.release("b")
    began = namespace.cluster.seconds()
    calls: list[str] = []

    def problem() -> str:
        if namespace.deployer().canary() == b.image.digest and not calls:
            namespace.deployer().decide(verb, "grace")
            calls.append(verb)
        return ""

    namespace.player.problem = problem
    if verb == "abort":
        with pytest.raises(CanaryAborted, match="grace aborted the canary"):
            namespace.apply(b)
        assert_undone(namespace)
    else:
        namespace.apply(b)
        assert namespace.answers() == {"b"}
    assert namespace.cluster.seconds() - began < 100


def test_a_first_release_is_not_held_as_a_canary() -> None:
    """There is no other release to compare it with."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 3600})
    namespace.apply(b := namespace.release("b"))
    assert states(namespace.deployer()) == replicas(b, ReplicaState.SERVING)
    assert namespace.cluster.seconds() < 100


def test_a_canary_that_answers_wrongly_is_aborted() -> None:
    """Golden cases are played repeatedly during the hold."""
    namespace = canary(metrics="")
    b = namespace.release("b")
    namespace.player.problem = lambda: (
        "expected 3, got 8" if namespace.deployer().canary() == b.image.digest else ""
    )
    with pytest.raises(GoldenMiss):
        namespace.apply(b)
    assert_undone(namespace)


@pytest.mark.parametrize("error", [ClusterForbidden, ClusterUnreachable])
def test_a_canary_that_the_cluster_does_not_reach_is_aborted(
    error: Any,
) -> None:
    """The history has the error of the cluster as the reason."""
    namespace = canary(metrics="")
    b = namespace.release("b")

    def problem() -> str:
        if namespace.deployer().canary() == b.image.digest:
            raise error("the API server says no", on="it", next="see to it")
        return ""

    namespace.player.problem = problem
    with pytest.raises(error):
        namespace.apply(b)
    assert_undone(namespace)
    ending = namespace.deployer().history()[-1].ending
    assert ending
    assert ending.why == "the API server says no"


def test_as_many_replicas_take_over_as_serve_when_the_hold_ends() -> None:
    """The number may have been changed on the cluster during the hold."""
    namespace = canary(metrics="")
    b = namespace.release("b")

    def problem() -> str:
        if namespace.deployer().canary() == b.image.digest:
            namespace.cluster.apply_as(
                {"kind": "Deployment", "metadata": {"name": NAME}, "spec": {"replicas": 5}},
                "kubectl",
            )
        return ""

    namespace.player.problem = problem
    namespace.apply(b)
    assert states(namespace.deployer()) == replicas(b, ReplicaState.SERVING, 5)
