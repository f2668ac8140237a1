"""The way back to what served when an attempt began."""

from __future__ import annotations

import pytest

from deploy.records import Release
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.state import TrafficSplit
from tests.fakes.namespaces import NAME, FakeNamespace


@pytest.fixture
def place() -> FakeNamespace:
    """An environment in which `a` serves."""
    place = FakeNamespace(host="shop.example")
    place.apply(place.release("a"))
    return place


def before(place: FakeNamespace) -> Snapshot:
    """The way back to what serves now."""
    found = place.writer().take_snapshot(TrafficSplit("main"))
    assert found
    return found


def test_it_holds_what_we_applied_and_nothing_that_others_did(place: FakeNamespace) -> None:
    """Of all that a release may change; what is not there is not in it."""
    place.cluster.apply_as(
        {"kind": "Service", "metadata": {"name": NAME, "annotations": {"team": "vision"}}},
        "kubectl",
    )
    kept = before(place).objects
    assert set(kept) == {"Deployment", "Service", "Ingress"}
    assert kept["Ingress"]["spec"]["rules"][0]["host"] == "shop.example"
    assert "team" not in kept["Service"]["metadata"]["annotations"]
    assert "clusterIP" not in kept["Service"]["spec"]


def test_it_is_the_same_when_somebody_else_reads_it(place: FakeNamespace) -> None:
    """As JSON and back."""
    kept = before(place)
    assert Snapshot.from_json(kept.to_json()) == kept


def test_it_leads_to_one_release(place: FakeNamespace, b: Release) -> None:
    """To what its pods were made to run."""
    assert before(place).is_running(place.release("a"))
    assert not before(place).is_running(b)


def test_it_leads_nowhere_if_nobody_knows_what_we_applied(place: FakeNamespace) -> None:
    """Somebody else has chosen the image, or has cleared the account of who owns what."""
    a = place.release("a")
    container = {"name": "app", "image": "elsewhere.example/other:latest"}
    template = {"spec": {"template": {"spec": {"containers": [container]}}}}
    place.cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": NAME}, **template}, "kubectl-set"
    )
    assert not before(place).is_running(a)
    del place.get("Deployment")["metadata"]["managedFields"]
    assert not before(place).is_running(a)
