"""The fields of an object that we own, according to the API server."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from deploy.targets.kubernetes.ownership import applied_fields, owners
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.namespaces import FakeNamespace
from tests.fakes.releases import attempt, release
from tests.fakes.renderings import ALL_SETTINGS

OURS: dict[str, Any] = {
    "manager": "twinship",
    "operation": "Apply",
    "apiVersion": "apps/v1",
    "fieldsV1": {
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"app"}': {
                            ".": {},
                            "f:name": {},
                            "f:command": {},
                            "f:ports": {
                                'k:{"containerPort":8080,"protocol":"TCP"}': {
                                    ".": {},
                                    "f:containerPort": {},
                                    "f:name": {},
                                }
                            },
                        }
                    },
                    "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
                }
            },
        },
    },
}
ITEM: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "shop",
        "namespace": "models",
        "uid": "1",
        "resourceVersion": "7",
        "labels": {"app": "shop", "team": "vision"},
        "managedFields": [
            {
                "manager": "kubectl",
                "operation": "Update",
                "fieldsV1": {"f:spec": {"f:replicas": {}}},
            },
            {
                "manager": "twinship",
                "operation": "Update",
                "fieldsV1": {"f:spec": {"f:paused": {}}},
            },
            {
                "manager": "twinship",
                "operation": "Apply",
                "subresource": "status",
                "fieldsV1": {"f:status": {}},
            },
            OURS,
        ],
    },
    "spec": {
        "replicas": 2,
        "paused": False,
        "revisionHistoryLimit": 10,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": {
            "spec": {
                "containers": [
                    {"name": "sidecar", "image": "x"},
                    {
                        "name": "app",
                        "image": "y",
                        "command": ["sleep", "1"],
                        "ports": [
                            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                            {"containerPort": 9, "protocol": "TCP"},
                        ],
                    },
                ],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}}],
            }
        },
    },
    "status": {"replicas": 2},
}


def test_the_applied_fields_of_an_object_are_found() -> None:
    """They are fields, list items by their keys, and whole values; others' fields are left out."""
    assert applied_fields(ITEM) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": "models", "labels": {"app": "shop"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "app",
                            "command": ["sleep", "1"],
                            "ports": [{"containerPort": 8080, "protocol": "TCP", "name": "http"}],
                        }
                    ],
                    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}}],
                }
            },
        },
    }


def test_values_of_a_set_are_found() -> None:
    """Finalizers are such a set."""
    item = deepcopy(ITEM)
    item["metadata"] |= {"finalizers": ["ours", "theirs"]}
    item["metadata"]["managedFields"] = [
        {**OURS, "fieldsV1": {"f:metadata": {"f:finalizers": {".": {}, 'v:"ours"': {}}}}}
    ]
    assert applied_fields(item)["metadata"]["finalizers"] == ["ours"]


@pytest.mark.parametrize("entries", [None, [], [{**OURS, "manager": "kubectl"}]])
def test_no_field_of_another_managers_object_is_ours(entries: Any) -> None:
    """Only the name is returned."""
    item = {**ITEM, "metadata": {"name": "shop", "managedFields": entries}}
    assert applied_fields(item) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
    }


def test_an_absent_field_is_skipped() -> None:
    """The list of owners may be older than the object for a moment."""
    item = {**deepcopy(ITEM), "spec": {"replicas": 2}}
    assert applied_fields(item)["spec"] == {"replicas": 2}


def test_a_field_may_have_several_owners() -> None:
    """Each is returned once."""
    assert owners(ITEM, "spec", "replicas") == ["kubectl", "twinship"]
    assert owners(ITEM, "spec", "paused") == ["twinship"]
    assert owners(ITEM, "spec", "nothing") == []


@pytest.mark.parametrize("strategy", ["rolling", "canary"])
def test_applied_fields_can_be_applied_again_without_a_change(strategy: str) -> None:
    """Every object of a release is found whole, without the defaults of the API server."""
    namespace = FakeNamespace(
        strategy=strategy,
        **{key: value for key, value in ALL_SETTINGS.items() if key != "resources"},
    )
    made = namespace.writer().desired.render("main", release("a"), attempt(1, release("a")))
    assert {item["kind"] for item in made} >= {
        "Deployment",
        "Service",
        "Ingress",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    cluster = FakeCluster()
    for item in made:
        live = cluster.apply(item)
        assert applied_fields(live) == {
            **item,
            "metadata": item["metadata"] | {"namespace": live["metadata"]["namespace"]},
        }
        assert cluster.apply(applied_fields(live)) == live
