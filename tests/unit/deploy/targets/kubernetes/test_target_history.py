"""The history, the pre-pull and the lock of the target on a cluster."""

from __future__ import annotations

import pytest

from deploy.errors import (
    ClusterForbidden,
    GoldenMiss,
    NamespaceMissing,
    RolloutFailed,
    RolloutLocked,
)
from deploy.records import Ending, Release
from deploy.targets.kubernetes.history import History
from deploy.targets.kubernetes.render import CHANGE_CAUSE, RELEASE_ANNOTATION, TRACK_LABEL
from deploy.targets.kubernetes.snapshot import Snapshot
from tests.contracts.target import trust
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, FakeNamespace
from tests.fakes.releases import attempt, rollout

# --- history


def test_the_deployment_records_the_release_that_was_restored() -> None:
    """`kubectl rollout history` shows that release, not the failed one."""
    namespace = FakeNamespace()
    target = namespace.target()
    first = namespace.release("a")
    second = namespace.release("b")
    done = rollout(1, first)
    assert done.ending
    target.begin(done.attempt)
    target.serve(first, trust)
    target.end(done.attempt, done.ending)
    target.begin(attempt(2, second))
    target.serve(second, trust)

    target.restore(first)

    item = namespace.cluster.find("Deployment", NAME) or {}
    assert item["metadata"]["annotations"][CHANGE_CAUSE].startswith("release 1: ")


def test_what_serves_is_known_without_a_history(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The Deployment has its attempt; a next release can be undone to it."""
    namespace.apply(a)
    done = namespace.apply(b)
    namespace.cluster.delete("ConfigMap", f"{NAME}-history")
    (found,) = namespace.deployer().history()
    assert (found.attempt, found.outcome) == (done.attempt, "succeeded")
    namespace.fail_golden_cases("/services/", c := namespace.release("c"))
    with pytest.raises(GoldenMiss):
        namespace.apply(c)
    assert namespace.answers() == {"b"}
    assert [(item.attempt.id, item.outcome) for item in namespace.deployer().history()] == [
        (2, "succeeded"),
        (3, "undone"),
    ]


def test_a_damaged_entry_is_recovered_from_the_deployment(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """Otherwise an undo would restore the release before it."""
    namespace.apply(a)
    namespace.apply(b)
    entries = namespace.get("ConfigMap", f"{NAME}-history")["data"]
    kept = entries["000002"]
    entries["000002"] = "{"
    assert [item.attempt.release for item in namespace.deployer().history()] == [a, b]
    entries |= {"000001": "{", "000002": kept}
    assert [item.attempt.release for item in namespace.deployer().history()] == [b]


def test_no_history_is_recovered_without_evidence(namespace: FakeNamespace, a: Release) -> None:
    """A missing or damaged annotation, or replicas that do not serve, are none."""
    namespace.apply(a)
    namespace.cluster.delete("ConfigMap", f"{NAME}-history")
    annotations = namespace.get("Deployment")["metadata"]["annotations"]
    note = annotations.pop(RELEASE_ANNOTATION)
    assert namespace.deployer().history() == ()
    annotations[RELEASE_ANNOTATION] = note.replace("sha256", "md5")
    assert namespace.deployer().history() == ()
    annotations[RELEASE_ANNOTATION] = note
    assert len(namespace.deployer().history()) == 1
    namespace.cluster.scripts[a.image.digest] = PodScript(exits=1)
    namespace.cluster.step(20)
    assert namespace.deployer().history() == ()


def test_a_restored_release_keeps_its_own_attempt(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The failed attempt leaves no annotation on what serves."""
    namespace.apply(a)
    namespace.fail_golden_cases("/services/", b)
    with pytest.raises(GoldenMiss):
        namespace.apply(b)
    for name in (NAME, f"{NAME}-twin"):
        item = namespace.get("Deployment", name)
        if item and item["spec"]["replicas"]:
            assert '"id":1,' in item["metadata"]["annotations"][RELEASE_ANNOTATION]


@pytest.mark.parametrize("damaged", [{}, {TRACK_LABEL: "unknown"}, {TRACK_LABEL: "main"}])
def test_a_service_with_a_damaged_annotation_keeps_its_track(damaged: dict[str, str]) -> None:
    """Its selector counts."""
    namespace = FakeNamespace(strategy="blue-green")
    namespace.apply(namespace.release("a"))
    namespace.apply(namespace.release("b"))
    namespace.get("Service")["metadata"]["annotations"] = damaged
    with namespace.deployer().lock():
        namespace.cluster.step()
    assert namespace.answers() == {"b"}
    assert namespace.deployer().serves(namespace.release("b"))


def test_the_times_of_new_replicas_are_recorded(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """For each stage it is the number of seconds since the start of the rollout."""
    namespace.apply(a)
    target = namespace.deployer()
    namespace.cluster.scripts[b.image.digest] = PodScript(pulled_in=12, ready_after=12)
    namespace.apply(b, target)
    assert target.times.keys() == namespace.pods("b")
    for seen in target.times.values():
        assert list(seen) == ["scheduled", "started", "loaded", "ready"]
        assert 0 <= seen["scheduled"] < seen["started"] < seen["ready"]


def test_the_times_are_those_of_one_rollout(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """A target that is used again starts with none."""
    target = namespace.deployer()
    namespace.apply(a, target)
    namespace.apply(b, target)
    assert target.times.keys() == namespace.pods("b")


# --- pre-pull


def test_nodes_have_the_image_before_the_rollout_needs_it(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The pull is over when the first replica is created, and the pre-pull is removed."""
    namespace.apply(a)
    namespace.cluster.scripts[b.image.digest] = PodScript(pulled_in=10)
    target = namespace.deployer(warm_up=True)
    namespace.apply(b, target)
    assert ("patch", "DaemonSet", f"{NAME}-warm-up") in namespace.cluster.requests
    assert namespace.get("DaemonSet", f"{NAME}-warm-up") == {}
    assert max(seen["started"] - seen["scheduled"] for seen in target.times.values()) < 1


def test_a_standby_needs_no_prepull() -> None:
    """Its image was pulled before."""
    namespace = FakeNamespace(strategy="blue-green", standby=True)
    namespace.apply(namespace.release("a"))
    namespace.apply(namespace.release("b"))
    namespace.apply(namespace.release("a"), namespace.deployer(warm_up=True), trigger="rollback")
    assert not [
        asked for asked in namespace.cluster.requests if asked[:2] == ("patch", "DaemonSet")
    ]


# --- lock and permissions


def test_a_second_deployer_changes_nothing(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The error names the first one."""
    namespace.apply(a)
    first = namespace.deployer()
    second = namespace.deployer(lock_wait=0.0)
    with first.lock():
        namespace.cluster.requests.clear()
        with pytest.raises(RolloutLocked, match=r"another deployer is at work: .* since"):
            namespace.apply(b, second)
    changed = [
        asked
        for asked in namespace.cluster.requests
        if asked[0] in ("patch", "update", "delete") and asked[1] != "Lease"
    ]
    assert changed == []


def test_a_deployer_that_lost_its_lock_stops(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """It does not even undo; that is up to the deployer that has the lock."""
    namespace.apply(a)
    lease = namespace.get("Lease", f"{NAME}-deployer")
    target = namespace.deployer()
    with target.lock():
        lease["spec"]["holderIdentity"] = "grace/far/7/1"
        namespace.cluster.objects.advance(25)
        namespace.cluster.requests.clear()
        with pytest.raises(RolloutLocked, match="the lock was lost"):
            target.serve(b, trust)
    assert not [
        asked for asked in namespace.cluster.requests if asked[0] in ("create", "patch", "delete")
    ]
    assert namespace.answers() == {"a"}


def test_the_snapshot_of_an_attempt_counts_until_it_has_ended(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """Another deployer uses it for the undo; afterwards a new one is taken."""
    namespace.apply(a)
    begun = attempt(2, b)
    target = namespace.deployer()
    with target.lock():
        target.begin(begun)
    other = namespace.deployer()
    with other.lock():
        other.begin(attempt(3, b))
        snapshot = read_snapshot(namespace)
        assert snapshot
        assert snapshot.is_running(a)
        other.end(begun, Ending(outcome="undone", at=begun.at))
    assert read_snapshot(namespace) is None


def read_snapshot(namespace: FakeNamespace) -> Snapshot | None:
    """Return what the history keeps for an attempt that has not ended."""
    return History(namespace.cluster, f"{NAME}-history", {}).snapshot()


def test_a_missing_namespace_is_reported_first(namespace: FakeNamespace, a: Release) -> None:
    """Nothing else is done."""
    namespace.cluster.missing = True
    with pytest.raises(NamespaceMissing):
        namespace.apply(a)


@pytest.mark.parametrize("denied", [("patch", "Deployment"), ("patch", "Service"), ("list", "Pod")])
def test_a_missing_permission_is_reported_and_the_old_release_serves(
    denied: tuple[str, str], namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The error is not hidden by a later one."""
    namespace.apply(a)
    namespace.cluster.forbidden.add(denied)
    with pytest.raises(Exception, match=f"may not {denied[0]} {denied[1]}"):
        namespace.apply(b)
    assert namespace.answers() == {"a"}


def test_a_log_that_may_not_be_read_does_not_hide_the_failure(
    namespace: FakeNamespace, a: Release
) -> None:
    """The error still has the reason why the replica failed."""
    namespace.cluster.forbidden.add(("get", "Pod/log"))
    namespace.cluster.scripts[a.image.digest] = PodScript(exits=3)
    with pytest.raises(RolloutFailed, match="exit code 3") as caught:
        namespace.apply(a)
    assert "cannot be read: this account may not get Pod/log" in caught.value.detail
    assert not isinstance(caught.value, ClusterForbidden)
