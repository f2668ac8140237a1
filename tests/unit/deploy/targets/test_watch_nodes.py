"""Watching pods for which there is no node yet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.errors import RolloutFailed
from tests.fakes.places import FakePlace
from tests.fakes.watches import meanwhile, watch


@pytest.fixture
def place() -> FakePlace:
    """An empty environment."""
    return FakePlace()


def test_a_replica_without_a_node_ends_it_after_a_while(place: FakePlace) -> None:
    """In the scheduler's words."""
    place.cluster.world.room = 1
    with pytest.raises(RolloutFailed, match="no node can take a replica: 0/1 nodes are available: 1 Too many pods") as caught:
        watch(place, place.release("a")).until_ready()
    assert "FailedScheduling" in caught.value.detail
    assert 30 < place.cluster.seconds() < 45


def test_a_node_that_is_freed_in_time_is_taken(place: FakePlace) -> None:
    """A pod may wait a moment."""
    place.cluster.world.room = 1
    each = meanwhile(place, lambda: setattr(place.cluster.world, "room", 5), after=20)
    watch(place, place.release("a")).until_ready(each)


def grown(place: FakePlace, reason: str, after: float) -> Callable[[], None]:
    """An autoscaler that says that it adds a node, and has done so after a while."""
    place.cluster.world.room = 1
    each = meanwhile(place, lambda: setattr(place.cluster.world, "room", 5), after=after)

    def told() -> None:
        for name in place.pods():
            place.cluster.objects.event(place.found("Pod", name), reason, "pod triggered scale-up: [{pool 1->2 (max: 5)}]")
        each()

    return told


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_a_node_that_is_being_added_is_waited_for(reason: str, place: FakePlace) -> None:
    """Longer than a replica may take otherwise; its deadline begins when it has the node."""
    watch(place, place.release("a")).until_ready(grown(place, reason, after=400))
    assert place.cluster.seconds() > 400


def test_a_node_that_never_comes_is_not_waited_for_for_ever(place: FakePlace) -> None:
    """Autoscalers give up, too."""
    with pytest.raises(RolloutFailed, match="no node can take a replica"):
        watch(place, place.release("a")).until_ready(grown(place, "TriggeredScaleUp", after=5000))
    assert 900 < place.cluster.seconds() < 1000
