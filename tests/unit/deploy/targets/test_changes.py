"""What a deployer changes on a cluster beside replicas, and what it wants of those."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.errors import ClusterRefused
from deploy.records import Release
from deploy.render import CAUSE, MANAGED_BY, RELEASE, SIDE, SIDES
from deploy.targets.sides import Serving
from tests.fakes.places import NAME, SIZE, FakePlace, Held, side
from tests.fakes.releases import attempt
from tests.fakes.renderings import WHOLE


@pytest.fixture
def place() -> FakePlace:
    """An empty environment."""
    return FakePlace(strategy="blue-green")


# --- all that is not a replica


def test_what_the_settings_ask_for_is_made(place: FakePlace) -> None:
    """Once: doing it again changes nothing."""
    kinds = ["ServiceAccount", "Service", "Ingress", "PodDisruptionBudget", "HorizontalPodAutoscaler"]

    def made() -> list[str]:
        place.changes(**WHOLE).surround(Serving("main"))
        return [place.found(kind)["metadata"]["resourceVersion"] for kind in kinds]

    made()
    # Addresses that controllers look for have come by then.
    assert made() == made()


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
    place: FakePlace, a: Release, first: tuple[str, str], second: tuple[str, str], taken: str
) -> None:
    """To the API server both are the same owner; the second is refused, told who was first, and has changed nothing."""
    for name in SIDES:
        place.changes(named=first).surround(Serving(name))
        place.changes(named=first).roll(name, a, 1)
    place.cluster.asked.clear()
    with pytest.raises(ClusterRefused, match=f"environment {first[1]} of application {first[0]}") as error:
        place.changes(named=second).surround(Serving("main"))
    assert error.value.on == taken
    assert {asked[0] for asked in place.cluster.asked} == {"get"}


def test_what_a_person_made_under_the_same_name_is_no_other_application(place: FakePlace) -> None:
    """Whose fields are whose, the API server tells."""
    place.cluster.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": {"ports": [{"port": 80}]}})
    place.changes().surround(Serving("main"))
    assert place.found("Service")["metadata"]["labels"][MANAGED_BY] == "twinship"


def test_nothing_is_changed_without_the_lease(place: FakePlace, a: Release) -> None:
    """Each write makes sure of it first."""
    changes = place.changes(**WHOLE)
    lease = changes._lease
    assert isinstance(lease, Held)

    def written() -> int:
        return sum(asked[0] in ("patch", "create", "update", "delete") for asked in place.cluster.asked)

    changes.surround(Serving("main"))
    changes.roll("main", a, 2)
    changes.switch("main", a)
    changes.empty(side(changes))
    place.changes().surround(Serving("main"))
    assert lease.asked >= written() - 8 > 5


@pytest.mark.parametrize(
    ("serving", "selected"), [(Serving("main"), "main"), (Serving("twin"), "twin"), (Serving("twin", both=True), None)]
)
def test_the_service_is_led_to_a_side_or_to_both(place: FakePlace, serving: Serving, selected: str | None) -> None:
    """Which of them is stable is noted."""
    place.changes().point(serving)
    service = place.found("Service")
    assert service["spec"]["selector"].get(SIDE) == selected
    assert service["metadata"]["annotations"][SIDE] == serving.side
    assert place.changes()._sides.serving() == serving


def test_a_warm_up_that_was_left_is_removed(place: FakePlace, a: Release) -> None:
    """Its deployer was killed."""
    place.cluster.apply(place.rendering().warm_up(a))
    place.changes().surround(Serving("main"))
    assert place.found("DaemonSet", f"{NAME}-warm-up") == {}


# --- how long, how many, of what


def test_a_replica_may_take_as_long_as_its_image_is_big(place: FakePlace, a: Release) -> None:
    """To find a node, to pull at the rate of the settings, to become ready; the cluster knows that too."""
    changes = place.changes(pull_rate=10e6, ready_within=45.0)
    assert changes.within(a) == 30 + SIZE / 10e6 + 45
    changes.roll("main", a, 1)
    assert place.found("Deployment")["spec"]["progressDeadlineSeconds"] == 85


@pytest.mark.parametrize(
    ("settings", "chosen", "count"),
    [
        ({}, None, 2),
        ({}, 5, 5),
        ({"replicas": 4}, None, 4),
        ({"autoscale": {"at_most": 6}}, None, 2),
        ({"autoscale": {"at_most": 6}}, 5, 5),
        ({"autoscale": {"at_most": 6}}, 9, 6),
        ({"autoscale": {"at_most": 6}}, 1, 2),
        ({"replicas": 3, "autoscale": {"at_most": 6}}, None, 3),
    ],
)
def test_how_many_replicas_shall_serve(place: FakePlace, a: Release, settings: dict[str, Any], chosen: int | None, count: int) -> None:
    """As the settings say, unless somebody else chose; an autoscaler within its bounds."""
    place.changes().roll("main", a, 2)
    if chosen:
        place.scale(chosen)
    assert place.changes(**settings).count() == count


def test_a_side_without_replicas_says_nothing_about_their_number(place: FakePlace, a: Release) -> None:
    """It is the settings that say it."""
    assert place.changes(replicas=3).count() == 3
    changes = place.changes()
    changes.roll("main", a, 2)
    place.scale(5)
    changes.empty(side(changes))
    assert place.changes(replicas=3).count() == 3


def test_settings_in_short_differ_when_they_do(place: FakePlace, a: Release, b: Release) -> None:
    """In whatever object; not by who asked, nor by the side."""
    same = {place.changes().settings(a), place.changes(lock_wait=9.0).settings(a), place.changes(strategy="canary").settings(a)}
    assert len(same) == 1
    others: list[dict[str, Any]] = [
        {"replicas": 3},
        {"host": "x.example"},
        {"service": "NodePort"},
        {"resources": {"cpu": "1"}},
        {"autoscale": {"at_most": 3}},
    ]
    assert len({place.changes().settings(b), *same, *(place.changes(**changed).settings(a) for changed in others)}) == 7


def test_what_is_rendered_is_what_is_applied(place: FakePlace, a: Release) -> None:
    """With the marks of the attempt."""
    changes = place.changes(**WHOLE)
    changes.roll("main", a, 2)
    made = {item["kind"]: item for item in changes.rendered("main", a, attempt(7, a))}
    assert made.keys() == {"ServiceAccount", "Service", "Ingress", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Deployment"}
    assert '"id":7,' in made["Deployment"]["metadata"]["annotations"][RELEASE]
    assert made["Deployment"]["metadata"]["annotations"][CAUSE].startswith("release 7: ")


@pytest.mark.parametrize(("settings", "count"), [({}, 2), ({"replicas": 3}, 3), ({"autoscale": {"at_most": 6}}, 4)])
def test_a_number_that_others_chose_can_be_taken_back(place: FakePlace, a: Release, settings: dict[str, Any], count: int) -> None:
    """By applying what is rendered; an autoscaler's is its own."""
    place.changes().roll("main", a, 2)
    place.scale(4)
    rendered = place.changes(**settings).rendered("main", a, None)
    assert [item["spec"]["replicas"] for item in rendered if item["kind"] == "Deployment"] == [count]


def test_a_number_that_others_chose_is_told(place: FakePlace, a: Release, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever changes the settings must not wonder."""
    caplog.set_level(logging.INFO)
    place.changes().roll("main", a, 2)
    place.changes(replicas=3).surround(Serving("main"))
    assert "replicas stay" not in caplog.text
    place.scale(5)
    place.changes(replicas=3).surround(Serving("main"))
    assert "replicas stay at 5, as somebody chose; the settings say 3" in caplog.text


def test_an_old_api_server_does_not_tell_who_scaled(place: FakePlace, a: Release) -> None:
    """That somebody did is seen all the same."""
    place.changes().roll("main", a, 2)
    place.found("Deployment")["spec"]["replicas"] = 5
    assert place.changes().count() == 5
