"""What an environment looks like: which side serves, and what each of them is."""

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
def place() -> FakeNamespace:
    """An empty environment."""
    return FakeNamespace(strategy="blue-green")


@pytest.fixture
def sides(place: FakeNamespace) -> ClusterState:
    """Its two sides."""
    return ClusterState(place.cluster, place.rendering())


def led(place: FakeNamespace, selector: Any, annotations: Any = None) -> None:
    """Has the Service lead there."""
    place.cluster.delete("Service", NAME)
    place.cluster.create(
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
        ({TRACK_LABEL: "nowhere"}, {TRACK_LABEL: "twin"}, TrafficSplit("twin")),
        ({TRACK_LABEL: "nowhere"}, {}, TrafficSplit("main")),
        ({"app": "x"}, {TRACK_LABEL: "twin"}, TrafficSplit("twin", both=True)),
        ({"app": "x"}, {TRACK_LABEL: "nonsense"}, TrafficSplit("main", both=True)),
        (None, {}, TrafficSplit("main", both=True)),
    ],
)
def test_requests_go_where_the_selector_leads_them(
    place: FakeNamespace,
    sides: ClusterState,
    selector: Any,
    annotations: dict[str, str],
    expected: TrafficSplit,
) -> None:
    """What is noted beside it says which side is stable, while it leads to both."""
    led(place, selector, annotations)
    assert sides.traffic() == expected


def test_without_a_service_the_side_that_has_replicas_is_to_serve(
    place: FakeNamespace, sides: ClusterState
) -> None:
    """The first one, in an empty environment."""
    assert sides.traffic() == TrafficSplit("main")
    place.writer().roll_out("twin", place.release("a"), 1)
    assert sides.traffic() == TrafficSplit("twin")


def test_sides_know_each_other() -> None:
    """And which of them get requests."""
    assert (TrafficSplit("main").other_track, TrafficSplit("twin").other_track) == ("twin", "main")
    assert [TrafficSplit("main").sends_to(side) for side in ("main", "twin")] == [True, False]
    assert [TrafficSplit("main", both=True).sends_to(side) for side in ("main", "twin")] == [
        True,
        True,
    ]


def test_a_side_is_read_from_its_deployment(place: FakeNamespace, sides: ClusterState) -> None:
    """What it runs, how many, and by which attempt."""
    assert sides.deployment("main") is None
    a = place.release("a")
    changes = place.writer()
    changes.roll_out("main", a, 2, attempt(7, a))
    side = sides.deployment("main")
    assert side
    assert (side.track, side.image, side.replicas, side.attempt) == (
        "main",
        a.image.digest,
        2,
        attempt(7, a),
    )
    assert side.settings == changes.settings_hash(a)
    assert side.pod_template == sides.pods("main")[0].pod_template != ""
    assert sides.image("main") == a.image.digest
    assert sides.image("twin") == ""


def test_a_side_that_was_emptied_has_no_image(place: FakeNamespace, sides: ClusterState) -> None:
    """Though its Deployment still knows what it had."""
    changes = place.writer()
    changes.roll_out("main", a := place.release("a"), 2)
    changes.remove_replicas(_side(sides))
    assert sides.image("main") == ""
    assert _side(sides).image == a.image.digest


@pytest.mark.parametrize("spoilt", [None, "", "{", '{"id": 0}', "[]"])
def test_an_attempt_that_was_spoilt_is_none(spoilt: str | None) -> None:
    """Nobody stumbles over it."""
    notes = None if spoilt is None else {RELEASE_ANNOTATION: spoilt}
    assert DeploymentState("main", {"metadata": {"annotations": notes}, "spec": {}}).attempt is None


def test_a_number_is_ours_until_somebody_else_has_a_say(
    place: FakeNamespace, sides: ClusterState
) -> None:
    """Who chooses the same number has one, too, and so has who chose it for the side that served before."""
    place.writer().roll_out("main", a := place.release("a"), 2)
    assert _side(sides).replicas_are_ours
    place.cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": NAME}, "spec": {"replicas": 2}}, "kubectl"
    )
    assert not _side(sides).replicas_are_ours
    place.cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": NAME}, "spec": {"replicas": 3}}, "kubectl"
    )
    assert not _side(sides).replicas_are_ours
    place.writer().roll_out("main", a, 3)
    assert not _side(sides).replicas_are_ours
    place.writer().roll_out("twin", a, 3)
    twin = sides.deployment("twin")
    assert twin
    assert twin.item["metadata"]["annotations"][REPLICAS_ANNOTATION] == "2"
    assert not twin.replicas_are_ours


def test_pods_that_go_are_no_pods_any_more(place: FakeNamespace, sides: ClusterState) -> None:
    """Though they may take a while."""
    place.cluster.world.termination_steps = 1000
    changes = place.writer()
    changes.roll_out("main", place.release("a"), 2)
    changes.roll_out("twin", place.release("b"), 1)
    assert (len(sides.pods()), len(sides.pods("main")), len(sides.pods("twin"))) == (3, 2, 1)
    changes.remove_replicas(_side(sides))
    assert (len(sides.pods()), len(sides.pods("main"))) == (1, 0)
    assert len(place.cluster.objects.find_all("Pod")) == 3


def test_pods_that_a_service_leads_to_are_reached(
    place: FakeNamespace, sides: ClusterState
) -> None:
    """Those that are ready, and no others."""
    changes = place.writer()
    changes.roll_out("main", place.release("a"), 2)
    assert sides.routed_pods() == set()
    assert not sides.routes_to("main")
    changes.supporting_objects.point_service(TrafficSplit("main"))
    place.cluster.step()
    assert sides.routed_pods() == place.pods()
    assert sides.routes_to("main")
    place.cluster.apply_as(
        {"kind": "Service", "metadata": {"name": NAME}, "spec": {"selector": {"app": "other"}}},
        "kubectl",
    )
    place.cluster.step()
    assert not sides.routes_to("main")


@pytest.mark.parametrize(
    "subsets", [None, [{"addresses": None}], [{"addresses": [{"ip": "10.0.0.1"}]}]]
)
def test_addresses_of_something_else_are_nobodys(
    place: FakeNamespace, sides: ClusterState, subsets: Any
) -> None:
    """Endpoints may have been written by hand."""
    place.cluster.create({"kind": "Endpoints", "metadata": {"name": NAME}, "subsets": subsets})
    assert sides.routed_pods() <= {""}


def _side(sides: ClusterState) -> DeploymentState:
    found = sides.deployment("main")
    assert found
    return found
