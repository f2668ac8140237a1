"""Having nodes pull an image before it is needed."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.errors import ClusterUnreachable, RolloutLocked
from deploy.records import Release
from deploy.targets.kubernetes.prepull import prepull
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, FakeNamespace, UncontestedLock

WARM = f"{NAME}-warm-up"


@pytest.fixture
def place() -> FakeNamespace:
    """An environment on three nodes."""
    place = FakeNamespace()
    place.cluster.world.nodes[:] = ["node-1", "node-2", "node-3"]
    return place


def warmed(place: FakeNamespace, release: Release, within: float = 60.0) -> None:
    """Warms up for a release."""
    prepull(place.cluster, place.rendering().prepull(release), within, place.cluster.clock)


def nodes(place: FakeNamespace, release: Release) -> set[str]:
    """The nodes that have the image of a release."""
    return {node for node, image in place.cluster.kubelet.pulled if image == release.reference}


def test_every_node_has_the_image_in_the_end(
    place: FakeNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing else is left of it."""
    a = place.release("a", PodScript(pulled_in=30))
    with caplog.at_level(logging.INFO):
        warmed(place, a)
    assert nodes(place, a) == {"node-1", "node-2", "node-3"}
    assert place.get("DaemonSet", WARM) == {}
    assert place.cluster.objects.find_all("Pod") == []
    assert "3 nodes pulled the image, in" in caplog.text


@pytest.mark.parametrize(
    ("script", "seconds"),
    [(PodScript(unpullable="manifest unknown"), 30.0), (PodScript(pulled_in=100_000), 65.0)],
    ids=["refused", "slow"],
)
def test_a_node_that_does_not_manage_holds_up_nothing(
    place: FakeNamespace, script: PodScript, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The rollout will tell what is wrong, if it comes to that."""
    warmed(place, place.release("a", script))
    assert place.cluster.seconds() < seconds
    assert "0 of 3 nodes have the image after" in caplog.text
    assert "going on" in caplog.text
    assert place.get("DaemonSet", WARM) == {}


def test_a_node_that_cannot_pull_keeps_no_other_one_from_it(
    place: FakeNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """They are waited for as if it were not there."""
    a = place.release("a", PodScript(pulled_in=100))
    place.cluster.world.unpullable["node-2"] = "no matching manifest for windows/amd64"
    warmed(place, a)
    assert nodes(place, a) == {"node-1", "node-3"}
    assert "2 of 3 nodes have the image after" in caplog.text
    assert place.cluster.seconds() < 30


@pytest.mark.parametrize(
    "lacking", [{"lost_nodes": {"node-2"}}, {"max_pods": 2}], ids=["away", "full"]
)
@pytest.mark.parametrize(
    ("pulled_in", "seconds"), [(1, (30, 33)), (200, (45, 55))], ids=["at once", "slowly"]
)
def test_a_node_that_does_not_begin_is_not_waited_for_for_long(
    place: FakeNamespace,
    pulled_in: int,
    seconds: tuple[int, int],
    lacking: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is heard of it, or it has no room; the others are waited for as long as they may take."""
    a = place.release("a", PodScript(pulled_in=pulled_in))
    vars(place.cluster.world).update(lacking)
    warmed(place, a)
    assert len(nodes(place, a)) == 2
    assert "2 of 3 nodes have the image after" in caplog.text
    assert seconds[0] <= place.cluster.seconds() < seconds[1]


def test_what_a_killed_warm_up_left_does_not_count(place: FakeNamespace) -> None:
    """Its pods run, but another image; pods that go do not count either."""
    a = place.release("a")
    b = place.release("b", PodScript(pulled_in=30))
    place.cluster.apply(place.rendering().prepull(a))
    place.cluster.step(20)
    place.cluster.world.termination_steps = 10_000
    warmed(place, b)
    assert nodes(place, b) == {"node-1", "node-2", "node-3"}


def test_a_cluster_without_nodes_is_warm(place: FakeNamespace) -> None:
    """There is nowhere to pull to."""
    place.cluster.world.nodes.clear()
    warmed(place, place.release("a"))
    assert place.cluster.seconds() < 5


def test_nothing_is_changed_without_the_lease(place: FakeNamespace) -> None:
    """Neither in the beginning nor in the end."""
    lease = UncontestedLock(place.cluster)
    asked = [0]
    daemons = place.rendering().prepull(place.release("a", PodScript(pulled_in=30)))

    def require() -> None:
        asked[0] += 1
        if asked[0] > 3:
            raise RolloutLocked("the lock was lost", on="it", next="again")
        lease.require()

    with pytest.raises(RolloutLocked):
        prepull(place.cluster, daemons, 60.0, place.cluster.clock, require)
    assert lease.checks == 3
    assert place.get("DaemonSet", WARM)


def test_a_daemon_set_that_cannot_be_removed_is_left_to_the_next_deployer(
    place: FakeNamespace,
) -> None:
    """The image is on the nodes: there is no reason to fail."""
    gone = ClusterUnreachable("no answer", on="it", next="again")
    place.cluster.failures["delete", "DaemonSet"] = [gone]
    warmed(place, place.release("a"))
    assert place.get("DaemonSet", WARM)
    with place.deployer().lock():
        pass
    assert place.get("DaemonSet", WARM) == {}
