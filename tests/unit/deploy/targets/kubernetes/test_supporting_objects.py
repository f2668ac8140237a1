"""What stands around replicas: made when it is missing, changed when it may be, and put back as it was."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import Object
from deploy.errors import ClusterRefused
from deploy.records import Release
from deploy.targets.kubernetes.render import MANAGED_BY_LABEL, TRACK_LABEL, TRACKS
from deploy.targets.kubernetes.state import TrafficSplit
from tests.fakes.namespaces import MANIFESTS, NAME, FakeNamespace
from tests.fakes.renderings import ALL_SETTINGS

AROUND = ("Service", "Ingress", "HorizontalPodAutoscaler")
SPARSE: dict[str, Any] = {"service": "NodePort"}
OTHER: dict[str, Any] = {
    "host": "other.example",
    "ingress_class": "nginx",
    "autoscale": {"at_most": 9},
}


@pytest.fixture
def place() -> FakeNamespace:
    """An empty environment."""
    return FakeNamespace(strategy="blue-green")


def specs(place: FakeNamespace) -> dict[str, Object]:
    """What is wanted of each object, by kind."""
    return {kind: deepcopy(place.get(kind)["spec"]) for kind in AROUND if place.get(kind)}


def written(place: FakeNamespace) -> list[str]:
    """The kinds of what was written since the last look."""
    done = [
        kind
        for verb, kind, _ in place.cluster.requests
        if verb in ("patch", "create", "update", "delete")
    ]
    place.cluster.requests.clear()
    return done


def labelled(*labels: str) -> dict[str, Object]:
    """Manifests whose Service selects replicas by more labels."""
    manifests = deepcopy(dict(MANIFESTS))
    manifests["Service"]["spec"]["selector"] |= dict.fromkeys(labels, "yes")
    return manifests


# --- whose it is


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (("shop-eu", "live"), ("shop", "eu-live"), "Service shop-eu-live"),
        (("shop.eu", "live"), ("shop-eu", "live"), "Service shop-eu-live"),
        (("shop", "live-twin"), ("shop", "live"), "Deployment shop-live-twin"),
        (("shop", "live"), ("shop", "live-twin"), "Deployment shop-live-twin"),
    ],
)
def test_nothing_is_taken_from_another_environment_whose_names_come_to_the_same(
    place: FakeNamespace, a: Release, first: tuple[str, str], second: tuple[str, str], taken: str
) -> None:
    """To the API server both are the same owner; the second is refused, told who was first, and has changed nothing."""
    for name in TRACKS:
        place.writer(named=first).supporting_objects.update(name)
        place.writer(named=first).roll_out(name, a, 1)
    place.cluster.requests.clear()
    with pytest.raises(
        ClusterRefused, match=f"environment {first[1]} of application {first[0]}"
    ) as error:
        place.writer(named=second).supporting_objects.require_ownership()
    assert error.value.on == taken
    assert {asked[0] for asked in place.cluster.requests} == {"get"}


def test_what_a_person_made_under_the_same_name_is_no_other_application(
    place: FakeNamespace,
) -> None:
    """Whose fields are whose, the API server tells."""
    place.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME},
            "spec": {"ports": [{"port": 80}]},
        }
    )
    place.writer().supporting_objects.require_ownership()
    place.writer().supporting_objects.point_service(TrafficSplit("main"))
    assert place.get("Service")["metadata"]["labels"][MANAGED_BY_LABEL] == "twinship"


def test_a_warm_up_that_was_left_is_removed(place: FakeNamespace, a: Release) -> None:
    """Its deployer was killed."""
    place.cluster.apply(place.rendering().prepull(a))
    place.writer().supporting_objects.remove_prepull()
    assert place.get("DaemonSet", f"{NAME}-warm-up") == {}


# --- forward


def test_what_the_settings_ask_for_is_made(place: FakeNamespace) -> None:
    """Once: doing it again changes nothing."""
    kinds = ["ServiceAccount", "PodDisruptionBudget", *AROUND]

    def made() -> list[str]:
        around = place.writer(**ALL_SETTINGS).supporting_objects
        around.create_missing(TrafficSplit("main"))
        around.update("main")
        return [place.get(kind)["metadata"]["resourceVersion"] for kind in kinds]

    made()
    # Addresses that controllers look for have come by then.
    assert made() == made()


def test_what_is_missing_is_made_before_replicas_are(place: FakeNamespace) -> None:
    """Addresses take their time to come."""
    place.writer(**ALL_SETTINGS).supporting_objects.create_missing(TrafficSplit("twin"))
    assert set(specs(place)) == set(AROUND)
    assert place.get("Service")["spec"]["selector"][TRACK_LABEL] == "twin"
    assert place.get("ServiceAccount")


@pytest.mark.parametrize(
    ("before", "after"), [(ALL_SETTINGS, OTHER), (OTHER, ALL_SETTINGS), (ALL_SETTINGS, SPARSE)]
)
def test_what_there_is_is_not_changed_before_the_switch(
    place: FakeNamespace, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """It answers requests with what was proven; then it is as the settings say, and what they do not ask for is there until the end."""
    place.writer(**before).supporting_objects.update("main")
    was = specs(place)
    around = place.writer(**after).supporting_objects
    around.create_missing(TrafficSplit("main"))
    around.point_service(TrafficSplit("main"))
    assert specs(place) == was
    around.update("main")
    assert set(specs(place)) == set(was)
    around.remove_unused()
    fresh = FakeNamespace(strategy="blue-green")
    fresh.writer(**after).supporting_objects.update("main")
    assert around.snapshot() == fresh.writer(**after).supporting_objects.snapshot()


@pytest.mark.parametrize(
    ("serving", "selected"),
    [
        (TrafficSplit("main"), "main"),
        (TrafficSplit("twin"), "twin"),
        (TrafficSplit("twin", both=True), None),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_the_service_is_led_to_a_side_or_to_both(
    place: FakeNamespace, there: bool, serving: TrafficSplit, selected: str | None
) -> None:
    """Which of them is stable is noted."""
    if there:
        place.writer().supporting_objects.update("main")
    place.writer().supporting_objects.point_service(serving)
    service = place.get("Service")
    assert service["spec"]["selector"].get(TRACK_LABEL) == selected
    assert service["metadata"]["annotations"][TRACK_LABEL] == serving.track
    assert place.state().traffic() == serving


def test_a_service_that_leads_there_is_not_written(place: FakeNamespace) -> None:
    """Whatever else the settings want of it by now."""
    place.writer().supporting_objects.update("main")
    written(place)
    place.writer(service="LoadBalancer").supporting_objects.point_service(TrafficSplit("main"))
    assert written(place) == []


@pytest.mark.parametrize(
    ("before", "after"), [(["one"], ["one", "two"]), (["one", "two"], ["one"])]
)
def test_while_it_is_led_elsewhere_replicas_are_found_by_what_all_of_them_carry(
    place: FakeNamespace, before: list[str], after: list[str]
) -> None:
    """Those of before lack a label that was added, those to come one that was removed."""
    place.writer(manifests=labelled(*before)).supporting_objects.update("main")
    changes = place.writer(manifests=labelled(*after))
    changes.supporting_objects.point_service(TrafficSplit("main", both=True))
    selector = place.get("Service")["spec"]["selector"]
    assert (selector.get("one"), selector.get("two"), TRACK_LABEL in selector) == (
        "yes",
        None,
        False,
    )
    changes.supporting_objects.update("twin")
    assert [
        label for label in ("one", "two") if label in place.get("Service")["spec"]["selector"]
    ] == after


# --- back


@pytest.mark.parametrize(
    ("before", "after"),
    [(ALL_SETTINGS, OTHER), (OTHER, ALL_SETTINGS), (ALL_SETTINGS, SPARSE), (SPARSE, ALL_SETTINGS)],
)
def test_they_are_put_back_as_they_were(
    place: FakeNamespace, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Whatever was changed, made or removed."""
    place.writer(**before).supporting_objects.update("main")
    around = place.writer(**after).supporting_objects
    kept = around.snapshot()
    around.create_missing(TrafficSplit("main"))
    around.update("twin")
    around.remove_unused()
    assert around.snapshot() != kept
    around.restore(kept, "main")
    assert around.snapshot() == kept
    assert place.get("Service")["spec"]["selector"][TRACK_LABEL] == "main"


def test_what_is_as_it_was_is_not_written_again(place: FakeNamespace) -> None:
    """Admission might not have it any more."""
    changes = place.writer(**ALL_SETTINGS)
    changes.supporting_objects.update("main")
    kept = changes.supporting_objects.snapshot()
    written(place)
    place.writer(**OTHER).supporting_objects.restore(kept, "main")
    assert written(place) == []


def test_a_service_that_was_missing_is_there_afterwards(place: FakeNamespace) -> None:
    """Nothing serves without one."""
    changes = place.writer()
    changes.supporting_objects.restore({}, "twin")
    assert place.get("Service")["spec"]["selector"][TRACK_LABEL] == "twin"


def test_what_led_to_both_sides_leads_to_one_again(place: FakeNamespace) -> None:
    """A canary that was held when the way back was noted is not held any more."""
    changes = place.writer()
    changes.supporting_objects.point_service(TrafficSplit("twin", both=True))
    kept = changes.supporting_objects.snapshot()
    changes.supporting_objects.restore(kept, "twin")
    assert place.state().traffic() == TrafficSplit("twin")


def test_what_a_person_made_is_theirs_again(place: FakeNamespace) -> None:
    """A release may have set fields of it; that does not make it ours to remove."""
    place.cluster.create(
        {
            "kind": "Ingress",
            "metadata": {"name": NAME},
            "spec": {"defaultBackend": {"service": {"name": "x"}}},
        }
    )
    kept = place.writer(host="shop.example").supporting_objects.snapshot()
    around = place.writer(host="shop.example").supporting_objects
    around.update("main")
    assert place.get("Ingress")["spec"]["rules"]
    around.restore(kept, "main")
    assert place.get("Ingress")["spec"] == {"defaultBackend": {"service": {"name": "x"}}}
