"""The wait for pods without a node."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.errors import RolloutFailed
from deploy.targets.kubernetes.pods import Pod
from tests.fakes.kubernetes.rollouts import once_after, start_rollout
from tests.fakes.namespaces import FakeNamespace


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an empty environment."""
    return FakeNamespace()


def test_a_replica_without_a_node_ends_the_wait_after_a_while(namespace: FakeNamespace) -> None:
    """The error has the message of the scheduler."""
    namespace.cluster.world.max_pods = 1
    with pytest.raises(
        RolloutFailed, match="no node can take a replica: 0/1 nodes are available: 1 Too many pods"
    ) as caught:
        start_rollout(namespace, namespace.release("a")).until_ready()
    assert "FailedScheduling" in caught.value.detail
    assert 30 < namespace.cluster.seconds() < 45


def test_a_node_with_room_in_time_is_used(namespace: FakeNamespace) -> None:
    """A pod may wait for a short time."""
    namespace.cluster.world.max_pods = 1
    each = once_after(namespace, lambda: setattr(namespace.cluster.world, "max_pods", 5), after=20)
    start_rollout(namespace, namespace.release("a")).until_ready(each)


def test_terminating_replicas_on_a_full_node_are_waited_for() -> None:
    """Their grace period may be longer than the deadline of a replica."""
    namespace = FakeNamespace(drain_within=90.0)
    start_rollout(namespace, namespace.release("a")).until_ready()
    namespace.cluster.world.max_pods = 3
    namespace.cluster.world.termination_steps = 200
    began = namespace.cluster.seconds()
    start_rollout(namespace, namespace.release("b"), replica_seconds=20.0).until_ready()
    assert namespace.cluster.seconds() - began > 40


def test_a_replica_that_exceeds_its_grace_period_is_not_waited_for() -> None:
    """Its node may be lost."""
    namespace = FakeNamespace(drain_within=5.0)
    start_rollout(namespace, namespace.release("a")).until_ready()
    namespace.cluster.world.max_pods = 3
    namespace.cluster.world.termination_steps = 100_000
    began = namespace.cluster.seconds()
    with pytest.raises(RolloutFailed, match="no node can take a replica"):
        start_rollout(namespace, namespace.release("b"), replica_seconds=300.0).until_ready()
    assert 40 < namespace.cluster.seconds() - began < 60


def test_the_wait_for_a_node_restarts_while_others_terminate(namespace: FakeNamespace) -> None:
    """The node may be full again afterwards."""
    watched = start_rollout(namespace, namespace.release("a"))
    rollout = watched.progress()
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = Pod({"metadata": {"name": "shop-1"}, "status": {"conditions": [unscheduled]}})
    rollout.record([pod])
    for makes_room in (False, True, False, False):
        watched.wait.fail_early(rollout, {}, [pod], makes_room=makes_room)
        namespace.cluster.objects.advance(20)
    with pytest.raises(RolloutFailed, match="no node can take a replica"):
        watched.wait.fail_early(rollout, {}, [pod], makes_room=False)


def add_node(namespace: FakeNamespace, reason: str, after: float) -> Callable[[], None]:
    """Return a function that announces a new node and adds it after a while."""
    namespace.cluster.world.max_pods = 1
    each = once_after(
        namespace, lambda: setattr(namespace.cluster.world, "max_pods", 5), after=after
    )

    def each_look() -> None:
        for name in namespace.pods():
            namespace.cluster.objects.event(
                namespace.get("Pod", name), reason, "pod triggered scale-up: [{pool 1->2 (max: 5)}]"
            )
        each()

    return each_look


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_a_node_that_is_being_added_is_waited_for(reason: str, namespace: FakeNamespace) -> None:
    """The deadline of a replica starts when it has the node."""
    start_rollout(namespace, namespace.release("a")).until_ready(
        add_node(namespace, reason, after=400)
    )
    assert namespace.cluster.seconds() > 400


def test_a_node_that_never_comes_is_not_waited_for_forever(namespace: FakeNamespace) -> None:
    """Autoscalers have a limit too."""
    with pytest.raises(RolloutFailed, match="no node can take a replica"):
        start_rollout(namespace, namespace.release("a")).until_ready(
            add_node(namespace, "TriggeredScaleUp", after=5000)
        )
    assert 900 < namespace.cluster.seconds() < 1000
