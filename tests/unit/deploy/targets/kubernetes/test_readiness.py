"""Watching pods come up: when it is over, when it is hopeless, and when it is too late."""

from __future__ import annotations

import logging

import pytest

from deploy import progress
from deploy.clock import Clock
from deploy.errors import RolloutFailed
from deploy.targets.kubernetes.pods import Pod
from deploy.targets.kubernetes.readiness import is_complete
from tests.fakes.display import Noted
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.kubernetes.rollouts import once_after, start_rollout
from tests.fakes.namespaces import NAME, FakeNamespace


@pytest.fixture
def place() -> FakeNamespace:
    """An empty environment."""
    return FakeNamespace()


# --- when it is over


def test_it_is_over_when_all_replicas_are_ready(place: FakeNamespace) -> None:
    """Their pods are given, and the times of their stages kept."""
    watched = start_rollout(place, place.release("a", PodScript(pulled_in=5, ready_after=5)))
    pods = watched.until_ready()
    assert {pod.name for pod in pods} == place.pods() == watched.times.keys()
    assert all(pod.ready for pod in pods)
    for seen in watched.times.values():
        assert list(seen) == ["scheduled", "started", "loaded", "ready"]
        assert list(seen.values()) == sorted(seen.values())
        assert seen["scheduled"] < seen["started"] < seen["ready"]


def test_it_is_not_over_while_old_replicas_run(place: FakeNamespace) -> None:
    """Nor while there are too many, or the controller has not looked yet."""
    start_rollout(place, place.release("a")).until_ready()
    start_rollout(place, b := place.release("b", PodScript(ready_after=3))).until_ready()
    assert place.pods() == place.pods("b")
    watched = start_rollout(place, b, count=5)
    assert len(watched.until_ready()) == 5
    assert len(start_rollout(place, b, count=1).until_ready()) == 1


def test_replicas_that_are_terminating_still_are_not_waited_for(place: FakeNamespace) -> None:
    """They take their leave while the new ones serve."""
    place.cluster.world.termination_steps = 100_000
    start_rollout(place, place.release("a")).until_ready()
    start_rollout(place, place.release("b")).until_ready()
    assert len(place.cluster.objects.find_all("Pod")) == 4


def test_it_is_asked_between_two_looks_whether_to_go_on(place: FakeNamespace) -> None:
    """Whatever that raises ends the watch."""

    def stop() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        start_rollout(place, place.release("a")).until_ready(stop)


def test_it_tells_how_far_each_replica_is(
    place: FakeNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """A line for each stage, with the bytes of the pull and the times between."""
    with caplog.at_level(logging.INFO):
        start_rollout(
            place, place.release("a", PodScript(pulled_in=20, ready_after=20)), count=1
        ).until_ready()
    (name,) = place.pods()
    said = [
        record.message.removeprefix(f"pod    {name} ")
        for record in caplog.records
        if name in record.message
    ]
    assert said[0] == "scheduled, pulling up to 230 MB"
    assert said[1].startswith("started: started after ")
    assert said[-1].startswith("ready: started after ")
    assert ", ready after " in said[-1]


def test_it_notes_what_is_waited_for(place: FakeNamespace) -> None:
    """How many are ready, and what one of the others is doing."""
    noted = Noted()
    with progress.use_display(noted):
        start_rollout(
            place, place.release("a", PodScript(pulled_in=20, ready_after=20))
        ).until_ready()
    assert any(
        text.startswith("0 of 2 ready, ") and text.endswith(" pulling") for text in noted.notes
    )
    assert any(text.endswith(" loading the model") for text in noted.notes)


# --- when it is hopeless


def test_a_replica_that_cannot_start_ends_it_early(place: FakeNamespace) -> None:
    """With its last events and the end of its log."""
    place.cluster.scripts[(a := place.release("a")).image.digest] = PodScript(
        exits=3, says="\n".join(map(str, range(40)))
    )
    with pytest.raises(RolloutFailed, match="exit code 3 before it was ready") as caught:
        start_rollout(place, a).until_ready()
    assert caught.value.on.removeprefix("pod ") in place.pods()
    assert "its events end with:\n" in caught.value.detail
    assert "    Started: Started container app" in caught.value.detail
    assert caught.value.detail.endswith("    38\n    39")
    assert "    24\n" not in caught.value.detail
    assert place.cluster.seconds() < 20


def test_a_replica_of_other_making_that_crashes_is_nobodys_concern(place: FakeNamespace) -> None:
    """The new ones are made because it does."""
    start_rollout(place, a := place.release("a")).until_ready()
    place.cluster.scripts[a.image.digest] = PodScript(exits=1)
    place.cluster.step(100)
    start_rollout(place, place.release("b")).until_ready()
    assert place.pods() == place.pods("b")


@pytest.mark.parametrize("steps", [0, 5], ids=["ended", "started again"])
def test_a_replica_of_before_may_be_starting_again(place: FakeNamespace, steps: int) -> None:
    """What brought it down is not this rollout."""
    start_rollout(place, a := place.release("a")).until_ready()
    place.cluster.scripts[a.image.digest] = PodScript(ready_after=10)
    place.cluster.crash(min(place.pods()))
    place.cluster.step(steps)
    pods = start_rollout(place, a).until_ready()
    assert [pod.restarts for pod in pods] == [1, 0]


def test_a_replica_of_before_may_not_end_in_mid_rollout(place: FakeNamespace) -> None:
    """From then on it counts as any other."""
    start_rollout(place, a := place.release("a")).until_ready()
    first, second = sorted(place.pods())
    place.cluster.scripts[a.image.digest] = PodScript(ready_after=10)
    place.cluster.crash(first)
    with pytest.raises(RolloutFailed, match="exit code 137 before it was ready") as caught:
        start_rollout(place, a).until_ready(
            once_after(place, lambda: place.cluster.crash(second), after=1)
        )
    assert caught.value.on == f"pod {second}"


def test_a_replica_that_crashes_again_and_again_ends_it_whenever_that_began(
    place: FakeNamespace,
) -> None:
    """The node says that it has given it up for a while."""
    start_rollout(place, a := place.release("a")).until_ready()
    place.cluster.scripts[a.image.digest] = PodScript(exits=1)
    place.cluster.crash(min(place.pods()))
    place.cluster.step(20)
    began = place.cluster.seconds()
    with pytest.raises(RolloutFailed, match="exit code 1 before it was ready"):
        start_rollout(place, a).until_ready()
    assert place.cluster.seconds() - began < 3


def test_a_replica_that_is_never_ready_ends_it_when_its_time_is_over(place: FakeNamespace) -> None:
    """That counts from its start, however long the pull took."""
    slow = place.release("a", PodScript(pulled_in=60, ready_after=None))
    with pytest.raises(RolloutFailed, match=r"a replica was not ready within 20 s of its start"):
        start_rollout(place, slow).until_ready()
    assert 30 < place.cluster.seconds() < 60


def test_a_replica_that_was_ready_may_be_busy_for_a_while(place: FakeNamespace) -> None:
    """Its time to become ready is not counted again."""
    a = place.release("a", PodScript(pulled_in=1))
    watched = start_rollout(place, a, count=1, ready_within=5.0, replica_seconds=90.0)
    (name,) = {pod.name for pod in watched.until_ready()}
    conditions = place.get("Pod", name)["status"]["conditions"]
    pod = Pod(
        {
            "metadata": {"name": name},
            "status": {"conditions": [one for one in conditions if one["type"] != "Ready"]},
        }
    )
    rollout = watched.progress()
    place.cluster.objects.advance(30)
    assert not rollout.is_pod_late(pod)
    del watched.times[name]["ready"]
    assert rollout.is_pod_late(pod)


def test_pods_that_may_not_be_made_end_it(place: FakeNamespace) -> None:
    """A quota is told in the words of who refuses."""
    place.cluster.world.quota = 1
    with pytest.raises(RolloutFailed, match="the cluster creates no pods: FailedCreate") as caught:
        start_rollout(place, place.release("a")).until_ready()
    assert caught.value.on == f"Deployment {NAME}"
    assert "exceeded quota: pods" in caught.value.detail
    assert "quota" in caught.value.next


def leaving(lingers: int, quota: int, **settings: float) -> FakeNamespace:
    """An environment whose replicas have just been replaced, with those before them about to leave its quota."""
    place = FakeNamespace(**settings)
    place.cluster.world.termination_steps = lingers
    start_rollout(place, place.release("a")).until_ready()
    for name in place.pods():
        place.cluster.lose(name)
    place.cluster.step(5)
    place.cluster.world.quota = quota
    return place


def test_a_quota_that_replicas_are_about_to_leave_is_waited_for() -> None:
    """They count in it until they are gone, which may take longer than a replica may take to come up."""
    place = leaving(lingers=150, quota=4, drain_within=60.0)
    began = place.cluster.seconds()
    start_rollout(place, place.release("b"), ready_within=10.0, replica_seconds=10.0).until_ready()
    assert place.cluster.seconds() - began > 20


def test_a_quota_that_replicas_do_not_leave_is_not_waited_for() -> None:
    """They have had their time: nothing is heard of their node, perhaps."""
    place = leaving(lingers=100_000, quota=4, drain_within=5.0)
    began = place.cluster.seconds()
    with pytest.raises(RolloutFailed, match="the cluster creates no pods: FailedCreate"):
        start_rollout(place, place.release("b")).until_ready()
    assert 15 < place.cluster.seconds() - began < 30


def test_a_pod_that_was_evicted_leaves_nothing(place: FakeNamespace) -> None:
    """It is there until somebody clears it away; a quota is not to be had by waiting."""
    world = place.cluster.world
    labels = place.state().labels("main")
    world.quota = 1
    world.lost_nodes = {"node-9"}
    evicted = {"phase": "Failed", "reason": "Evicted"}
    spec = {"nodeName": "node-9", "containers": []}
    place.cluster.objects.add(
        {
            "kind": "Pod",
            "metadata": {"name": "evicted", "labels": labels},
            "spec": spec,
            "status": evicted,
        }
    )
    with pytest.raises(RolloutFailed, match="the cluster creates no pods: FailedCreate"):
        start_rollout(place, place.release("a")).until_ready()
    assert place.cluster.seconds() < 20


def test_a_refusal_of_before_the_last_change_is_not_believed(place: FakeNamespace) -> None:
    """Somebody has raised the quota since, perhaps; the controller has not looked yet."""
    watched = start_rollout(place, place.release("a"))
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
        place.cluster.objects.advance(11)
    with pytest.raises(RolloutFailed):
        look(1)


def test_a_deployment_that_somebody_paused_ends_it(place: FakeNamespace) -> None:
    """No replica is made anew, and what to do is said; one that runs already is all that is wanted."""
    start_rollout(place, a := place.release("a")).until_ready()
    place.get("Deployment")["spec"]["paused"] = True
    start_rollout(place, a).until_ready()
    place.cluster.stop_controllers()
    watched = start_rollout(place, place.release("b"))
    place.get("Deployment")["status"]["observedGeneration"] = place.get("Deployment")["metadata"][
        "generation"
    ]
    with pytest.raises(RolloutFailed, match="the Deployment is paused") as caught:
        watched.until_ready()
    assert f"kubectl rollout resume deployment/{NAME}" in caught.value.next


# --- when it is too late


def test_a_rollout_that_has_passed_its_deadline_failed(place: FakeNamespace) -> None:
    """A pull that takes for ever is told with what is known of it."""
    with pytest.raises(RolloutFailed, match="a replica was not ready within 1 min 00 s") as caught:
        start_rollout(place, place.release("a", PodScript(pulled_in=10_000))).until_ready()
    assert "Pulling" in caught.value.detail
    assert 60 < place.cluster.seconds() < 65


def test_the_deadline_begins_anew_with_each_replica_that_is_ready(place: FakeNamespace) -> None:
    """It is about one replica, so that more of them may take longer."""
    start_rollout(place, place.release("a"), count=6).until_ready()
    slow = place.release("b", PodScript(ready_after=40))
    began = place.cluster.seconds()
    start_rollout(place, slow, count=6, replica_seconds=20.0).until_ready()
    assert place.cluster.seconds() - began > 30


def test_success_is_never_told_after_the_deadline(place: FakeNamespace) -> None:
    """Not even if all replicas turn out to be ready when it is noticed that it has passed."""
    clock = Clock(place.cluster.seconds, lambda _: place.cluster.sleep(61.0))
    watched = start_rollout(place, place.release("a"), clock=clock)
    with pytest.raises(RolloutFailed, match="within 1 min 00 s"):
        watched.until_ready()
    assert all(Pod(place.get("Pod", name)).ready for name in place.pods())


def test_what_is_told_of_the_last_change_but_one_is_not_believed() -> None:
    """The controller has not looked yet, and all replicas are of before."""
    counts = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1}
    item = {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": counts}
    assert is_complete(item)
    assert not is_complete({**item, "metadata": {"generation": 2}})
    assert not any(
        is_complete({**item, "status": counts | {name: 1}})
        for name in counts
        if name != "observedGeneration"
    )


def test_a_deployment_that_is_gone_is_neveris_complete(place: FakeNamespace) -> None:
    """Somebody removed it in mid-rollout."""
    watched = start_rollout(place, place.release("a", PodScript(pulled_in=50)))
    each = once_after(place, lambda: place.cluster.delete("Deployment", NAME), after=5)
    with pytest.raises(RolloutFailed, match="the rollout was not complete within") as caught:
        watched.until_ready(each)
    assert caught.value.on == f"Deployment {NAME}"
