"""The pre-pull of an image to the nodes of a cluster."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.errors import ClusterUnreachable, RolloutLocked
from deploy.records import Release
from deploy.targets.kubernetes.prepull import prepull
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.namespaces import NAME, FakeNamespace, UncontestedLock

PREPULL_NAME = f"{NAME}-warm-up"


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an environment on three nodes."""
    namespace = FakeNamespace()
    namespace.cluster.world.nodes[:] = ["node-1", "node-2", "node-3"]
    return namespace


def pull(namespace: FakeNamespace, release: Release, within: float = 60.0) -> None:
    """Pre-pull the image of a release."""
    prepull(
        namespace.cluster, namespace.rendering().prepull(release), within, namespace.cluster.clock
    )


def nodes(namespace: FakeNamespace, release: Release) -> set[str]:
    """Return the nodes that have the image of a release."""
    return {node for node, image in namespace.cluster.kubelet.pulled if image == release.reference}


def test_every_node_pulls_the_image(
    namespace: FakeNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """The DaemonSet and its pods are removed."""
    a = namespace.release("a", PodScript(pulled_in=30))
    with caplog.at_level(logging.INFO):
        pull(namespace, a)
    assert nodes(namespace, a) == {"node-1", "node-2", "node-3"}
    assert namespace.get("DaemonSet", PREPULL_NAME) == {}
    assert namespace.cluster.objects.find_all("Pod") == []
    assert "3 nodes pulled the image, in" in caplog.text


@pytest.mark.parametrize(
    ("script", "seconds"),
    [(PodScript(unpullable="manifest unknown"), 30.0), (PodScript(pulled_in=100_000), 65.0)],
    ids=["refused", "slow"],
)
def test_a_pull_that_fails_or_is_slow_delays_nothing(
    namespace: FakeNamespace, script: PodScript, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """If the image is needed there, the rollout reports the reason."""
    pull(namespace, namespace.release("a", script))
    assert namespace.cluster.seconds() < seconds
    assert "0 of 3 nodes have the image after" in caplog.text
    assert "going on" in caplog.text
    assert namespace.get("DaemonSet", PREPULL_NAME) == {}


def test_the_other_nodes_pull_if_one_cannot(
    namespace: FakeNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """They are waited for as if that node did not exist."""
    a = namespace.release("a", PodScript(pulled_in=100))
    namespace.cluster.world.unpullable["node-2"] = "no matching manifest for windows/amd64"
    pull(namespace, a)
    assert nodes(namespace, a) == {"node-1", "node-3"}
    assert "2 of 3 nodes have the image after" in caplog.text
    assert namespace.cluster.seconds() < 30


@pytest.mark.parametrize(
    "lacking", [{"lost_nodes": {"node-2"}}, {"max_pods": 2}], ids=["away", "full"]
)
@pytest.mark.parametrize(
    ("pulled_in", "seconds"), [(1, (30, 33)), (200, (45, 55))], ids=["at once", "slowly"]
)
def test_a_node_that_does_not_start_is_waited_for_only_briefly(
    namespace: FakeNamespace,
    pulled_in: int,
    seconds: tuple[int, int],
    lacking: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is lost or full; the other nodes are waited for up to the limit."""
    a = namespace.release("a", PodScript(pulled_in=pulled_in))
    vars(namespace.cluster.world).update(lacking)
    pull(namespace, a)
    assert len(nodes(namespace, a)) == 2
    assert "2 of 3 nodes have the image after" in caplog.text
    assert seconds[0] <= namespace.cluster.seconds() < seconds[1]


def test_the_pods_of_an_earlier_prepull_do_not_count(namespace: FakeNamespace) -> None:
    """They run another image or are terminating."""
    a = namespace.release("a")
    b = namespace.release("b", PodScript(pulled_in=30))
    namespace.cluster.apply(namespace.rendering().prepull(a))
    namespace.cluster.step(20)
    namespace.cluster.world.termination_steps = 10_000
    pull(namespace, b)
    assert nodes(namespace, b) == {"node-1", "node-2", "node-3"}


def test_without_nodes_the_prepull_is_complete(namespace: FakeNamespace) -> None:
    """There is no node to pull to."""
    namespace.cluster.world.nodes.clear()
    pull(namespace, namespace.release("a"))
    assert namespace.cluster.seconds() < 5


def test_each_write_requires_the_lock(namespace: FakeNamespace) -> None:
    """That holds for the first and the last write."""
    lock = UncontestedLock(namespace.cluster)
    asked = [0]
    daemons = namespace.rendering().prepull(namespace.release("a", PodScript(pulled_in=30)))

    def require() -> None:
        asked[0] += 1
        if asked[0] > 3:
            raise RolloutLocked("the lock was lost", on="it", next="again")
        lock.require()

    with pytest.raises(RolloutLocked):
        prepull(namespace.cluster, daemons, 60.0, namespace.cluster.clock, require)
    assert lock.checks == 3
    assert namespace.get("DaemonSet", PREPULL_NAME)


def test_a_daemon_set_that_cannot_be_removed_is_left_to_the_next_deployer(
    namespace: FakeNamespace,
) -> None:
    """The image has been pulled, so there is no reason to fail."""
    gone = ClusterUnreachable("no answer", on="it", next="again")
    namespace.cluster.failures["delete", "DaemonSet"] = [gone]
    pull(namespace, namespace.release("a"))
    assert namespace.get("DaemonSet", PREPULL_NAME)
    with namespace.deployer().lock():
        pass
    assert namespace.get("DaemonSet", PREPULL_NAME) == {}
