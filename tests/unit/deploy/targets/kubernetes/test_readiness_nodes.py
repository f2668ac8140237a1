"""Watching pods for which there is no node yet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.errors import RolloutFailed
from deploy.targets.kubernetes.pods import Pod
from tests.fakes.kubernetes.rollouts import once_after, start_rollout
from tests.fakes.namespaces import FakeNamespace


@pytest.fixture
def place() -> FakeNamespace:
    """An empty environment."""
    return FakeNamespace()


def test_a_replica_without_a_node_ends_it_after_a_while(place: FakeNamespace) -> None:
    """In the scheduler's words."""
    place.cluster.world.max_pods = 1
    with pytest.raises(
        RolloutFailed, match="no node can take a replica: 0/1 nodes are available: 1 Too many pods"
    ) as caught:
        start_rollout(place, place.release("a")).until_ready()
    assert "FailedScheduling" in caught.value.detail
    assert 30 < place.cluster.seconds() < 45


def test_a_node_that_is_freed_in_time_is_taken(place: FakeNamespace) -> None:
    """A pod may wait a moment."""
    place.cluster.world.max_pods = 1
    each = once_after(place, lambda: setattr(place.cluster.world, "room", 5), after=20)
    start_rollout(place, place.release("a")).until_ready(each)


def test_a_node_that_old_replicas_leave_is_waited_for() -> None:
    """For as long as they were given, which may be longer than a replica may take to come up."""
    place = FakeNamespace(drain_within=90.0)
    start_rollout(place, place.release("a")).until_ready()
    place.cluster.world.max_pods = 3
    place.cluster.world.termination_steps = 200
    began = place.cluster.seconds()
    start_rollout(place, place.release("b"), replica_seconds=20.0).until_ready()
    assert place.cluster.seconds() - began > 40


def test_a_node_that_an_old_replica_does_not_leave_is_not_waited_for() -> None:
    """It has had its time: nothing is heard of its node, perhaps."""
    place = FakeNamespace(drain_within=5.0)
    start_rollout(place, place.release("a")).until_ready()
    place.cluster.world.max_pods = 3
    place.cluster.world.termination_steps = 100_000
    began = place.cluster.seconds()
    with pytest.raises(RolloutFailed, match="no node can take a replica"):
        start_rollout(place, place.release("b"), replica_seconds=300.0).until_ready()
    assert 40 < place.cluster.seconds() - began < 60


def test_who_waited_before_old_replicas_began_to_leave_waits_anew(place: FakeNamespace) -> None:
    """For a node may be full again when they have left."""
    watched = start_rollout(place, place.release("a"))
    rollout = watched.progress()
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = Pod({"metadata": {"name": "shop-1"}, "status": {"conditions": [unscheduled]}})
    rollout.record([pod])
    for makes_room in (False, True, False, False):
        watched.wait.fail_early(rollout, {}, [pod], makes_room=makes_room)
        place.cluster.objects.advance(20)
    with pytest.raises(RolloutFailed, match="no node can take a replica"):
        watched.wait.fail_early(rollout, {}, [pod], makes_room=False)


def grown(place: FakeNamespace, reason: str, after: float) -> Callable[[], None]:
    """An autoscaler that says that it adds a node, and has done so after a while."""
    place.cluster.world.max_pods = 1
    each = once_after(place, lambda: setattr(place.cluster.world, "room", 5), after=after)

    def told() -> None:
        for name in place.pods():
            place.cluster.objects.event(
                place.get("Pod", name), reason, "pod triggered scale-up: [{pool 1->2 (max: 5)}]"
            )
        each()

    return told


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_a_node_that_is_being_added_is_waited_for(reason: str, place: FakeNamespace) -> None:
    """Longer than a replica may take otherwise; its deadline begins when it has the node."""
    start_rollout(place, place.release("a")).until_ready(grown(place, reason, after=400))
    assert place.cluster.seconds() > 400


def test_a_node_that_never_comes_is_not_waited_for_for_ever(place: FakeNamespace) -> None:
    """Autoscalers give up, too."""
    with pytest.raises(RolloutFailed, match="no node can take a replica"):
        start_rollout(place, place.release("a")).until_ready(
            grown(place, "TriggeredScaleUp", after=5000)
        )
    assert 900 < place.cluster.seconds() < 1000
