"""The replicas that a deployer brings up, leads requests to, puts back and takes away, and what it leaves to others."""

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

TWIN = f"{NAME}-twin"


@pytest.fixture
def place() -> FakeNamespace:
    """An empty environment."""
    return FakeNamespace(strategy="blue-green")


def test_a_side_is_brought_to_a_number_of_replicas(place: FakeNamespace, a: Release) -> None:
    """Their pods are given; what the settings say is noted beside it."""
    changes = place.writer()
    assert {pod.name for pod in changes.roll_out("twin", a, 3)} == place.pods()
    assert len(place.pods()) == 3
    assert place.get("Deployment", TWIN)["metadata"]["annotations"][REPLICAS_ANNOTATION] == "2"
    assert not place.deployment("twin").replicas_are_ours
    changes.roll_out("twin", a, 2)
    assert place.deployment("twin").replicas_are_ours


def test_pods_change_only_with_what_they_are_made_of(place: FakeNamespace, a: Release) -> None:
    """Neither an attempt nor settings of other objects restart them."""
    changes = place.writer()
    changes.roll_out("main", a, 2, attempt(1, a))
    before = place.pods()
    changed = place.writer(host="x.example", service="NodePort")
    changed.roll_out("main", a, 2, attempt(2, a))
    assert place.pods() == before
    place.writer(resources={"memory": "1Gi"}).roll_out("main", a, 2)
    assert place.pods().isdisjoint(before)


def test_a_side_is_restored_to_what_it_was(place: FakeNamespace, a: Release, b: Release) -> None:
    """To the last field, whatever the settings have become, and with the marks that it had."""
    changes = place.writer()
    changes.roll_out("main", a, 2, attempt(1, a))
    before = changes.take_snapshot(TrafficSplit("main"))
    assert before
    changed = place.writer(resources={"memory": "1Gi"}, replicas=4)
    changed.roll_out("main", b, 4, attempt(2, b))
    changed.restore_replicas(before, a)
    assert place.deployment().applied == before.deployment
    assert len(place.pods("a")) == len(place.pods()) == 2


def test_a_side_that_is_what_it_was_is_not_written_again(place: FakeNamespace, a: Release) -> None:
    """Admission might not have it any more; its replicas are waited for all the same."""
    changes = place.writer()
    changes.roll_out("main", a, 2)
    before = changes.take_snapshot(TrafficSplit("main"))
    assert before
    place.cluster.forbidden.add(("patch", "Deployment"))
    place.cluster.lose(min(place.pods()))
    assert {pod.name for pod in changes.restore_replicas(before, a)} == place.pods()
    assert len(place.pods()) == 2


def test_where_nothing_serves_there_is_nothing_to_go_back_to(
    place: FakeNamespace, a: Release
) -> None:
    """Whether there never was anything, or it was taken away."""
    changes = place.writer()
    assert changes.take_snapshot(TrafficSplit("main")) is None
    changes.roll_out("main", a, 2)
    changes.remove_replicas(place.deployment())
    assert changes.take_snapshot(TrafficSplit("main")) is None


def test_replicas_that_fail_are_no_replicas(place: FakeNamespace, a: Release) -> None:
    """What was seen of them until then is kept."""
    changes = place.writer()
    place.cluster.scripts[a.image.digest] = PodScript(exits=1)
    with pytest.raises(RolloutFailed):
        changes.roll_out("main", a, 2)
    assert changes.times.keys() == place.pods()


def test_the_first_time_that_a_replica_was_seen_counts(place: FakeNamespace, a: Release) -> None:
    """A canary is rolled out twice, and its first replica only once."""
    place.cluster.scripts[a.image.digest] = PodScript(pulled_in=20)
    changes = place.writer()
    changes.roll_out("twin", a, 1)
    (first,) = (dict(seen) for seen in changes.times.values())
    changes.roll_out("twin", a, 2)
    assert len(changes.times) == 2
    assert first in changes.times.values()
    assert first["started"] > 1


# --- what others own


def test_a_number_that_others_own_is_left_to_them_where_requests_are_answered(
    place: FakeNamespace, a: Release, b: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """And that is said."""
    place.writer().roll_out("main", a, 2)
    place.scale(4, by="keda")
    with caplog.at_level(logging.INFO):
        assert len(place.writer().roll_out("main", b, 2)) == 4
    assert "the number of replicas is left to keda" in caplog.text
    assert place.get("Deployment")["spec"]["replicas"] == 4


def test_a_number_that_others_own_counts_for_nothing_where_none_are(
    place: FakeNamespace, a: Release, b: Release
) -> None:
    """The side is made anew."""
    changes = place.writer()
    changes.supporting_objects.point_service(TrafficSplit("main"))
    changes.roll_out("twin", a, 2)
    place.scale(4, TWIN)
    changes.roll_out("twin", b, 3)
    assert len(place.pods("b")) == len(place.pods()) == 3
    assert place.deployment("twin").item["spec"]["replicas"] == 3


def test_another_field_that_others_own_ends_it(
    place: FakeNamespace, a: Release, b: Release
) -> None:
    """With its owner, and nothing changed; also if they own the number as well."""
    changes = place.writer()
    changes.roll_out("main", a, 2)
    place.cluster.apply_as(
        {
            "kind": "Deployment",
            "metadata": {"name": NAME},
            "spec": {"replicas": 4, "revisionHistoryLimit": 3},
        },
        "grace",
    )
    before = deepcopy(place.get("Deployment")["spec"])
    with pytest.raises(FieldConflict) as caught:
        changes.roll_out("main", b, 2)
    assert caught.value.owners == {"spec.replicas": "grace", "spec.revisionHistoryLimit": "grace"}
    assert place.get("Deployment")["spec"] == before


# --- the switch


def test_requests_go_to_a_side_alone_when_it_is_done(
    place: FakeNamespace, a: Release, b: Release
) -> None:
    """And nodes have had the time to hear of it."""
    changes = place.writer(autoscale={"at_most": 4})
    changes.roll_out("main", a, 2)
    changes.roll_out("twin", b, 2)
    for name, release, code in (("main", a, "a"), ("twin", b, "b")):
        began = place.cluster.seconds()
        changes.switch_traffic(name, release)  # type: ignore[arg-type]
        assert place.answers() == {code}
        assert place.cluster.seconds() - began >= 2
        assert place.get("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"][
            "name"
        ] == place.rendering().deployment_name(name)  # type: ignore[arg-type]


def test_a_switch_is_not_done_while_others_get_requests(
    place: FakeNamespace, a: Release, b: Release
) -> None:
    """Nor while a replica gets none."""
    changes = place.writer()
    changes.roll_out("main", a, 2)
    changes.roll_out("twin", b, 1)
    changes.supporting_objects.point_service(TrafficSplit("main", both=True))
    place.cluster.step()
    assert not changes.is_routed("main", a)
    changes.supporting_objects.point_service(TrafficSplit("main"))
    place.cluster.step()
    assert changes.is_routed("main", a)
    assert not changes.is_routed("main", b)


def test_a_service_that_does_not_find_its_replicas_is_told(
    place: FakeNamespace, a: Release
) -> None:
    """Before those that answer still are taken away."""
    changes = place.writer()
    changes.roll_out("main", a, 2)
    place.cluster.stop_controllers(Services)
    what = "the Service did not select all replicas of the release, and only those, within 30 s"
    with pytest.raises(RolloutFailed, match=what) as caught:
        changes.switch_traffic("main", a)
    assert caught.value.on == f"Service {NAME}"


# --- going


def test_a_side_that_is_emptied_keeps_its_revisions(
    place: FakeNamespace, a: Release, b: Release
) -> None:
    """It is what it was, without replicas: nothing that came in between makes a revision of it."""
    changes = place.writer()
    changes.roll_out("main", a, 2)
    changes.roll_out("main", b, 2)
    sets = _sets(place)
    template = deepcopy(place.get("Deployment")["spec"]["template"])
    place.writer(resources={"memory": "1Gi"}).remove_replicas(place.deployment())
    assert place.pods() == set()
    assert place.get("Deployment")["spec"]["replicas"] == 0
    assert place.get("Deployment")["spec"]["template"] == template
    assert _sets(place) == sets
    assert len(sets) == 2


def test_a_side_whose_number_others_own_is_removed(place: FakeNamespace, a: Release) -> None:
    """There is no other way to have it go."""
    changes = place.writer()
    changes.roll_out("main", a, 2)
    place.scale(3)
    changes.remove_replicas(place.deployment())
    assert place.get("Deployment") == {}
    assert place.pods() == set()


def test_a_side_that_is_not_known_to_be_ours_is_emptied_too(
    place: FakeNamespace, a: Release
) -> None:
    """Somebody cleared the account of who owns what."""
    changes = place.writer()
    changes.roll_out("main", a, 2)
    place.cluster.forget_field_owners()
    del place.get("Deployment")["metadata"]["managedFields"]
    changes.remove_replicas(place.deployment())
    assert place.pods() == set()


def _sets(place: FakeNamespace) -> set[str]:
    return {item["metadata"]["name"] for item in place.cluster.objects.find_all("ReplicaSet")}
