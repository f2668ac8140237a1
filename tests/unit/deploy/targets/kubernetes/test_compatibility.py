"""What clusters of a version know: other fields are left out or replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.kubernetes.protocol import Object
from deploy.targets.kubernetes.compatibility import Version, fit, parse_version
from tests.fakes.namespaces import NAME, FakeNamespace
from tests.fakes.releases import release
from tests.fakes.renderings import (
    ALL_SETTINGS,
    all_objects,
    app_container,
    edit_templates,
    pod_spec,
    rendering,
)

A = release("a")
OLD = "v1.20.2"
NEW = "v1.33.1"


def fitted_deployment(version: Version, **settings: Any) -> Object:
    """Return a Deployment for clusters of that version."""
    return fit(rendering(**settings).deployment(A, "main", 2, None, 600), version)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.33.1", (1, 33)),
        ("v1.20.2+k3s1", (1, 20)),
        ("v1.29.7-eks-a18cd3a", (1, 29)),
        ("1.31", (1, 31)),
        ("", (0, 0)),
        ("unknown", (0, 0)),
    ],
)
def test_the_version_of_a_server_is_parsed(text: str, version: Version) -> None:
    """One that cannot be read counts as the oldest, which is given nothing that it may lack."""
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("version", "policy"), [((1, 26), None), ((1, 27), "AlwaysAllow"), ((2, 0), "AlwaysAllow")]
)
def test_the_eviction_of_unready_replicas_is_allowed_where_the_server_knows_that(
    version: Version, policy: str | None
) -> None:
    """Older servers refuse the field."""
    spec = fit(rendering().disruption_budget(), version)["spec"]
    assert spec.get("unhealthyPodEvictionPolicy") == policy
    assert spec["maxUnavailable"] == 1


@pytest.mark.parametrize(("version", "keys"), [((1, 26), None), ((1, 27), ["pod-template-hash"])])
def test_spreading_counts_one_release_where_the_server_knows_that(
    version: Version, keys: list[str] | None
) -> None:
    """Older servers spread all replicas of the track."""
    item = fitted_deployment(version, topology_keys=["topology.kubernetes.io/zone"])
    spreads = pod_spec(item)["topologySpreadConstraints"]
    assert [spread.get("matchLabelKeys") for spread in spreads] == [keys, keys]
    assert all(spread["labelSelector"]["matchLabels"] for spread in spreads)


@pytest.mark.parametrize(
    ("version", "hook"),
    [((1, 32), {"exec": {"command": ["sleep", "5"]}}), ((1, 33), {"sleep": {"seconds": 5}})],
)
def test_the_node_sleeps_where_every_node_knows_that(version: Version, hook: Object) -> None:
    """A node may be three versions older than the server; else a program of the image sleeps."""
    item = fitted_deployment(version)
    assert app_container(item)["lifecycle"]["preStop"] == hook
    assert pod_spec(item)["terminationGracePeriodSeconds"] == 35


def test_hooks_of_other_containers_are_fitted_too(tmp_path: Any) -> None:
    """A user's own template may have some."""
    sidecar = {"name": "sidecar", "lifecycle": {"preStop": {"sleep": {"seconds": 9}}}}
    folder = edit_templates(
        tmp_path, "deployment.yaml", spec__template__spec__initContainers=[sidecar]
    )
    item = fit(rendering(folder).deployment(A, "main", 2, None, 600), (1, 29))
    (found,) = pod_spec(item)["initContainers"]
    assert found["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "9"]}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("initContainers", None),
        ("initContainers", [{"name": "first", "lifecycle": None}]),
        ("containers__0__lifecycle", {"preStop": None, "postStart": None}),
        ("containers__0__lifecycle", {"postStart": {"sleep": None}}),
    ],
)
def test_a_key_without_a_value_in_a_template_is_fitted(
    tmp_path: Path, path: str, value: Any
) -> None:
    """An emptied block of YAML counts as absent, also for an old cluster."""
    folder = edit_templates(tmp_path, "deployment.yaml", **{f"spec__template__spec__{path}": value})
    item = rendering(folder).deployment(A, "main", 2, None, 600)
    assert "null" not in json.dumps(fit(item, (1, 29)))


def test_a_sleep_without_seconds_ends_at_once(tmp_path: Path) -> None:
    """The program in the image needs a number of them."""
    path = "spec__template__spec__containers__0__lifecycle__postStart__sleep"
    folder = edit_templates(tmp_path, "deployment.yaml", **{path: {}})
    item = fit(rendering(folder).deployment(A, "main", 2, None, 600), (1, 29))
    hook = app_container(item)["lifecycle"]["postStart"]
    assert hook == {"exec": {"command": ["sleep", "0"]}}


def test_an_object_is_not_changed_itself() -> None:
    """A current cluster gets it as it is."""
    for item in all_objects(rendering(**ALL_SETTINGS), A):
        before = str(item)
        fit(item, (1, 20))
        assert str(item) == before
        assert fit(item, (1, 33)) == item


# --- in a release


@pytest.mark.parametrize(
    ("version", "policy", "hook"), [(OLD, None, "exec"), (NEW, "AlwaysAllow", "sleep")]
)
def test_a_release_applies_what_the_cluster_knows(
    version: str, policy: str | None, hook: str
) -> None:
    """The objects that are shown are the applied ones."""
    namespace = FakeNamespace()
    namespace.cluster.server_version = version
    namespace.apply(a := namespace.release("a"))
    budget = namespace.get("PodDisruptionBudget")["spec"]
    assert budget.get("unhealthyPodEvictionPolicy") == policy
    container = app_container(namespace.get("Deployment"))
    assert list(container["lifecycle"]["preStop"]) == [hook]
    shown = {item["kind"]: item for item in namespace.deployer().rendered(a, None)}
    assert shown["PodDisruptionBudget"]["spec"] == budget
    assert app_container(shown["Deployment"]) == container


def test_an_upgrade_of_the_cluster_is_no_reason_for_a_rollout() -> None:
    """The next release brings the new fields."""
    namespace = FakeNamespace()
    namespace.cluster.server_version = OLD
    namespace.apply(a := namespace.release("a"))
    namespace.cluster.server_version = NEW
    assert namespace.deployer().serves(a)
    namespace.apply(b := namespace.release("b"))
    assert namespace.deployer().serves(b)
    assert "sleep" in app_container(namespace.get("Deployment", NAME))["lifecycle"]["preStop"]
