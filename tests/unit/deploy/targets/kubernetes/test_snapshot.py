"""The snapshot of an environment when an attempt begins."""

from __future__ import annotations

import pytest

from deploy.records import Release
from deploy.targets.kubernetes.snapshot import Snapshot
from deploy.targets.kubernetes.state import TrafficSplit
from tests.fakes.namespaces import NAME, FakeNamespace


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an environment in which `a` serves."""
    namespace = FakeNamespace(host="shop.example")
    namespace.apply(namespace.release("a"))
    return namespace


def snapshot(namespace: FakeNamespace) -> Snapshot:
    """Return a snapshot of what serves now."""
    found = namespace.writer().take_snapshot(TrafficSplit("main"))
    assert found
    return found


def test_it_has_only_the_fields_that_we_applied(namespace: FakeNamespace) -> None:
    """It has each object that a release may change and that exists."""
    namespace.cluster.apply_as(
        {"kind": "Service", "metadata": {"name": NAME, "annotations": {"team": "vision"}}},
        "kubectl",
    )
    found = snapshot(namespace).objects
    assert set(found) == {"Deployment", "Service", "Ingress"}
    assert found["Ingress"]["spec"]["rules"][0]["host"] == "shop.example"
    assert "team" not in found["Service"]["metadata"]["annotations"]
    assert "clusterIP" not in found["Service"]["spec"]


def test_it_can_be_read_from_json(namespace: FakeNamespace) -> None:
    """Nothing is lost."""
    found = snapshot(namespace)
    assert Snapshot.from_json(found.to_json()) == found


def test_it_runs_one_release(namespace: FakeNamespace, b: Release) -> None:
    """That is the release in its pod template."""
    assert snapshot(namespace).is_running(namespace.release("a"))
    assert not snapshot(namespace).is_running(b)


def test_it_runs_no_release_if_our_fields_are_unknown(namespace: FakeNamespace) -> None:
    """Another manager has set the image or cleared the list of field owners."""
    a = namespace.release("a")
    container = {"name": "app", "image": "other.example/other:latest"}
    template = {"spec": {"template": {"spec": {"containers": [container]}}}}
    namespace.cluster.apply_as(
        {"kind": "Deployment", "metadata": {"name": NAME}, **template}, "kubectl-set"
    )
    assert not snapshot(namespace).is_running(a)
    del namespace.get("Deployment")["metadata"]["managedFields"]
    assert not snapshot(namespace).is_running(a)
