"""The supporting objects of an environment: creating, updating, and restoring them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import ClusterRefused
from deploy.records import Release
from deploy.targets.kubernetes.render import MANAGED_BY_LABEL, TRACK_LABEL, TRACKS
from deploy.targets.kubernetes.snapshot import SNAPSHOT_KINDS
from deploy.targets.kubernetes.state import TrafficSplit
from tests.fakes.namespaces import MANIFESTS, NAME, FakeNamespace
from tests.fakes.renderings import ALL_SETTINGS

SPARSE: dict[str, Any] = {"service": "NodePort"}
OTHER: dict[str, Any] = {
    "host": "other.example",
    "ingress_class": "nginx",
    "autoscale": {"at_most": 9},
}


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an empty environment."""
    return FakeNamespace(strategy="blue-green")


def specs(namespace: FakeNamespace) -> dict[str, Object]:
    """Return the specification of each object, by kind."""
    found = {kind: deepcopy(namespace.get(kind)) for kind in SNAPSHOT_KINDS}
    return {kind: item["spec"] for kind, item in found.items() if item}


def written_kinds(namespace: FakeNamespace) -> list[str]:
    """Return the kinds of the objects that were written since the last call."""
    done = [
        kind
        for verb, kind, _ in namespace.cluster.requests
        if verb in ("patch", "create", "update", "delete")
    ]
    namespace.cluster.requests.clear()
    return done


def templates_with_labels(*labels: str) -> dict[str, Object]:
    """Return templates whose Service selects replicas by more labels."""
    manifests = deepcopy(dict(MANIFESTS))
    manifests["Service"]["spec"]["selector"] |= dict.fromkeys(labels, "yes")
    return manifests


# --- ownership


@pytest.mark.parametrize(
    ("first", "second", "owned"),
    [
        (("shop-eu", "live"), ("shop", "eu-live"), "Service shop-eu-live"),
        (("shop.eu", "live"), ("shop-eu", "live"), "Service shop-eu-live"),
        (("shop", "live-twin"), ("shop", "live"), "Deployment shop-live-twin"),
        (("shop", "live"), ("shop", "live-twin"), "Deployment shop-live-twin"),
    ],
)
def test_another_environment_with_the_same_object_names_is_detected(
    namespace: FakeNamespace,
    a: Release,
    first: tuple[str, str],
    second: tuple[str, str],
    owned: str,
) -> None:
    """The second one gets an error that names the first, before any write."""
    for name in TRACKS:
        namespace.writer(named=first).supporting_objects.update(name)
        namespace.writer(named=first).roll_out(name, a, 1)
    namespace.cluster.requests.clear()
    with pytest.raises(
        ClusterRefused, match=f"environment {first[1]} of application {first[0]}"
    ) as error:
        namespace.writer(named=second).supporting_objects.require_ownership()
    assert error.value.on == owned
    assert {asked[0] for asked in namespace.cluster.requests} == {"get"}


def test_an_object_of_a_person_is_no_other_environment(
    namespace: FakeNamespace,
) -> None:
    """The API server knows which fields belong to whom."""
    namespace.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME},
            "spec": {"ports": [{"port": 80}]},
        }
    )
    namespace.writer().supporting_objects.require_ownership()
    namespace.writer().supporting_objects.point_service(TrafficSplit("main"))
    assert namespace.get("Service")["metadata"]["labels"][MANAGED_BY_LABEL] == "twinship"


def test_the_prepull_of_a_killed_deployer_is_removed(namespace: FakeNamespace, a: Release) -> None:
    """Its DaemonSet still exists."""
    namespace.cluster.apply(namespace.rendering().prepull(a))
    namespace.writer().supporting_objects.remove_prepull()
    assert namespace.get("DaemonSet", f"{NAME}-warm-up") == {}


# --- forward


def test_the_objects_of_the_settings_are_created(namespace: FakeNamespace) -> None:
    """To do it again changes nothing."""
    kinds = ["ServiceAccount", "PodDisruptionBudget", *SNAPSHOT_KINDS]

    def made() -> list[str]:
        objects = namespace.writer(**ALL_SETTINGS).supporting_objects
        objects.create_missing(TrafficSplit("main"))
        objects.update("main")
        return [namespace.get(kind)["metadata"]["resourceVersion"] for kind in kinds]

    made()
    # Addresses that controllers look for have come by then.
    assert made() == made()


def test_missing_objects_are_created_before_the_replicas(namespace: FakeNamespace) -> None:
    """It takes a while until they have addresses."""
    namespace.writer(**ALL_SETTINGS).supporting_objects.create_missing(TrafficSplit("twin"))
    assert set(specs(namespace)) == set(SNAPSHOT_KINDS)
    assert namespace.get("Service")["spec"]["selector"][TRACK_LABEL] == "twin"
    assert namespace.get("ServiceAccount")


@pytest.mark.parametrize(
    ("before", "after"), [(ALL_SETTINGS, OTHER), (OTHER, ALL_SETTINGS), (ALL_SETTINGS, SPARSE)]
)
def test_existing_objects_do_not_change_before_the_switch(
    namespace: FakeNamespace, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Then they are as the settings say; unused ones are removed at the end."""
    namespace.writer(**before).supporting_objects.update("main")
    was = specs(namespace)
    objects = namespace.writer(**after).supporting_objects
    objects.create_missing(TrafficSplit("main"))
    objects.point_service(TrafficSplit("main"))
    assert specs(namespace) == was
    objects.update("main")
    assert set(specs(namespace)) == set(was)
    objects.remove_unused()
    fresh = FakeNamespace(strategy="blue-green")
    fresh.writer(**after).supporting_objects.update("main")
    assert objects.snapshot() == fresh.writer(**after).supporting_objects.snapshot()


@pytest.mark.parametrize(
    ("traffic", "selected"),
    [
        (TrafficSplit("main"), "main"),
        (TrafficSplit("twin"), "twin"),
        (TrafficSplit("twin", both=True), None),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_the_service_can_point_to_one_track_or_both(
    namespace: FakeNamespace, exists: bool, traffic: TrafficSplit, selected: str | None
) -> None:
    """Its annotation names the stable one."""
    if exists:
        namespace.writer().supporting_objects.update("main")
    namespace.writer().supporting_objects.point_service(traffic)
    service = namespace.get("Service")
    assert service["spec"]["selector"].get(TRACK_LABEL) == selected
    assert service["metadata"]["annotations"][TRACK_LABEL] == traffic.track
    assert namespace.state().traffic() == traffic


def test_a_service_that_points_there_already_is_not_written(namespace: FakeNamespace) -> None:
    """Other settings of it do not count."""
    namespace.writer().supporting_objects.update("main")
    written_kinds(namespace)
    namespace.writer(service="LoadBalancer").supporting_objects.point_service(TrafficSplit("main"))
    assert written_kinds(namespace) == []


@pytest.mark.parametrize(
    ("before", "after"), [(["one"], ["one", "two"]), (["one", "two"], ["one"])]
)
def test_during_a_switch_the_service_selects_by_the_common_labels(
    namespace: FakeNamespace, before: list[str], after: list[str]
) -> None:
    """Old replicas lack a new label, and new replicas lack a removed one."""
    namespace.writer(manifests=templates_with_labels(*before)).supporting_objects.update("main")
    writer = namespace.writer(manifests=templates_with_labels(*after))
    writer.supporting_objects.point_service(TrafficSplit("main", both=True))
    selector = namespace.get("Service")["spec"]["selector"]
    assert (selector.get("one"), selector.get("two"), TRACK_LABEL in selector) == (
        "yes",
        None,
        False,
    )
    writer.supporting_objects.update("twin")
    assert [
        label for label in ("one", "two") if label in namespace.get("Service")["spec"]["selector"]
    ] == after


# --- back


@pytest.mark.parametrize(
    ("before", "after"),
    [(ALL_SETTINGS, OTHER), (OTHER, ALL_SETTINGS), (ALL_SETTINGS, SPARSE), (SPARSE, ALL_SETTINGS)],
)
def test_objects_are_restored_from_a_snapshot(
    namespace: FakeNamespace, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """They may have been changed, created or removed since."""
    namespace.writer(**before).supporting_objects.update("main")
    objects = namespace.writer(**after).supporting_objects
    kept = objects.snapshot()
    objects.create_missing(TrafficSplit("main"))
    objects.update("twin")
    objects.remove_unused()
    assert objects.snapshot() != kept
    objects.restore(kept, "main")
    assert objects.snapshot() == kept
    assert namespace.get("Service")["spec"]["selector"][TRACK_LABEL] == "main"


def test_an_unchanged_object_is_not_written(namespace: FakeNamespace) -> None:
    """Admission might refuse it now."""
    writer = namespace.writer(**ALL_SETTINGS)
    writer.supporting_objects.update("main")
    kept = writer.supporting_objects.snapshot()
    written_kinds(namespace)
    namespace.writer(**OTHER).supporting_objects.restore(kept, "main")
    assert written_kinds(namespace) == []


def test_a_service_missing_in_the_snapshot_is_created(namespace: FakeNamespace) -> None:
    """Nothing serves without one."""
    writer = namespace.writer()
    writer.supporting_objects.restore({}, "twin")
    assert namespace.get("Service")["spec"]["selector"][TRACK_LABEL] == "twin"


def test_a_service_that_selected_both_tracks_is_restored_to_one(namespace: FakeNamespace) -> None:
    """A canary that was on hold is not restored."""
    writer = namespace.writer()
    writer.supporting_objects.point_service(TrafficSplit("twin", both=True))
    kept = writer.supporting_objects.snapshot()
    writer.supporting_objects.restore(kept, "twin")
    assert namespace.state().traffic() == TrafficSplit("twin")


def test_an_object_of_a_person_is_restored_and_not_removed(namespace: FakeNamespace) -> None:
    """A release may have set fields of it."""
    namespace.cluster.create(
        {
            "kind": "Ingress",
            "metadata": {"name": NAME},
            "spec": {"defaultBackend": {"service": {"name": "x"}}},
        }
    )
    kept = namespace.writer(host="shop.example").supporting_objects.snapshot()
    objects = namespace.writer(host="shop.example").supporting_objects
    objects.update("main")
    assert namespace.get("Ingress")["spec"]["rules"]
    objects.restore(kept, "main")
    assert namespace.get("Ingress")["spec"] == {"defaultBackend": {"service": {"name": "x"}}}
