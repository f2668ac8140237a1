"""The state of an environment: its traffic, its Deployments and its pods."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.targets.kubernetes.render import RELEASE_ANNOTATION, TRACK_LABEL
from deploy.targets.kubernetes.state import (
    REPLICAS_ANNOTATION,
    ClusterState,
    DeploymentState,
    TrafficSplit,
)
from tests.fakes.namespaces import NAME, FakeNamespace
from tests.fakes.releases import attempt


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an empty environment."""
    return FakeNamespace(strategy="blue-green")


@pytest.fixture
def state(namespace: FakeNamespace) -> ClusterState:
    """Return a reader of its state."""
    return ClusterState(namespace.cluster, namespace.rendering())


def create_service(namespace: FakeNamespace, selector: Any, annotations: Any = None) -> None:
    """Create the Service with that selector."""
    namespace.cluster.delete("Service", NAME)
    namespace.cluster.create(
        {
            "kind": "Service",
            "metadata": {"name": NAME, "annotations": annotations or {}},
            "spec": {"selector": selector, "ports": []},
        }
    )


@pytest.mark.parametrize(
    ("selector", "annotations", "expected"),
    [
        ({TRACK_LABEL: "main"}, {TRACK_LABEL: "main"}, TrafficSplit("main")),
        ({TRACK_LABEL: "twin"}, {TRACK_LABEL: "twin"}, TrafficSplit("twin")),
        ({TRACK_LABEL: "twin"}, {}, TrafficSplit("twin")),
        ({TRACK_LABEL: "twin"}, {TRACK_LABEL: "main"}, TrafficSplit("twin")),
        ({TRACK_LABEL: "unknown"}, {TRACK_LABEL: "twin"}, TrafficSplit("twin")),
        ({TRACK_LABEL: "unknown"}, {}, TrafficSplit("main")),
        ({"app": "x"}, {TRACK_LABEL: "twin"}, TrafficSplit("twin", both=True)),
        ({"app": "x"}, {TRACK_LABEL: "nonsense"}, TrafficSplit("main", both=True)),
        (None, {}, TrafficSplit("main", both=True)),
    ],
)
def test_the_selector_decides_about_the_traffic(
    namespace: FakeNamespace,
    state: ClusterState,
    selector: Any,
    annotations: dict[str, str],
    expected: TrafficSplit,
) -> None:
    """Its annotation names the stable track while it selects both."""
    create_service(namespace, selector, annotations)
    assert state.traffic() == expected


def test_without_a_service_the_track_with_replicas_serves(
    namespace: FakeNamespace, state: ClusterState
) -> None:
    """In an empty environment it is the first one."""
    assert state.traffic() == TrafficSplit("main")
    namespace.writer().roll_out("twin", namespace.release("a"), 1)
    assert state.traffic() == TrafficSplit("twin")


def test_a_traffic_split_knows_both_tracks() -> None:
    """It also knows which of them get requests."""
    assert (TrafficSplit("main").other_track, TrafficSplit("twin").other_track) == ("twin", "main")
    assert [TrafficSplit("main").sends_to(track) for track in ("main", "twin")] == [True, False]
    assert [TrafficSplit("main", both=True).sends_to(track) for track in ("main", "twin")] == [
        True,
        True,
    ]


def test_a_track_is_read_from_its_deployment(namespace: FakeNamespace, state: ClusterState) -> None:
    """It has an image, a number of replicas and an attempt."""
    assert state.deployment("main") is None
    a = namespace.release("a")
    writer = namespace.writer()
    writer.roll_out("main", a, 2, attempt(7, a))
    deployment = state.deployment("main")
    assert deployment
    assert (deployment.track, deployment.image, deployment.replicas, deployment.attempt) == (
        "main",
        a.image.digest,
        2,
        attempt(7, a),
    )
    assert deployment.settings == writer.desired.settings_hash(a)
    assert deployment.pod_template == state.pods("main")[0].pod_template != ""
    assert state.image("main") == a.image.digest
    assert state.image("twin") == ""


def test_a_track_without_replicas_has_no_image(
    namespace: FakeNamespace, state: ClusterState
) -> None:
    """Its Deployment still has the one that it had."""
    writer = namespace.writer()
    writer.roll_out("main", a := namespace.release("a"), 2)
    writer.remove_replicas(main_deployment(state))
    assert state.image("main") == ""
    assert main_deployment(state).image == a.image.digest


@pytest.mark.parametrize("damaged", [None, "", "{", '{"id": 0}', "[]"])
def test_a_damaged_attempt_is_none(damaged: str | None) -> None:
    """It causes no error."""
    annotations = None if damaged is None else {RELEASE_ANNOTATION: damaged}
    assert (
        DeploymentState("main", {"metadata": {"annotations": annotations}, "spec": {}}).attempt
        is None
    )


def test_the_number_of_replicas_is_ours_until_another_manager_sets_it(
    namespace: FakeNamespace, state: ClusterState
) -> None:
    """Setting the same number counts, and so does setting it on the other track before."""
    namespace.writer().roll_out("main", a := namespace.release("a"), 2)
    assert main_deployment(state).replicas_are_ours
    namespace.cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": NAME}, "spec": {"replicas": 2}}, "kubectl"
    )
    assert not main_deployment(state).replicas_are_ours
    namespace.cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": NAME}, "spec": {"replicas": 3}}, "kubectl"
    )
    assert not main_deployment(state).replicas_are_ours
    namespace.writer().roll_out("main", a, 3)
    assert not main_deployment(state).replicas_are_ours
    namespace.writer().roll_out("twin", a, 3)
    twin = state.deployment("twin")
    assert twin
    assert twin.item["metadata"]["annotations"][REPLICAS_ANNOTATION] == "2"
    assert not twin.replicas_are_ours


def test_terminating_pods_are_not_returned(namespace: FakeNamespace, state: ClusterState) -> None:
    """They may take a while to stop."""
    namespace.cluster.world.termination_steps = 1000
    writer = namespace.writer()
    writer.roll_out("main", namespace.release("a"), 2)
    writer.roll_out("twin", namespace.release("b"), 1)
    assert (len(state.pods()), len(state.pods("main")), len(state.pods("twin"))) == (3, 2, 1)
    writer.remove_replicas(main_deployment(state))
    assert (len(state.pods()), len(state.pods("main"))) == (1, 0)
    assert len(namespace.cluster.objects.find_all("Pod")) == 3


def test_the_ready_pods_of_the_service_are_routed(
    namespace: FakeNamespace, state: ClusterState
) -> None:
    """Other pods are not."""
    writer = namespace.writer()
    writer.roll_out("main", namespace.release("a"), 2)
    assert state.routed_pods() == set()
    assert not state.routes_to("main")
    writer.supporting_objects.point_service(TrafficSplit("main"))
    namespace.cluster.step()
    assert state.routed_pods() == namespace.pods()
    assert state.routes_to("main")
    namespace.cluster.apply_as(
        {"kind": "Service", "metadata": {"name": NAME}, "spec": {"selector": {"app": "other"}}},
        "kubectl",
    )
    namespace.cluster.step()
    assert not state.routes_to("main")


def main_deployment(state: ClusterState) -> DeploymentState:
    found = state.deployment("main")
    assert found
    return found
