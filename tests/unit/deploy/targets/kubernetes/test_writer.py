"""What a deployer changes on a cluster, and how long and how many it wants of what."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.records import Release
from deploy.targets.kubernetes.render import CHANGE_CAUSE, RELEASE_ANNOTATION
from deploy.targets.kubernetes.state import TrafficSplit
from tests.fakes.namespaces import SIZE, FakeNamespace
from tests.fakes.releases import attempt
from tests.fakes.renderings import ALL_SETTINGS


@pytest.fixture
def place() -> FakeNamespace:
    """An empty environment."""
    return FakeNamespace(strategy="blue-green")


def test_nothing_is_changed_without_the_lease(place: FakeNamespace, a: Release) -> None:
    """Each write makes sure of it first."""
    changes = place.writer(**ALL_SETTINGS)

    def written() -> int:
        return sum(
            asked[0] in ("patch", "create", "update", "delete") for asked in place.cluster.requests
        )

    changes.supporting_objects.create_missing(TrafficSplit("main"))
    changes.roll_out("main", a, 2)
    changes.switch_traffic("main", a)
    changes.remove_replicas(place.deployment())
    assert place.uncontested_lock.checks >= written() > 8


# --- how long, how many, of what


def test_a_replica_may_take_as_long_as_its_image_is_big(place: FakeNamespace, a: Release) -> None:
    """To find a node, to pull at the rate of the settings, to become ready; the cluster knows that too."""
    changes = place.writer(pull_rate=10e6, ready_within=45.0)
    assert changes.replica_seconds(a) == 30 + SIZE / 10e6 + 45
    changes.roll_out("main", a, 1)
    assert place.get("Deployment")["spec"]["progressDeadlineSeconds"] == 85


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
def test_how_many_replicas_shall_serve(
    place: FakeNamespace, a: Release, settings: dict[str, Any], chosen: int | None, count: int
) -> None:
    """As the settings say, unless somebody else chose; an autoscaler within its bounds."""
    place.writer().roll_out("main", a, 2)
    if chosen:
        place.scale(chosen)
    assert place.writer(**settings).replica_count() == count


def test_a_side_without_replicas_says_nothing_about_their_number(
    place: FakeNamespace, a: Release
) -> None:
    """It is the settings that say it."""
    assert place.writer(replicas=3).replica_count() == 3
    changes = place.writer()
    changes.roll_out("main", a, 2)
    place.scale(5)
    changes.remove_replicas(place.deployment())
    assert place.writer(replicas=3).replica_count() == 3


def test_settings_in_short_differ_when_they_do(
    place: FakeNamespace, a: Release, b: Release
) -> None:
    """In whatever object; not by who asked, nor by the side."""
    same = {
        place.writer().settings_hash(a),
        place.writer(lock_wait=9.0).settings_hash(a),
        place.writer(strategy="canary").settings_hash(a),
    }
    assert len(same) == 1
    others: list[dict[str, Any]] = [
        {"replicas": 3},
        {"host": "x.example"},
        {"service": "NodePort"},
        {"resources": {"cpu": "1"}},
        {"autoscale": {"at_most": 3}},
    ]
    assert (
        len(
            {
                place.writer().settings_hash(b),
                *same,
                *(place.writer(**changed).settings_hash(a) for changed in others),
            }
        )
        == 7
    )


def test_what_is_rendered_is_what_is_applied(place: FakeNamespace, a: Release) -> None:
    """With the marks of the attempt."""
    changes = place.writer(**ALL_SETTINGS)
    changes.roll_out("main", a, 2)
    made = {item["kind"]: item for item in changes.render("main", a, attempt(7, a))}
    assert made.keys() == {
        "ServiceAccount",
        "Service",
        "Ingress",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "Deployment",
    }
    assert '"id":7,' in made["Deployment"]["metadata"]["annotations"][RELEASE_ANNOTATION]
    assert made["Deployment"]["metadata"]["annotations"][CHANGE_CAUSE].startswith("release 7: ")


@pytest.mark.parametrize(
    ("settings", "count"), [({}, 2), ({"replicas": 3}, 3), ({"autoscale": {"at_most": 6}}, 4)]
)
def test_a_number_that_others_chose_can_be_taken_back(
    place: FakeNamespace, a: Release, settings: dict[str, Any], count: int
) -> None:
    """By applying what is rendered; an autoscaler's is its own."""
    place.writer().roll_out("main", a, 2)
    place.scale(4)
    rendered = place.writer(**settings).render("main", a, None)
    assert [item["spec"]["replicas"] for item in rendered if item["kind"] == "Deployment"] == [
        count
    ]


def test_a_number_that_others_chose_is_told(
    place: FakeNamespace, a: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever changes the settings must not wonder."""
    caplog.set_level(logging.INFO)
    place.writer().roll_out("main", a, 2)
    place.writer(replicas=3).log_replica_count()
    assert "replicas stay" not in caplog.text
    place.scale(5)
    place.writer(replicas=3).log_replica_count()
    assert "replicas stay at 5, which was set on the cluster; the settings say 3" in caplog.text


def test_an_old_api_server_does_not_tell_who_scaled(place: FakeNamespace, a: Release) -> None:
    """That somebody did is seen all the same."""
    place.writer().roll_out("main", a, 2)
    place.get("Deployment")["spec"]["replicas"] = 5
    assert place.writer().replica_count() == 5
