"""The target on a cluster in memory: its contracts under each strategy, traffic and standby."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deploy.errors import GoldenMiss
from deploy.records import Release
from deploy.rollout.target import ReplicaState
from deploy.targets.kubernetes.lock import Lock
from deploy.targets.kubernetes.render import CHANGE_CAUSE
from deploy.targets.kubernetes.state import TrafficSplit
from tests.contracts.kubernetes_target import SupportingObjectsContract
from tests.contracts.target import (
    LogTargetContract,
    Place,
    StandbyTargetContract,
    TargetContract,
    replicas,
    states,
)
from tests.contracts.variables import AttemptsContract, GivingPlace
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, STRATEGIES, FakeNamespace


class TestRolling(TargetContract, LogTargetContract):
    """The rolling update of a Deployment meets the contract, but does not keep the old replicas."""

    @pytest.fixture
    def place(self) -> Place:
        return FakeNamespace()


class TestBlueGreen(StandbyTargetContract):
    """Two Deployments keep the old replicas running."""

    @pytest.fixture
    def place(self) -> Place:
        return FakeNamespace(strategy="blue-green")


class TestCanary(StandbyTargetContract):
    """A canary does so too; it is not held if nothing has to be proven."""

    @pytest.fixture
    def place(self) -> Place:
        return FakeNamespace(strategy="canary")


class TestVariables(AttemptsContract):
    """The rules of variables, under each strategy."""

    @pytest.fixture(params=STRATEGIES, ids=lambda settings: settings["strategy"])
    def place(self, request: pytest.FixtureRequest) -> GivingPlace:
        return FakeNamespace(**request.param)


class TestSupportingObjects(SupportingObjectsContract):
    """The supporting objects, under each strategy."""

    @pytest.fixture(params=STRATEGIES, ids=lambda settings: settings["strategy"])
    def place(self, request: pytest.FixtureRequest) -> Place:
        return FakeNamespace(**request.param)


# --- the endpoint


def test_golden_cases_are_played_at_each_new_replica_before_the_switch() -> None:
    """They are played at the endpoint afterwards; a first release needs no separate check."""
    namespace = FakeNamespace(strategy="blue-green")
    namespace.apply(namespace.release("a"))
    assert [url for url, _ in namespace.player.played] == [f"http://fake/services/{NAME}:80"]
    namespace.player.played.clear()
    namespace.apply(namespace.release("b"))
    pods = [f"http://fake/pods/{name}:8080" for name in sorted(namespace.pods())]
    assert [url for url, _ in namespace.player.played] == [*pods, f"http://fake/services/{NAME}:80"]


def test_only_nodes_with_serving_replicas_are_endpoints() -> None:
    """With a local traffic policy a node port works only on a node with a routed replica."""
    namespace = FakeNamespace(strategy="blue-green", standby=True, service="NodePort")
    namespace.apply(namespace.release("a"))
    namespace.cluster.world.nodes.append("node-2")
    namespace.apply(namespace.release("b"))
    namespace.reachable |= {"192.0.2.1", "192.0.2.2"}
    assert {namespace.get("Pod", name)["status"]["hostIP"] for name in namespace.pods("a")} == {
        "192.0.2.1"
    }
    assert namespace.deployer().url.startswith("http://192.0.2.2:3")


# --- the lock


def test_each_write_checks_the_lock_whenever_it_is_sent(
    namespace: FakeNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated request checks it too, because another deployer may have the lock by then."""
    target = namespace.deployer(warm_up=True)
    required = set()
    kinds = set()

    def recorded(write: Callable[..., Any]) -> Callable[..., Any]:
        def asked(item: Any, *name: str, require: Callable[[], None], **how: Any) -> Any:
            required.add(require)
            kinds.add((write.__name__, item if name else item["kind"]))
            return write(item, *name, require=require, **how)

        return asked

    for write in (namespace.cluster.apply, namespace.cluster.delete):
        monkeypatch.setattr(namespace.cluster, write.__name__, recorded(write))
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
    """No replica of the previous release gets requests."""
    namespace.apply(a)
    done = namespace.apply(b)
    target = namespace.deployer()
    assert (done.attempt.id, done.outcome) == (2, "succeeded")
    assert namespace.answers() == {"b"}
    assert states(target) == replicas(b, ReplicaState.SERVING)
    assert target.serves(b)


def test_a_release_waits_until_its_replicas_are_available(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The deadline of the rollout has the time for it."""
    target = namespace.deployer(min_ready_seconds=20)
    namespace.apply(a, target)
    deadline = namespace.get("Deployment")["spec"]["progressDeadlineSeconds"]
    began = namespace.cluster.seconds()
    namespace.apply(b, target)
    assert namespace.cluster.seconds() - began > 20
    assert namespace.answers() == {"b"}
    assert deadline == namespace.get("Deployment")["spec"]["progressDeadlineSeconds"] > 60


def test_a_release_without_a_service_does_not_serve(namespace: FakeNamespace, a: Release) -> None:
    """Its replicas are complete; to release again creates the Service."""
    namespace.apply(a)
    namespace.cluster.delete("Service", NAME)
    assert not namespace.deployer().serves(a)
    namespace.apply(a)
    assert namespace.deployer().serves(a)
    assert namespace.answers() == {"a"}


def test_a_release_whose_image_was_changed_by_hand_does_not_serve(
    namespace: FakeNamespace, a: Release
) -> None:
    """The pod template counts, not the annotations."""
    namespace.apply(a)
    template = namespace.get("Deployment")["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "other.example/other:latest"
    namespace.cluster.step(20)
    assert not namespace.deployer().serves(a)


def test_crashing_replicas_differ_from_starting_ones() -> None:
    """The state of their containers decides."""
    namespace = FakeNamespace()
    namespace.apply(a := namespace.release("a"))
    crashed, lost = sorted(namespace.pods())
    namespace.cluster.scripts[a.image.digest] = PodScript(exits=1)
    namespace.cluster.step(20)
    assert {replica.state for replica in namespace.deployer().replicas()} == {
        ReplicaState.UNHEALTHY
    }
    namespace.cluster.scripts[a.image.digest] = PodScript(ready_after=None)
    namespace.cluster.lose(lost)
    namespace.cluster.step(5)
    found = {replica.name: replica.state for replica in namespace.deployer().replicas()}
    assert found.pop(crashed) == ReplicaState.UNHEALTHY
    assert list(found.values()) == [ReplicaState.STARTING]


def test_a_replica_in_a_crash_loop_is_unhealthy_between_two_crashes() -> None:
    """It is ready then; ten minutes after the last crash it serves again."""
    namespace = FakeNamespace()
    namespace.apply(a := namespace.release("a"))
    crashing, other = sorted(namespace.pods())
    for _ in range(2):
        namespace.cluster.crash(crashing)
        namespace.cluster.sleep(20)
    target = namespace.deployer()
    assert {replica.name: replica.state for replica in target.replicas()} == {
        crashing: ReplicaState.UNHEALTHY,
        other: ReplicaState.SERVING,
    }
    assert not target.serves(a)
    namespace.cluster.sleep(600)
    assert states(target) == replicas(a, ReplicaState.SERVING)
    assert target.serves(a)


def test_the_same_release_again_restarts_no_pod(namespace: FakeNamespace, a: Release) -> None:
    """It is proven again, and recorded on the Deployment too."""
    namespace.apply(a)
    before = namespace.pods()
    assert namespace.apply(a).attempt.id == 2
    assert namespace.pods() == before
    assert namespace.get("Deployment")["metadata"]["annotations"][CHANGE_CAUSE].startswith(
        "release 2: "
    )


# --- standby


@pytest.fixture
def standby() -> FakeNamespace:
    """Return an environment in which the previous release is on standby."""
    namespace = FakeNamespace(strategy="blue-green", standby=True)
    namespace.apply(namespace.release("a"))
    namespace.apply(namespace.release("b"))
    return namespace


def test_the_previous_release_is_on_standby(standby: FakeNamespace) -> None:
    """Its replicas get no requests, and the target serves the last release."""
    a = standby.release("a")
    b = standby.release("b")
    assert states(standby.deployer()) == sorted(
        replicas(a, ReplicaState.STANDBY) + replicas(b, ReplicaState.SERVING)
    )
    assert standby.answers() == {"b"}
    assert standby.deployer().serves(b)


def test_a_rollback_to_a_standby_starts_no_pod(standby: FakeNamespace) -> None:
    """Only the Service is switched; the last release is then on standby."""
    before = standby.pods()
    versions = {name: standby.get("Deployment", name)["spec"] for name in (NAME, f"{NAME}-twin")}
    standby.apply(standby.release("a"), trigger="rollback")
    assert standby.answers() == {"a"}
    assert standby.pods() == before
    assert standby.get("Deployment")["metadata"]["annotations"][CHANGE_CAUSE].startswith(
        "rollback 3: "
    )
    assert {name: standby.get("Deployment", name)["spec"] for name in versions} == versions


def test_a_third_release_replaces_the_standby(standby: FakeNamespace) -> None:
    """There are never more than two."""
    standby.apply(standby.release("c"))
    assert {standby.cluster.response_text(standby.get("Pod", name)) for name in standby.pods()} == {
        "b",
        "c",
    }


def test_a_standby_is_removed_if_the_settings_do_not_allow_it(standby: FakeNamespace) -> None:
    """Until then the release does not count as serving."""
    changed = standby.deployer(standby=False)
    assert not changed.serves(standby.release("b"))
    standby.apply(standby.release("b"), changed)
    assert standby.pods() == standby.pods("b")


def test_a_failed_release_is_no_standby(standby: FakeNamespace) -> None:
    """It may have served before, but it does not work any more."""
    a = standby.release("a")
    b = standby.release("b")
    standby.fail_golden_cases("/services/", a)
    with pytest.raises(GoldenMiss):
        standby.apply(a, trigger="rollback")
    assert standby.answers() == {"b"}
    assert states(standby.deployer()) == replicas(b, ReplicaState.SERVING)


def test_a_standby_with_other_settings_is_rolled_out_again(standby: FakeNamespace) -> None:
    """It is proven before it gets requests."""
    before = standby.pods("a")
    standby.apply(standby.release("a"), standby.deployer(ready_within=30.0), trigger="rollback")
    assert standby.answers() == {"a"}
    assert standby.pods("a").isdisjoint(before)


def test_an_empty_settle_removes_all_replicas(standby: FakeNamespace) -> None:
    """After a failed first release nothing remains, not even a standby."""
    target = standby.target()
    target.settle()
    assert standby.pods() == set()
    assert target.replicas() == ()


def test_settle_never_removes_what_serves_for_another_release(standby: FakeNamespace) -> None:
    """The Service must not stop answering."""
    standby.target().settle(standby.release("a"))
    assert standby.answers() == {"b"}


def test_an_abandoned_canary_is_no_standby(standby: FakeNamespace) -> None:
    """It served once, but golden cases must be played again."""
    standby.writer().supporting_objects.point_service(TrafficSplit("twin", both=True))
    standby.player.played.clear()
    standby.apply(standby.release("a"), trigger="rollback")
    assert [url for url, _ in standby.player.played if "/pods/" in url]
    assert standby.answers() == {"a"}


# --- from one strategy to another


@pytest.mark.parametrize("after", STRATEGIES, ids=lambda settings: settings["strategy"])
def test_the_strategy_may_change_between_releases(
    namespace: FakeNamespace, after: dict[str, Any], a: Release, b: Release
) -> None:
    """The previous release may be on either track."""
    namespace.apply(a)
    namespace.apply(b)
    namespace.apply(c := namespace.release("c"), namespace.deployer(**after))
    assert namespace.answers() == {"c"}
    assert states(namespace.deployer(**after)) == replicas(c, ReplicaState.SERVING)
    assert namespace.deployer(**after).serves(c)
    namespace.apply(a)
    assert states(namespace.deployer()) == replicas(a, ReplicaState.SERVING)


@pytest.mark.parametrize("after", STRATEGIES[:2], ids=lambda settings: settings["strategy"])
def test_an_abandoned_canary_is_finished_by_another_strategy(after: dict[str, Any]) -> None:
    """In the end one track gets all requests."""
    namespace = FakeNamespace(strategy="canary")
    namespace.apply(namespace.release("a"))
    writer = namespace.writer()
    writer.roll_out("twin", b := namespace.release("b"), 1)
    writer.supporting_objects.point_service(TrafficSplit("main", both=True))
    namespace.apply(b, namespace.deployer(**after))
    assert namespace.answers() == {"b"}
    assert states(namespace.deployer(**after)) == replicas(b, ReplicaState.SERVING)
