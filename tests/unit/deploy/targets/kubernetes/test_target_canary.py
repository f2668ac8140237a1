"""Canaries on a cluster in memory: what they have, and what becomes of them."""

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
from deploy.targets.kubernetes.pods import Pod
from tests.contracts.target import replicas, states
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, FakeNamespace, observe_responses


def is_undone(namespace: FakeNamespace) -> None:
    """The release before serves alone, and the history says that the last one was taken back."""
    assert namespace.answers() == {"a"}
    assert states(namespace.deployer()) == replicas(namespace.release("a"), "serving")
    assert namespace.deployer().history()[-1].outcome == "undone"


def counted(namespace: FakeNamespace, failing: float) -> None:
    """Has replicas tell of ten answers a second, a share of which fails where they are of `b`."""

    def metrics(endpoint: Any, _path: str) -> str:
        name = endpoint.url.rpartition("/")[2].partition(":")[0]
        total = 10 * namespace.cluster.seconds()
        failed = total * failing if name in namespace.pods("b") else 0
        return f'app_requests_total{{status="200"}} {total - failed}\napp_requests_total{{status="500"}} {failed}\n'

    namespace.metrics = metrics


def canary(**settings: Any) -> FakeNamespace:
    """An environment with canaries in which `a` serves."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 30, **settings})
    namespace.apply(namespace.release("a"))
    return namespace


def test_a_canary_that_fails_requests_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had its share of requests, no more, and has none then."""
    namespace = canary()
    counted(namespace, 0.2)
    seen = observe_responses(namespace, monkeypatch)
    with pytest.raises(
        CanaryAborted, match=r"failed 20\.0% of its requests, the stable release 0\.0%"
    ):
        namespace.apply(namespace.release("b"))
    is_undone(namespace)
    assert all("a" in answers for answers in seen)
    assert {"a", "b"} in seen


def test_a_canary_that_dies_is_given_up() -> None:
    """At once, with the end of its log."""
    namespace = canary()
    b = namespace.release("b", PodScript(ready_after=1, dies_after=20, says="out of memory"))
    with pytest.raises(RolloutFailed, match="a replica of the canary died") as caught:
        namespace.apply(b)
    assert "out of memory" in caught.value.detail
    is_undone(namespace)


def test_a_canary_that_is_lost_is_waited_for() -> None:
    """A node that is drained says nothing about a release."""
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


def test_a_canary_that_was_started_again_is_given_up() -> None:
    """Though it is ready again: it is being tried, and has died."""
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
    is_undone(namespace)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_canary_of_as_many_replicas_as_serve_has_half_of_the_requests(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are never more of them than there shall be in the end."""
    namespace = canary(replicas=count)
    counted(namespace, 0)
    step = namespace.cluster.step
    most = [0]

    def watched(times: int = 1, seconds: float = 0.1) -> None:
        step(times, seconds)
        most[0] = max(most[0], len(namespace.pods("b")))

    monkeypatch.setattr(namespace.cluster, "step", watched)
    namespace.apply(b := namespace.release("b"))
    assert most == [2]
    assert states(namespace.deployer()) == replicas(b, "serving")
    assert namespace.deployer().serves(b)


@pytest.mark.parametrize("verb", ["promote", "abort"])
def test_a_word_ends_the_hold(verb: Any) -> None:
    """Whoever says it is named."""
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
        is_undone(namespace)
    else:
        namespace.apply(b)
        assert namespace.answers() == {"b"}
    assert namespace.cluster.seconds() - began < 100


def test_a_first_canary_has_nothing_to_be_compared_with() -> None:
    """It is rolled out like any first release."""
    namespace = FakeNamespace(strategy="canary", canary={"seconds": 3600})
    namespace.apply(b := namespace.release("b"))
    assert states(namespace.deployer()) == replicas(b, "serving")
    assert namespace.cluster.seconds() < 100


def test_a_canary_that_comes_to_answer_wrongly_is_given_up() -> None:
    """Golden cases are played again and again while it is held."""
    namespace = canary(metrics="")
    b = namespace.release("b")
    namespace.player.problem = lambda: (
        "expected 3, got 8" if namespace.deployer().canary() == b.image.digest else ""
    )
    with pytest.raises(GoldenMiss):
        namespace.apply(b)
    is_undone(namespace)


@pytest.mark.parametrize("error", [ClusterForbidden, ClusterUnreachable])
def test_a_canary_that_cannot_be_asked_for_a_reason_of_the_clusters_is_given_up_for_that_reason(
    error: Any,
) -> None:
    """Nothing is known of it; but it is not said that it answered wrongly."""
    namespace = canary(metrics="")
    b = namespace.release("b")

    def problem() -> str:
        if namespace.deployer().canary() == b.image.digest:
            raise error("the API server says no", on="it", next="see to it")
        return ""

    namespace.player.problem = problem
    with pytest.raises(error):
        namespace.apply(b)
    is_undone(namespace)
    ending = namespace.deployer().history()[-1].ending
    assert ending
    assert ending.why == "the API server says no"


def test_as_many_replicas_take_over_as_serve_when_the_hold_ends() -> None:
    """However long it lasted, and whoever needed more of them in the meantime."""
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
    assert states(namespace.deployer()) == replicas(b, "serving", 5)
