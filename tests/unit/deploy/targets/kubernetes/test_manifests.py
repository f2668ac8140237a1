"""The object templates and the rendered objects: valid, and allowed in a restricted namespace."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.clients.kubernetes.protocol import KINDS, Object
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.compatibility import fit, parse_version
from tests.contracts.restricted import violations
from tests.contracts.schemas import VERSIONS, problems
from tests.fakes.releases import attempt, release
from tests.fakes.renderings import ALL_SETTINGS, all_objects, app_container, pod_spec, rendering

A = release("a")
TEXTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted(templates.DEFAULT_FOLDER.glob("*.yaml"))
}
SETTINGS: list[dict[str, Any]] = [
    {},
    ALL_SETTINGS,
    {"service": "NodePort"},
    {"host": "a.example"},
    {"autoscale": {"at_most": 2}},
    {"resources": {"cpu_limit": ""}},
]


def read_all() -> list[Object]:
    """Return the objects of the suite's templates, every document of every file."""
    return [item for text in TEXTS.values() for item in yaml.safe_load_all(text)]


def render_all(keys: dict[str, Any]) -> list[Object]:
    """Return all objects of an environment with those keys."""
    return all_objects(rendering(**keys), A, attempt(1, A))


def rules() -> list[Object]:
    """Return the rules of the deployer's Role."""
    found: list[Object] = next(
        item for item in yaml.safe_load_all(TEXTS["rbac.yaml"]) if item["kind"] == "Role"
    )["rules"]
    return found


@pytest.mark.parametrize("item", read_all(), ids=lambda item: str(item["kind"]))
def test_every_template_is_valid(item: Object) -> None:
    """`kubectl apply` accepts it, and the API server drops none of its keys."""
    assert problems(item) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_rendering_is_valid(version: str) -> None:
    """That holds for all settings, on all clusters."""
    rendered = {
        json.dumps(item, sort_keys=True): fit(item, parse_version(version))
        for keys in SETTINGS
        for item in render_all(keys)
    }
    assert [found for item in rendered.values() for found in problems(item, version)] == []


@pytest.mark.parametrize(
    ("version", "kind", "field"),
    [
        ("1.25", "PodDisruptionBudget", "unhealthyPodEvictionPolicy"),
        ("1.28", "Deployment", "sleep"),
    ],
)
def test_a_field_that_a_version_lacks_is_detected(version: str, kind: str, field: str) -> None:
    """An object is valid on old clusters only because such fields are left out."""
    found = [problems(item, version) for item in render_all({}) if item["kind"] == kind]
    assert all(field in problem for (problem,) in found)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (
            "spec__template__spec__containers__0__livenesProbe",
            {},
            "'livenesProbe' was unexpected",
        ),
        (
            "spec__template__spec__containers__0__ports__0__containerPort",
            "80",
            "containerPort: '80' is not of type 'integer'",
        ),
        (
            "spec__template__spec__automountServiceAccountToken",
            "no",
            "automountServiceAccountToken: 'no' is not of type 'boolean'",
        ),
        ("spec__selector", [], "spec.selector: [] is not of type 'object'"),
        ("spec__template__spec__containers__0", {"image": "x"}, "'name' is a required property"),
        ("spec__min_ready_seconds", 3, "'min_ready_seconds' was unexpected"),
        ("apiVersion", "apps/v9", "kind Deployment with api version apps/v9"),
    ],
)
def test_an_invalid_template_is_detected(path: str, value: Any, problem: str) -> None:
    """The check finds unknown keys, wrong types and missing keys."""
    item = yaml.safe_load(TEXTS["deployment.yaml"])
    parent: Any = item
    *above, key = path.split("__")
    for name in above:
        parent = parent[int(name)] if isinstance(parent, list) else parent[name]
    parent[int(key) if isinstance(parent, list) else key] = value
    assert [found for found in problems(item) if problem in found] != []


def test_templates_and_renderings_have_the_versions_of_the_client() -> None:
    """The client reads and writes each kind in one version."""
    for item in [*render_all(ALL_SETTINGS), *read_all()]:
        if item["kind"] not in ("Role", "RoleBinding"):
            assert item["apiVersion"] == KINDS[item["kind"]].api_version


@pytest.mark.parametrize(
    "item",
    [
        item
        for item in [*read_all(), *render_all(ALL_SETTINGS)]
        if item["kind"] in ("Deployment", "DaemonSet")
    ],
)
def test_pods_are_allowed_in_a_restricted_namespace(item: Object) -> None:
    """Templates and rendered objects meet the strictest of the Pod Security Standards."""
    assert violations(pod_spec(item)) == []


@pytest.mark.parametrize(
    ("path", "value", "breach"),
    [
        ("hostNetwork", True, "hostNetwork"),
        ("hostPID", True, "hostPID"),
        ("securityContext__runAsNonRoot", False, "app: runAsNonRoot"),
        ("securityContext__runAsUser", 0, "app: runAsUser"),
        ("securityContext__seccompProfile__type", "Unconfined", "app: seccompProfile"),
        (
            "containers__0__securityContext__allowPrivilegeEscalation",
            True,
            "app: allowPrivilegeEscalation",
        ),
        ("containers__0__securityContext__privileged", True, "app: privileged"),
        ("containers__0__securityContext__capabilities__drop", ["NET_RAW"], "app: capabilities"),
        ("containers__0__securityContext__capabilities__add", ["SYS_ADMIN"], "app: capabilities"),
        ("containers__0__securityContext__runAsUser", 0, "app: runAsUser"),
        ("containers__0__ports__0__hostPort", 80, "app: hostPort"),
        ("volumes__0", {"name": "tmp", "hostPath": {"path": "/"}}, "volume tmp"),
    ],
)
def test_a_pod_above_the_restricted_level_is_detected(path: str, value: Any, breach: str) -> None:
    """The check finds the violation of each control."""
    pod = deepcopy(pod_spec(yaml.safe_load(TEXTS["deployment.yaml"])))
    parent: Any = pod
    *above, key = path.split("__")
    for name in above:
        parent = parent[int(name)] if isinstance(parent, list) else parent[name]
    parent[int(key) if isinstance(parent, list) else key] = value
    assert violations(pod) == [breach]


@pytest.mark.parametrize(
    "item",
    [item for item in render_all(ALL_SETTINGS) if item["kind"] in ("Deployment", "DaemonSet")],
)
def test_pods_are_confined_beyond_the_standard(item: Object) -> None:
    """The file system is read-only, there is no token, and resources are requested and limited."""
    pod = pod_spec(item)
    container = app_container(item)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["imagePullPolicy"] == "IfNotPresent"
    for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
        assert amounts.keys() >= {"cpu", "memory"}


@pytest.mark.parametrize(
    "item",
    [item for item in render_all(ALL_SETTINGS) if item["kind"] in ("Deployment", "DaemonSet")],
)
def test_pods_run_on_linux_nodes(item: Object) -> None:
    """A cluster may have nodes with other operating systems."""
    assert pod_spec(item)["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_replicas_can_write_only_to_tmp() -> None:
    """It is removed with the pod and cannot fill the node."""
    item = yaml.safe_load(TEXTS["deployment.yaml"])
    assert app_container(item)["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert pod_spec(item)["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}]


def test_a_rollout_removes_no_replica_before_a_new_one_is_ready() -> None:
    """A stopping replica still answers while nodes learn of it."""
    item = yaml.safe_load(TEXTS["deployment.yaml"])
    assert item["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert item["spec"]["revisionHistoryLimit"] == 10
    pause = app_container(item)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < pause < pod_spec(item)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "examples/digits/Dockerfile"])
def test_images_name_their_user_by_number(dockerfile: str) -> None:
    """The kubelet cannot check whether a name is root, and refuses to start it."""
    text = (Path(__file__).parents[5] / dockerfile).read_text(encoding="utf-8")
    user = [line.split()[1] for line in text.splitlines() if line.startswith("USER ")][-1]
    assert int(user.partition(":")[0]) > 0


def test_a_deployer_has_no_broad_permissions() -> None:
    """There is no wildcard, no other namespace, and no way to gain more permissions."""
    assert {item["kind"] for item in yaml.safe_load_all(TEXTS["rbac.yaml"])} == {
        "ServiceAccount",
        "Role",
        "RoleBinding",
    }
    for rule in rules():
        assert rule.keys() == {"apiGroups", "resources", "verbs"}
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    named = {resource for rule in rules() for resource in rule["resources"]}
    assert not named & {
        "roles",
        "rolebindings",
        "serviceaccounts/token",
        "pods/exec",
        "pods/attach",
        "namespaces",
        "nodes",
    }
    assert not {verb for rule in rules() for verb in rule["verbs"]} & {
        "impersonate",
        "escalate",
        "bind",
        "deletecollection",
    }


def test_a_deployer_may_not_list_secrets() -> None:
    """It reads those whose names it knows, and changes none."""
    assert [rule["verbs"] for rule in rules() if "secrets" in rule["resources"]] == [
        ["get", "create", "delete"]
    ]


def test_a_deployer_may_access_only_the_kinds_of_a_release() -> None:
    """Every rule is about a kind of the client, and each resource is named once."""
    spoken = {(kind.group, kind.plural) for kind in KINDS.values()}
    named = [
        (group, resource)
        for rule in rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]
    assert {(group, resource.partition("/")[0]) for group, resource in named} <= spoken
    assert len(named) == len(set(named))


def test_a_deployer_may_apply_all_rendered_objects() -> None:
    """Server-side apply needs `create` and `patch`."""
    allowed = {
        (group, resource): rule["verbs"]
        for rule in rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    for item in render_all(ALL_SETTINGS):
        kind = KINDS[item["kind"]]
        assert {"create", "patch"} <= set(allowed[kind.group, kind.plural])


def test_the_reason_of_each_rule_is_written_above_it() -> None:
    """An administrator wants to know why a permission is needed."""
    lines = TEXTS["rbac.yaml"].splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  - apiGroups:")]
    assert len(starts) == len(rules())
    assert all(lines[number - 1].startswith("  # ") for number in starts)


def test_the_deployers_account_is_bound_to_its_role() -> None:
    """That holds in each namespace to which the file is applied."""
    account, role, binding = yaml.safe_load_all(TEXTS["rbac.yaml"])
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["metadata"]["name"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert all("namespace" not in item["metadata"] for item in (account, role, binding))
