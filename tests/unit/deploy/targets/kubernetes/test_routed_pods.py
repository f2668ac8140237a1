"""The pods to which a Service sends requests, in EndpointSlices or in Endpoints."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.errors import ClusterForbidden
from deploy.records import Release
from deploy.targets.kubernetes.routed_pods import SERVICE_LABEL, RoutedPods
from tests.fakes.namespaces import NAME, FakeNamespace

SLICES = ("list", "EndpointSlice")
ENDPOINTS = ("get", "Endpoints")


@pytest.fixture
def namespace() -> FakeNamespace:
    """Return an empty environment."""
    return FakeNamespace()


@pytest.fixture
def routed(namespace: FakeNamespace) -> RoutedPods:
    """Return a reader of its Service."""
    return RoutedPods(namespace.cluster, NAME)


def create_slice(namespace: FakeNamespace, name: str, *endpoints: Any) -> None:
    """Create an EndpointSlice of the Service."""
    namespace.cluster.create(
        {
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {SERVICE_LABEL: NAME}},
            "endpoints": list(endpoints),
        }
    )


def kinds_read(namespace: FakeNamespace) -> set[str]:
    """Return which of the two kinds were requested."""
    return {kind for _, kind, _ in namespace.cluster.requests} & {"EndpointSlice", "Endpoints"}


@pytest.mark.parametrize("writes_endpoints", [True, False])
def test_a_release_needs_no_endpoints(
    namespace: FakeNamespace, a: Release, *, writes_endpoints: bool
) -> None:
    """Clusters may stop writing them."""
    namespace.cluster.world.writes_endpoints = writes_endpoints
    namespace.apply(a)
    assert namespace.deployer().serves(a)
    assert kinds_read(namespace) == {"EndpointSlice"}


def test_the_ready_endpoints_of_all_slices_count(
    namespace: FakeNamespace, routed: RoutedPods
) -> None:
    """A Service has several of them; an unknown readiness counts as ready."""
    assert routed.names() == set()
    create_slice(
        namespace,
        "one",
        {"conditions": {"ready": True}, "targetRef": {"name": "ready"}},
        {"conditions": {"ready": False}, "targetRef": {"name": "unready"}},
    )
    create_slice(
        namespace,
        "two",
        {"conditions": {"ready": None}, "targetRef": {"name": "unknown"}},
        {"targetRef": {"name": "unsaid"}},
        {"conditions": {"ready": True}},
    )
    namespace.cluster.create(
        {"kind": "EndpointSlice", "metadata": {"name": "three"}, "endpoints": None}
    )
    assert routed.names() == {"ready", "unknown", "unsaid", ""}


def test_a_slice_may_be_without_endpoints(namespace: FakeNamespace, routed: RoutedPods) -> None:
    """The API server then has null in their place."""
    create_slice(namespace, "one")
    namespace.get("EndpointSlice", "one")["endpoints"] = None
    assert routed.names() == set()


@pytest.mark.parametrize(
    "subsets", [None, [{"addresses": None}], [{"addresses": [{"ip": "10.0.0.1"}]}]]
)
def test_addresses_without_a_pod_have_no_name(
    namespace: FakeNamespace, routed: RoutedPods, subsets: Any
) -> None:
    """Endpoints may have been written by hand."""
    namespace.cluster.unserved.add("EndpointSlice")
    namespace.cluster.create({"kind": "Endpoints", "metadata": {"name": NAME}, "subsets": subsets})
    assert routed.names() <= {""}


def test_a_cluster_without_slices_is_read_by_its_endpoints(
    namespace: FakeNamespace, a: Release, caplog: pytest.LogCaptureFixture
) -> None:
    """It is too old for them, which is no reason for a warning."""
    namespace.cluster.unserved.add("EndpointSlice")
    namespace.apply(a)
    assert namespace.deployer().serves(a)
    assert kinds_read(namespace) == {"Endpoints"}
    assert [line for line in caplog.messages if "Endpoints" in line] == []


def test_an_account_without_the_right_to_slices_reads_endpoints(
    namespace: FakeNamespace,
    routed: RoutedPods,
    a: Release,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its role was written for an older version; the rule to add is named once."""
    namespace.apply(a)
    namespace.cluster.forbidden.add(SLICES)
    namespace.cluster.requests.clear()
    with caplog.at_level(logging.WARNING):
        assert routed.names() == routed.names() == namespace.pods()
    (line,) = caplog.messages
    assert "may not list EndpointSlice" in line
    assert "deploy/manifests/rbac.yaml has the rule to add" in line
    assert [kind for verb, kind, _ in namespace.cluster.requests if verb == "list"] == [
        "EndpointSlice"
    ]


def test_an_account_with_neither_right_is_told_to_add_that_to_slices(
    namespace: FakeNamespace, routed: RoutedPods
) -> None:
    """Endpoints are deprecated."""
    namespace.cluster.forbidden |= {SLICES, ENDPOINTS}
    with pytest.raises(ClusterForbidden, match="may not list EndpointSlice"):
        routed.names()


def test_a_release_without_either_right_is_undone(
    namespace: FakeNamespace, a: Release, b: Release
) -> None:
    """The error is not hidden by a later one, and the old release serves."""
    namespace.apply(a)
    namespace.cluster.forbidden |= {SLICES, ENDPOINTS}
    with pytest.raises(Exception, match="may not list EndpointSlice"):
        namespace.apply(b)
    assert namespace.answers() == {"a"}
