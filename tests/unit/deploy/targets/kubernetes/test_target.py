"""The target on a cluster, on one in memory: its contracts under each strategy, and what serves, stands by and goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deploy.errors import GoldenMiss
from deploy.records import Release
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.render import CHANGE_CAUSE
from deploy.targets.kubernetes.state import TrafficSplit
from tests.contracts.kubernetes_target import AroundContract
from tests.contracts.target import Place, TargetContract, WarmTargetContract, replicas, states
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, STRATEGIES, FakeNamespace


class TestRolling(TargetContract):
    """A Deployment's own rolling update keeps the contract, but not the old replicas."""

    @pytest.fixture
    def place(self) -> Place:
        return FakeNamespace()


class TestBlueGreen(WarmTargetContract):
    """Two Deployments keep the old replicas warm."""

    @pytest.fixture
    def place(self) -> Place:
        return FakeNamespace(strategy="blue-green")


class TestCanary(WarmTargetContract):
    """So does a canary, which is not held where nothing has to be proven."""

    @pytest.fixture
    def place(self) -> Place:
        return FakeNamespace(strategy="canary")


class TestAround(AroundContract):
    """Under each strategy."""

    @pytest.fixture(params=STRATEGIES, ids=lambda settings: settings["strategy"])
    def place(self, request: pytest.FixtureRequest) -> Place:
        return FakeNamespace(**request.param)


# --- the front door


def test_golden_cases_are_played_at_each_new_replica_before_the_switch() -> None:
    """And at the front door after it; while nothing serves there is nothing to keep apart."""
    namespace = FakeNamespace(strategy="blue-green")
    namespace.apply(namespace.release("a"))
    assert [url for url, _ in namespace.player.played] == [f"http://fake/services/{NAME}:80"]
    namespace.player.played.clear()
    namespace.apply(namespace.release("b"))
    pods = [f"http://fake/pods/{name}:8080" for name in sorted(namespace.pods())]
    assert [url for url, _ in namespace.player.played] == [*pods, f"http://fake/services/{NAME}:80"]


def test_the_nodes_of_replicas_that_get_no_requests_are_no_way_in() -> None:
    """A node port leads nowhere on a node where the Service has no replica, if its traffic policy is local."""
    namespace = FakeNamespace(strategy="blue-green", standby=True, service="NodePort")
    namespace.apply(namespace.release("a"))
    namespace.cluster.world.nodes.append("node-2")
    namespace.apply(namespace.release("b"))
    namespace.reachable |= {"192.0.2.1", "192.0.2.2"}
    assert {namespace.get("Pod", name)["status"]["hostIP"] for name in namespace.pods("a")} == {
        "192.0.2.1"
    }
    assert namespace.deployer().url.startswith("http://192.0.2.2:3")


# --- the lease


def test_each_write_makes_sure_of_the_lease_whenever_it_is_sent(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is sent again, to a server that was away: somebody else may have the environment by then."""
    target = namespace.deployer(warm_up=True)
    required = set()
    kinds = set()

    def sent(write: Callable[..., Any]) -> Callable[..., Any]:
        def asked(item: Any, *name: str, require: Callable[[], None], **how: Any) -> Any:
            required.add(require)
            kinds.add((write.__name__, item if name else item["kind"]))
            return write(item, *name, require=require, **how)

        return asked

    for write in (namespace.cluster.apply, namespace.cluster.delete):
        monkeypatch.setattr(namespace.cluster, write.__name__, sent(write))
    namespace.apply(namespace.release("a"), target)
    namespace.apply(namespace.release("b"), target)
    assert len(required) == 1
    assert {getattr(one, "__func__", None) for one in required} == {Lock.require}
    assert {
        ("apply", "Service"),
        ("apply", "Deployment"),
        ("apply", "DaemonSet"),
        ("delete", "DaemonSet"),
    } <= kinds


# --- what serves


def test_a_release_serves_with_all_its_replicas(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """And none of the release before gets requests."""
    namespace.apply(a)
    done = namespace.apply(b)
    target = namespace.deployer()
    assert (done.attempt.id, done.outcome) == (2, "succeeded")
    assert namespace.answers() == {"b"}
    assert states(target) == replicas(b, "serving")
    assert target.serves(b)


def test_a_release_whose_service_is_gone_does_not_serve(
    namespace: FakeNamespace, a: Release
) -> None:
    """Its replicas are all there, but nobody can ask them; releasing again makes the Service anew."""
    namespace.apply(a)
    namespace.cluster.delete("Service", NAME)
    assert not namespace.deployer().serves(a)
    namespace.apply(a)
    assert namespace.deployer().serves(a)
    assert namespace.answers() == {"a"}


def test_a_release_whose_image_was_changed_by_hand_does_not_serve(
    namespace: FakeNamespace, a: Release
) -> None:
    """What counts is what the pods are made to run, not what is noted beside it."""
    namespace.apply(a)
    template = namespace.get("Deployment")["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "elsewhere.example/other:latest"
    namespace.cluster.step(20)
    assert not namespace.deployer().serves(a)


def test_replicas_that_crash_are_told_from_those_that_start() -> None:
    """By what their containers say."""
    namespace = FakeNamespace()
    namespace.apply(a := namespace.release("a"))
    crashed, lost = sorted(namespace.pods())
    namespace.cluster.scripts[a.image.digest] = PodScript(exits=1)
    namespace.cluster.step(20)
    assert {replica.state for replica in namespace.deployer().replicas()} == {"failing"}
    namespace.cluster.scripts[a.image.digest] = PodScript(ready_after=None)
    namespace.cluster.lose(lost)
    namespace.cluster.step(5)
    found = {replica.name: replica.state for replica in namespace.deployer().replicas()}
    assert found.pop(crashed) == "failing"
    assert list(found.values()) == ["starting"]


def test_the_same_release_again_touches_no_pod(namespace: FakeNamespace, a: Release) -> None:
    """It is proven again, and written down, in the cluster's own memory, too."""
    namespace.apply(a)
    before = namespace.pods()
    assert namespace.apply(a).attempt.id == 2
    assert namespace.pods() == before
    assert namespace.get("Deployment")["metadata"]["annotations"][CHANGE_CAUSE].startswith(
        "release 2: "
    )


# --- a standby side


@pytest.fixture
def standby() -> FakeNamespace:
    """An environment whose last release but one stands by."""
    namespace = FakeNamespace(strategy="blue-green", standby=True)
    namespace.apply(namespace.release("a"))
    namespace.apply(namespace.release("b"))
    return namespace


def test_the_release_before_stands_by(standby: FakeNamespace) -> None:
    """Its replicas get no requests, and the environment is as it should be."""
    a = standby.release("a")
    b = standby.release("b")
    assert states(standby.deployer()) == sorted(replicas(a, "standing by") + replicas(b, "serving"))
    assert standby.answers() == {"b"}
    assert standby.deployer().serves(b)


def test_going_back_to_what_stands_by_starts_no_pod(standby: FakeNamespace) -> None:
    """Only the Service is led elsewhere; what served until then stands by in turn."""
    before = standby.pods()
    versions = {side: standby.get("Deployment", side)["spec"] for side in (NAME, f"{NAME}-twin")}
    standby.apply(standby.release("a"), trigger="rollback")
    assert standby.answers() == {"a"}
    assert standby.pods() == before
    assert standby.get("Deployment")["metadata"]["annotations"][CHANGE_CAUSE].startswith(
        "rollback 3: "
    )
    assert {side: standby.get("Deployment", side)["spec"] for side in versions} == versions


def test_a_third_release_takes_the_place_of_what_stood_by(standby: FakeNamespace) -> None:
    """There are never more than two."""
    standby.apply(standby.release("c"))
    assert {standby.cluster.response_text(standby.get("Pod", name)) for name in standby.pods()} == {
        "b",
        "c",
    }


def test_what_stands_by_goes_when_the_settings_no_longer_want_it(standby: FakeNamespace) -> None:
    """The release does not count as serving as it should until then."""
    changed = standby.deployer(standby=False)
    assert not changed.serves(standby.release("b"))
    standby.apply(standby.release("b"), changed)
    assert standby.pods() == standby.pods("b")


def test_a_release_that_was_given_up_does_not_stand_by(standby: FakeNamespace) -> None:
    """Though it had served well before: it has just shown that it does not any more."""
    a = standby.release("a")
    b = standby.release("b")
    standby.fail_golden_cases("/services/", a)
    with pytest.raises(GoldenMiss):
        standby.apply(a, trigger="rollback")
    assert standby.answers() == {"b"}
    assert states(standby.deployer()) == replicas(b, "serving")


def test_a_standby_of_other_settings_is_no_instant_way_back(standby: FakeNamespace) -> None:
    """It is made anew, and proven before it gets requests."""
    before = standby.pods("a")
    standby.apply(standby.release("a"), standby.deployer(ready_within=30.0), trigger="rollback")
    assert standby.answers() == {"a"}
    assert standby.pods("a").isdisjoint(before)


def test_an_empty_settle_takes_everything_away(standby: FakeNamespace) -> None:
    """Standby or not: where nothing served before a first release that failed, nothing is left."""
    target = standby.target()
    target.settle()
    assert standby.pods() == set()
    assert target.replicas() == ()


def test_what_serves_is_never_settled_away_for_something_else(standby: FakeNamespace) -> None:
    """Releases that nobody gets to see are no reason to stop answering."""
    standby.target().settle(standby.release("a"))
    assert standby.answers() == {"b"}


def test_a_canary_that_was_left_is_no_standby(standby: FakeNamespace) -> None:
    """Though it served well once: it has not proven itself this time, and is asked first."""
    standby.writer().supporting_objects.point_service(TrafficSplit("twin", both=True))
    standby.player.played.clear()
    standby.apply(standby.release("a"), trigger="rollback")
    assert [url for url, _ in standby.player.played if "/pods/" in url]
    assert standby.answers() == {"a"}


# --- from one strategy to another


@pytest.mark.parametrize("after", STRATEGIES, ids=lambda settings: settings["strategy"])
def test_a_strategy_may_change_from_release_to_release(
    namespace: FakeNamespace, after: dict[str, Any], a: Release, b: Release
) -> None:
    """Forth and back, on whichever side the release before was."""
    namespace.apply(a)
    namespace.apply(b)
    namespace.apply(c := namespace.release("c"), namespace.deployer(**after))
    assert namespace.answers() == {"c"}
    assert states(namespace.deployer(**after)) == replicas(c, "serving")
    assert namespace.deployer(**after).serves(c)
    namespace.apply(a)
    assert states(namespace.deployer()) == replicas(a, "serving")


@pytest.mark.parametrize("after", STRATEGIES[:2], ids=lambda settings: settings["strategy"])
def test_a_canary_that_was_left_is_finished_by_another_strategy(after: dict[str, Any]) -> None:
    """It gets all requests, in the end on one side alone."""
    namespace = FakeNamespace(strategy="canary")
    namespace.apply(namespace.release("a"))
    changes = namespace.writer()
    changes.roll_out("twin", b := namespace.release("b"), 1)
    changes.supporting_objects.point_service(TrafficSplit("main", both=True))
    namespace.apply(b, namespace.deployer(**after))
    assert namespace.answers() == {"b"}
    assert states(namespace.deployer(**after)) == replicas(b, "serving")
