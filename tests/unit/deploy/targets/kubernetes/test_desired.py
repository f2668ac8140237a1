"""The desired objects: the number of replicas, the time they may take, and the settings."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.records import Release
from deploy.targets.kubernetes.render import CHANGE_CAUSE, RELEASE_ANNOTATION
from tests.fakes.namespaces import SIZE, FakeNamespace
from tests.fakes.releases import attempt
from tests.fakes.renderings import ALL_SETTINGS


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an empty environment."""
    return FakeNamespace(strategy="blue-green")


def test_the_time_of_a_replica_depends_on_the_size_of_its_image(
    namespace: FakeNamespace, a: Release
) -> None:
    """It includes scheduling and the start; the Deployment has it as its deadline."""
    writer = namespace.writer(pull_rate=10e6, ready_within=45.0)
    assert writer.desired.replica_seconds(a) == 30 + SIZE / 10e6 + 45
    writer.roll_out("main", a, 1)
    assert namespace.get("Deployment")["spec"]["progressDeadlineSeconds"] == 85


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
def test_the_number_of_replicas_to_serve(
    namespace: FakeNamespace, a: Release, settings: dict[str, Any], chosen: int | None, count: int
) -> None:
    """It is the one in the settings, unless it was set on the cluster; an autoscaler has limits."""
    namespace.writer().roll_out("main", a, 2)
    if chosen:
        namespace.scale(chosen)
    assert namespace.writer(**settings).desired.replica_count() == count


def test_without_replicas_the_settings_decide_about_their_number(
    namespace: FakeNamespace, a: Release
) -> None:
    """A number that was set earlier does not count."""
    assert namespace.writer(replicas=3).desired.replica_count() == 3
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    namespace.scale(5)
    writer.remove_replicas(namespace.deployment())
    assert namespace.writer(replicas=3).desired.replica_count() == 3


def test_the_settings_hash_differs_for_different_objects(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The attempt and the track do not change it."""
    same = {
        namespace.writer().desired.settings_hash(a),
        namespace.writer(lock_wait=9.0).desired.settings_hash(a),
        namespace.writer(strategy="canary").desired.settings_hash(a),
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
                namespace.writer().desired.settings_hash(b),
                *same,
                *(namespace.writer(**changed).desired.settings_hash(a) for changed in others),
            }
        )
        == 7
    )


def test_the_rendered_objects_are_the_applied_ones(namespace: FakeNamespace, a: Release) -> None:
    """They have the annotations of the attempt."""
    writer = namespace.writer(**ALL_SETTINGS)
    writer.roll_out("main", a, 2)
    made = {item["kind"]: item for item in writer.desired.render("main", a, attempt(7, a))}
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
def test_the_rendered_number_of_replicas_is_that_of_the_settings(
    namespace: FakeNamespace, a: Release, settings: dict[str, Any], count: int
) -> None:
    """Applying it undoes other scaling; the number of an autoscaler is kept."""
    namespace.writer().roll_out("main", a, 2)
    namespace.scale(4)
    rendered = namespace.writer(**settings).desired.render("main", a, None)
    assert [item["spec"]["replicas"] for item in rendered if item["kind"] == "Deployment"] == [
        count
    ]


def test_a_number_that_was_set_on_the_cluster_is_logged(
    namespace: FakeNamespace, a: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a change of the settings would seem to have no effect."""
    caplog.set_level(logging.INFO)
    namespace.writer().roll_out("main", a, 2)
    namespace.writer(replicas=3).desired.log_replica_count()
    assert "replicas stay" not in caplog.text
    namespace.scale(5)
    namespace.writer(replicas=3).desired.log_replica_count()
    assert "replicas stay at 5, which was set on the cluster; the settings say 3" in caplog.text


def test_scaling_without_a_field_owner_is_detected(namespace: FakeNamespace, a: Release) -> None:
    """Old API servers do not record one."""
    namespace.writer().roll_out("main", a, 2)
    namespace.get("Deployment")["spec"]["replicas"] = 5
    assert namespace.writer().desired.replica_count() == 5
