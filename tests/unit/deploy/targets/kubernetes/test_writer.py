"""The writer: rolling out, switching, restoring and removing replicas; fields of others."""

from __future__ import annotations

import logging
from copy import deepcopy

import pytest

from deploy.errors import FieldConflict, RolloutFailed
from deploy.records import Release
from deploy.targets.kubernetes.state import REPLICAS_ANNOTATION, TrafficSplit
from tests.fakes.kubernetes.api_server import PodScript
from tests.fakes.kubernetes.controllers import Services
from tests.fakes.namespaces import NAME, FakeNamespace
from tests.fakes.releases import attempt
from tests.fakes.renderings import ALL_SETTINGS

TWIN = f"{NAME}-twin"


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an empty environment."""
    return FakeNamespace(strategy="blue-green")


def test_each_write_requires_the_lock(namespace: FakeNamespace, a: Release) -> None:
    """The lock is checked at least once for each."""
    writer = namespace.writer(**ALL_SETTINGS)

    def write_count() -> int:
        return sum(
            asked[0] in ("patch", "create", "update", "delete")
            for asked in namespace.cluster.requests
        )

    writer.supporting_objects.create_missing(TrafficSplit("main"))
    writer.roll_out("main", a, 2)
    writer.switch_traffic("main", a)
    writer.remove_replicas(namespace.deployment())
    assert namespace.uncontested_lock.checks >= write_count() > 8


def test_a_track_is_rolled_out_with_a_number_of_replicas(
    namespace: FakeNamespace, a: Release
) -> None:
    """Their pods are returned; an annotation has the number in the settings."""
    writer = namespace.writer()
    assert {pod.name for pod in writer.roll_out("twin", a, 3)} == namespace.pods()
    assert len(namespace.pods()) == 3
    assert namespace.get("Deployment", TWIN)["metadata"]["annotations"][REPLICAS_ANNOTATION] == "2"
    assert not namespace.deployment("twin").replicas_are_ours
    writer.roll_out("twin", a, 2)
    assert namespace.deployment("twin").replicas_are_ours


def test_pods_are_replaced_only_if_their_template_changes(
    namespace: FakeNamespace, a: Release
) -> None:
    """An attempt, or settings of other objects, do not restart them."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2, attempt(1, a))
    before = namespace.pods()
    changed_writer = namespace.writer(host="x.example", service="NodePort")
    changed_writer.roll_out("main", a, 2, attempt(2, a))
    assert namespace.pods() == before
    namespace.writer(resources={"memory": "1Gi"}).roll_out("main", a, 2)
    assert namespace.pods().isdisjoint(before)


def test_a_track_is_restored_from_a_snapshot(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The present settings do not count, and the annotations are the earlier ones."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2, attempt(1, a))
    before = writer.take_snapshot(TrafficSplit("main"))
    assert before
    changed_writer = namespace.writer(resources={"memory": "1Gi"}, replicas=4)
    changed_writer.roll_out("main", b, 4, attempt(2, b))
    changed_writer.restore_replicas(before, a)
    assert namespace.deployment().applied == before.deployment
    assert len(namespace.pods("a")) == len(namespace.pods()) == 2


def test_an_unchanged_track_is_not_written(namespace: FakeNamespace, a: Release) -> None:
    """Admission might refuse it now; its replicas are still waited for."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    before = writer.take_snapshot(TrafficSplit("main"))
    assert before
    namespace.cluster.forbidden.add(("patch", "Deployment"))
    namespace.cluster.lose(min(namespace.pods()))
    assert {pod.name for pod in writer.restore_replicas(before, a)} == namespace.pods()
    assert len(namespace.pods()) == 2


def test_without_replicas_there_is_no_snapshot(namespace: FakeNamespace, a: Release) -> None:
    """They were removed, or never existed."""
    writer = namespace.writer()
    assert writer.take_snapshot(TrafficSplit("main")) is None
    writer.roll_out("main", a, 2)
    writer.remove_replicas(namespace.deployment())
    assert writer.take_snapshot(TrafficSplit("main")) is None


def test_a_failed_rollout_keeps_the_times_of_its_pods(namespace: FakeNamespace, a: Release) -> None:
    """They were seen in some stages before."""
    writer = namespace.writer()
    namespace.cluster.scripts[a.image.digest] = PodScript(exits=1)
    with pytest.raises(RolloutFailed):
        writer.roll_out("main", a, 2)
    assert writer.times.keys() == namespace.pods()


def test_the_times_of_a_replica_are_those_of_its_first_rollout(
    namespace: FakeNamespace, a: Release
) -> None:
    """A canary is rolled out twice, but its first replica starts once."""
    namespace.cluster.scripts[a.image.digest] = PodScript(pulled_in=20)
    writer = namespace.writer()
    writer.roll_out("twin", a, 1)
    (first,) = (dict(seen) for seen in writer.times.values())
    writer.roll_out("twin", a, 2)
    assert len(writer.times) == 2
    assert first in writer.times.values()
    assert first["started"] > 1


# --- fields of other managers


def test_the_number_of_serving_replicas_is_left_to_its_owner(
    namespace: FakeNamespace, a: Release, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """A log line says so."""
    namespace.writer().roll_out("main", a, 2)
    namespace.scale(4, by="keda")
    with caplog.at_level(logging.INFO):
        assert len(namespace.writer().roll_out("main", b, 2)) == 4
    assert "the number of replicas is left to keda" in caplog.text
    assert namespace.get("Deployment")["spec"]["replicas"] == 4


def test_the_owner_of_the_number_is_ignored_on_a_track_without_traffic(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The Deployment is created again."""
    writer = namespace.writer()
    writer.supporting_objects.point_service(TrafficSplit("main"))
    writer.roll_out("twin", a, 2)
    namespace.scale(4, TWIN)
    writer.roll_out("twin", b, 3)
    assert len(namespace.pods("b")) == len(namespace.pods()) == 3
    assert namespace.deployment("twin").item["spec"]["replicas"] == 3


def test_another_field_of_another_manager_is_a_conflict(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The error names the owner, and nothing is changed."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    namespace.cluster.apply_as(
        {
            "kind": "Deployment",
            "metadata": {"name": NAME},
            "spec": {"replicas": 4, "revisionHistoryLimit": 3},
        },
        "grace",
    )
    before = deepcopy(namespace.get("Deployment")["spec"])
    with pytest.raises(FieldConflict) as caught:
        writer.roll_out("main", b, 2)
    assert caught.value.owners == {"spec.replicas": "grace", "spec.revisionHistoryLimit": "grace"}
    assert namespace.get("Deployment")["spec"] == before


# --- switching traffic


def test_a_switch_sends_all_requests_to_one_track(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """It waits until the nodes have updated their routes."""
    writer = namespace.writer(autoscale={"at_most": 4})
    writer.roll_out("main", a, 2)
    writer.roll_out("twin", b, 2)
    for name, release, code in (("main", a, "a"), ("twin", b, "b")):
        began = namespace.cluster.seconds()
        writer.switch_traffic(name, release)  # type: ignore[arg-type]  # the loop hides the literal
        assert namespace.answers() == {code}
        assert namespace.cluster.seconds() - began >= 2
        assert namespace.get("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"][
            "name"
        ] == namespace.rendering().deployment_name(name)  # type: ignore[arg-type]  # the loop hides the literal


def test_a_switch_is_not_complete_while_other_pods_get_requests(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """It is not complete either while a replica gets none."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    writer.roll_out("twin", b, 1)
    writer.supporting_objects.point_service(TrafficSplit("main", both=True))
    namespace.cluster.step()
    assert not writer.is_routed("main", a)
    writer.supporting_objects.point_service(TrafficSplit("main"))
    namespace.cluster.step()
    assert writer.is_routed("main", a)
    assert not writer.is_routed("main", b)


def test_a_service_that_does_not_select_its_replicas_is_reported(
    namespace: FakeNamespace, a: Release
) -> None:
    """The old replicas have not been removed then."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    namespace.cluster.stop_controllers(Services)
    what = "the Service did not select all replicas of the release, and only those, within 30 s"
    with pytest.raises(RolloutFailed, match=what) as caught:
        writer.switch_traffic("main", a)
    assert caught.value.on == f"Service {NAME}"


# --- removing replicas


def test_a_track_without_replicas_keeps_its_revisions(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """New settings do not add a revision."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    writer.roll_out("main", b, 2)
    sets = replica_sets(namespace)
    template = deepcopy(namespace.get("Deployment")["spec"]["template"])
    namespace.writer(resources={"memory": "1Gi"}).remove_replicas(namespace.deployment())
    assert namespace.pods() == set()
    assert namespace.get("Deployment")["spec"]["replicas"] == 0
    assert namespace.get("Deployment")["spec"]["template"] == template
    assert replica_sets(namespace) == sets
    assert len(sets) == 2


def test_a_deployment_whose_number_has_another_owner_is_deleted(
    namespace: FakeNamespace, a: Release
) -> None:
    """There is no other way to remove its replicas."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    namespace.scale(3)
    writer.remove_replicas(namespace.deployment())
    assert namespace.get("Deployment") == {}
    assert namespace.pods() == set()


def test_replicas_are_removed_without_field_owners_too(
    namespace: FakeNamespace, a: Release
) -> None:
    """Another client has cleared the list of owners."""
    writer = namespace.writer()
    writer.roll_out("main", a, 2)
    namespace.cluster.forget_field_owners()
    del namespace.get("Deployment")["metadata"]["managedFields"]
    writer.remove_replicas(namespace.deployment())
    assert namespace.pods() == set()


def replica_sets(namespace: FakeNamespace) -> set[str]:
    return {item["metadata"]["name"] for item in namespace.cluster.objects.find_all("ReplicaSet")}
