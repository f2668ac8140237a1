"""The wait for pods: when it is over, and when it fails early or late."""

from __future__ import annotations

import logging

import pytest

from deploy import progress
from deploy.clock import Clock
from deploy.errors import RolloutFailed
from deploy.targets.kubernetes.pods import Pod
from deploy.targets.kubernetes.readiness import is_complete
from tests.fakes.display import RecordingDisplay
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.kubernetes.rollouts import once_after, start_rollout
from tests.fakes.namespaces import NAME, FakeNamespace


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an empty environment."""
    return FakeNamespace()


# --- when it is over


def test_it_is_over_when_all_replicas_are_ready(namespace: FakeNamespace) -> None:
    """Their pods are returned, and the times of their stages recorded."""
    watched = start_rollout(
        namespace, namespace.release("a", PodScript(pulled_in=5, ready_after=5))
    )
    pods = watched.until_ready()
    assert {pod.name for pod in pods} == namespace.pods() == watched.times.keys()
    assert all(pod.ready for pod in pods)
    for seen in watched.times.values():
        assert list(seen) == ["scheduled", "started", "loaded", "ready"]
        assert list(seen.values()) == sorted(seen.values())
        assert seen["scheduled"] < seen["started"] < seen["ready"]


def test_it_is_not_over_with_the_wrong_number_of_replicas(namespace: FakeNamespace) -> None:
    """Old ones may still run, or the controller may not have looked yet."""
    start_rollout(namespace, namespace.release("a")).until_ready()
    start_rollout(namespace, b := namespace.release("b", PodScript(ready_after=3))).until_ready()
    assert namespace.pods() == namespace.pods("b")
    watched = start_rollout(namespace, b, count=5)
    assert len(watched.until_ready()) == 5
    assert len(start_rollout(namespace, b, count=1).until_ready()) == 1


def test_terminating_replicas_are_not_waited_for(namespace: FakeNamespace) -> None:
    """They stop while the new ones serve."""
    namespace.cluster.world.termination_steps = 100_000
    start_rollout(namespace, namespace.release("a")).until_ready()
    start_rollout(namespace, namespace.release("b")).until_ready()
    assert len(namespace.cluster.objects.find_all("Pod")) == 4


def test_an_error_between_two_looks_ends_the_wait(namespace: FakeNamespace) -> None:
    """Any error does."""

    def stop() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        start_rollout(namespace, namespace.release("a")).until_ready(stop)


def test_each_stage_of_a_replica_is_logged(
    namespace: FakeNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """A line has the size of the image, or the durations of the stages."""
    with caplog.at_level(logging.INFO):
        start_rollout(
            namespace, namespace.release("a", PodScript(pulled_in=20, ready_after=20)), count=1
        ).until_ready()
    (name,) = namespace.pods()
    said = [
        record.message.removeprefix(f"pod    {name} ")
        for record in caplog.records
        if name in record.message
    ]
    assert said[0] == "scheduled, pulling up to 230 MB"
    assert said[1].startswith("started: started after ")
    assert said[-1].startswith("ready: started after ")
    assert ", ready after " in said[-1]


def test_progress_is_reported(namespace: FakeNamespace) -> None:
    """It has the number of ready replicas and what one of the others does."""
    noted = RecordingDisplay()
    with progress.use_display(noted):
        start_rollout(
            namespace, namespace.release("a", PodScript(pulled_in=20, ready_after=20))
        ).until_ready()
    assert any(
        text.startswith("0 of 2 ready, ") and text.endswith(" pulling") for text in noted.lines
    )
    assert any(text.endswith(" loading the model") for text in noted.lines)


# --- early failure


def test_a_replica_that_cannot_start_ends_the_wait(namespace: FakeNamespace) -> None:
    """The error has its last events and the end of its log."""
    namespace.cluster.scripts[(a := namespace.release("a")).image.digest] = PodScript(
        exits=3, says="\n".join(map(str, range(40)))
    )
    with pytest.raises(RolloutFailed, match="exit code 3 before it was ready") as caught:
        start_rollout(namespace, a).until_ready()
    assert caught.value.on.removeprefix("pod ") in namespace.pods()
    assert "its events end with:\n" in caught.value.detail
    assert "    Started: Started container app" in caught.value.detail
    assert caught.value.detail.endswith("    38\n    39")
    assert "    24\n" not in caught.value.detail
    assert namespace.cluster.seconds() < 20


def test_a_crashing_replica_of_another_template_does_not_matter(namespace: FakeNamespace) -> None:
    """The new ones may be created because it crashes."""
    start_rollout(namespace, a := namespace.release("a")).until_ready()
    namespace.cluster.scripts[a.image.digest] = PodScript(exits=1)
    namespace.cluster.step(100)
    start_rollout(namespace, namespace.release("b")).until_ready()
    assert namespace.pods() == namespace.pods("b")


@pytest.mark.parametrize("steps", [0, 5], ids=["ended", "started again"])
def test_an_earlier_replica_may_be_restarting(namespace: FakeNamespace, steps: int) -> None:
    """Its exit was not caused by this rollout."""
    start_rollout(namespace, a := namespace.release("a")).until_ready()
    namespace.cluster.scripts[a.image.digest] = PodScript(ready_after=10)
    namespace.cluster.crash(min(namespace.pods()))
    namespace.cluster.step(steps)
    pods = start_rollout(namespace, a).until_ready()
    assert [pod.restarts for pod in pods] == [1, 0]


def test_an_earlier_replica_must_not_exit_during_the_rollout(namespace: FakeNamespace) -> None:
    """From the start of the rollout it counts like any other."""
    start_rollout(namespace, a := namespace.release("a")).until_ready()
    first, second = sorted(namespace.pods())
    namespace.cluster.scripts[a.image.digest] = PodScript(ready_after=10)
    namespace.cluster.crash(first)
    with pytest.raises(RolloutFailed, match="exit code 137 before it was ready") as caught:
        start_rollout(namespace, a).until_ready(
            once_after(namespace, lambda: namespace.cluster.crash(second), after=1)
        )
    assert caught.value.on == f"pod {second}"


def test_a_crash_loop_ends_the_wait_even_if_it_began_earlier(
    namespace: FakeNamespace,
) -> None:
    """The kubelet has stopped restarting it for a while."""
    start_rollout(namespace, a := namespace.release("a")).until_ready()
    namespace.cluster.scripts[a.image.digest] = PodScript(exits=1)
    namespace.cluster.crash(min(namespace.pods()))
    namespace.cluster.step(20)
    began = namespace.cluster.seconds()
    with pytest.raises(RolloutFailed, match="exit code 1 before it was ready"):
        start_rollout(namespace, a).until_ready()
    assert namespace.cluster.seconds() - began < 3


def test_a_replica_that_is_not_ready_in_time_ends_the_wait(namespace: FakeNamespace) -> None:
    """The time counts from its start, not from its pull."""
    slow = namespace.release("a", PodScript(pulled_in=60, ready_after=None))
    with pytest.raises(RolloutFailed, match=r"not ready within 20 s of its start: ") as caught:
        start_rollout(namespace, slow).until_ready()
    # What the path answered is the reason.
    assert caught.value.what.endswith("probe failed: HTTP probe failed with statuscode: 503")
    assert "200 at the path `ready`" in caught.value.next
    assert 30 < namespace.cluster.seconds() < 60


def test_a_replica_that_was_ready_once_is_not_late(namespace: FakeNamespace) -> None:
    """It may be busy for a while."""
    a = namespace.release("a", PodScript(pulled_in=1))
    watched = start_rollout(namespace, a, count=1, ready_within=5.0, replica_seconds=90.0)
    (name,) = {pod.name for pod in watched.until_ready()}
    conditions = namespace.get("Pod", name)["status"]["conditions"]
    pod = Pod(
        {
            "metadata": {"name": name},
            "status": {"conditions": [one for one in conditions if one["type"] != "Ready"]},
        }
    )
    rollout = watched.progress()
    namespace.cluster.objects.advance(30)
    assert not rollout.is_pod_late(pod)
    del watched.times[name]["ready"]
    assert rollout.is_pod_late(pod)


def test_pods_that_may_not_be_created_end_the_wait(namespace: FakeNamespace) -> None:
    """The error has the message about the quota."""
    namespace.cluster.world.quota = 1
    with pytest.raises(RolloutFailed, match=r"creates no pods: .*exceeded quota: pods") as caught:
        start_rollout(namespace, namespace.release("a")).until_ready()
    assert caught.value.on == f"Deployment {NAME}"
    assert "quota" in caught.value.next


def replaced_replicas(lingers: int, quota: int, **settings: float) -> FakeNamespace:
    """Return an environment with a quota and terminating replicas that still count in it."""
    namespace = FakeNamespace(**settings)
    namespace.cluster.world.termination_steps = lingers
    start_rollout(namespace, namespace.release("a")).until_ready()
    for name in namespace.pods():
        namespace.cluster.lose(name)
    namespace.cluster.step(5)
    namespace.cluster.world.quota = quota
    return namespace


def test_terminating_replicas_that_use_the_quota_are_waited_for() -> None:
    """That may take longer than the deadline of a replica."""
    namespace = replaced_replicas(lingers=150, quota=4, drain_within=60.0)
    began = namespace.cluster.seconds()
    start_rollout(
        namespace, namespace.release("b"), ready_within=10.0, replica_seconds=10.0
    ).until_ready()
    assert namespace.cluster.seconds() - began > 20


def test_replicas_that_exceed_their_grace_period_are_not_waited_for() -> None:
    """Their node may be lost."""
    namespace = replaced_replicas(lingers=100_000, quota=4, drain_within=5.0)
    began = namespace.cluster.seconds()
    with pytest.raises(RolloutFailed, match=r"creates no pods: .*exceeded quota"):
        start_rollout(namespace, namespace.release("b")).until_ready()
    assert 15 < namespace.cluster.seconds() - began < 30


def test_an_evicted_pod_does_not_make_room(namespace: FakeNamespace) -> None:
    """It exists until a person removes it, so waiting cannot help."""
    world = namespace.cluster.world
    labels = namespace.rendering().track_labels("main")
    world.quota = 1
    world.lost_nodes = {"node-9"}
    evicted = {"phase": "Failed", "reason": "Evicted"}
    spec = {"nodeName": "node-9", "containers": []}
    namespace.cluster.objects.add(
        {
            "kind": "Pod",
            "metadata": {"name": "evicted", "labels": labels},
            "spec": spec,
            "status": evicted,
        }
    )
    with pytest.raises(RolloutFailed, match=r"creates no pods: .*exceeded quota"):
        start_rollout(namespace, namespace.release("a")).until_ready()
    assert namespace.cluster.seconds() < 20


def test_a_refusal_before_the_last_change_is_ignored(namespace: FakeNamespace) -> None:
    """The quota may have been raised since; the controller has not looked yet."""
    watched = start_rollout(namespace, namespace.release("a"))
    refused = {
        "conditions": [{"type": "ReplicaFailure", "status": "True"}],
        "observedGeneration": 1,
    }
    rollout = watched.progress()

    def look(generation: int) -> None:
        item = {"metadata": {"generation": generation}, "spec": {}, "status": refused}
        watched.wait.fail_early(rollout, item, [], makes_room=False)

    for generation in (1, 2, 1):
        look(generation)
        namespace.cluster.objects.advance(11)
    with pytest.raises(RolloutFailed):
        look(1)


def test_a_paused_deployment_ends_the_wait(namespace: FakeNamespace) -> None:
    """The error has the command that resumes it; replicas that already run are enough."""
    start_rollout(namespace, a := namespace.release("a")).until_ready()
    namespace.get("Deployment")["spec"]["paused"] = True
    start_rollout(namespace, a).until_ready()
    namespace.cluster.stop_controllers()
    watched = start_rollout(namespace, namespace.release("b"))
    namespace.get("Deployment")["status"]["observedGeneration"] = namespace.get("Deployment")[
        "metadata"
    ]["generation"]
    with pytest.raises(RolloutFailed, match="the Deployment is paused") as caught:
        watched.until_ready()
    assert f"kubectl rollout resume deployment/{NAME}" in caught.value.next


# --- late failure


def test_a_rollout_fails_after_its_deadline(namespace: FakeNamespace) -> None:
    """The error has the events of a slow pull."""
    with pytest.raises(RolloutFailed, match="a replica was not ready within 1 min 00 s") as caught:
        start_rollout(namespace, namespace.release("a", PodScript(pulled_in=10_000))).until_ready()
    assert "Pulling" in caught.value.detail
    assert 60 < namespace.cluster.seconds() < 65


def test_the_deadline_restarts_with_each_ready_replica(namespace: FakeNamespace) -> None:
    """It is the deadline of one replica, so more of them may take longer."""
    start_rollout(namespace, namespace.release("a"), count=6).until_ready()
    slow = namespace.release("b", PodScript(ready_after=40))
    began = namespace.cluster.seconds()
    start_rollout(namespace, slow, count=6, replica_seconds=20.0).until_ready()
    assert namespace.cluster.seconds() - began > 30


def test_no_success_is_returned_after_the_deadline(namespace: FakeNamespace) -> None:
    """All replicas may be ready at the first look after it."""
    clock = Clock(namespace.cluster.seconds, lambda _: namespace.cluster.sleep(61.0))
    watched = start_rollout(namespace, namespace.release("a"), clock=clock)
    with pytest.raises(RolloutFailed, match="within 1 min 00 s"):
        watched.until_ready()
    assert all(Pod(namespace.get("Pod", name)).ready for name in namespace.pods())


def test_an_outdated_status_is_not_complete() -> None:
    """The controller has not looked since the last change."""
    counts = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1}
    item = {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": counts}
    assert is_complete(item)
    assert not is_complete({**item, "metadata": {"generation": 2}})
    assert not any(
        is_complete({**item, "status": counts | {name: 1}})
        for name in counts
        if name != "observedGeneration"
    )


def test_a_deleted_deployment_is_never_complete(namespace: FakeNamespace) -> None:
    """Another client deleted it during the rollout."""
    watched = start_rollout(namespace, namespace.release("a", PodScript(pulled_in=50)))
    each = once_after(namespace, lambda: namespace.cluster.delete("Deployment", NAME), after=5)
    with pytest.raises(RolloutFailed, match="the rollout was not complete within") as caught:
        watched.until_ready(each)
    assert caught.value.on == f"Deployment {NAME}"
