"""The manifests as they stand, and all that is rendered of them: valid in current Kubernetes, and fit for a restricted namespace."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.clients.kubernetes.protocol import KINDS, Object
from deploy.targets.kubernetes import templates
from tests.contracts.restricted import violations
from tests.contracts.schemas import problems
from tests.fakes.releases import attempt, release
from tests.fakes.renderings import ALL_SETTINGS, all_objects, app_container, pod_spec, rendering

A = release("a")
TEXTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted(templates.DEFAULT_FOLDER.glob("*.yaml"))
}
STRATEGIES: list[dict[str, Any]] = [
    {},
    ALL_SETTINGS,
    {"service": "NodePort"},
    {"host": "a.example"},
    {"autoscale": {"at_most": 2}},
]


def as_they_are() -> list[Object]:
    """The objects of the suite's folder, every document of every file."""
    return [item for text in TEXTS.values() for item in yaml.safe_load_all(text)]


def rendered(keys: dict[str, Any]) -> list[Object]:
    """All that an environment with those keys can consist of."""
    return all_objects(rendering(**keys), A, attempt(1, A))


def rules() -> list[Object]:
    """The rules of the deployer's Role."""
    found: list[Object] = next(
        item for item in yaml.safe_load_all(TEXTS["rbac.yaml"]) if item["kind"] == "Role"
    )["rules"]
    return found


@pytest.mark.parametrize("item", as_they_are(), ids=lambda item: str(item["kind"]))
def test_every_manifest_is_valid_as_it_is(item: Object) -> None:
    """`kubectl apply` takes it, and no key in it is one that the API server would drop."""
    assert problems(item) == []


@pytest.mark.parametrize("keys", STRATEGIES, ids=lambda keys: ",".join(keys) or "plain")
def test_every_rendering_is_valid(keys: dict[str, Any]) -> None:
    """Whatever the settings ask for."""
    assert {item["kind"]: found for item in rendered(keys) if (found := problems(item))} == {}


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("spec__template__spec__containers__0__livenesProbe", {}, "livenesProbe: Extra inputs"),
        (
            "spec__template__spec__containers__0__ports__0__containerPort",
            "80",
            "containerPort: Input should be a valid integer",
        ),
        (
            "spec__template__spec__automountServiceAccountToken",
            "no",
            "automountServiceAccountToken: Input should be a valid boolean",
        ),
        ("spec__selector", None, "spec.selector: Input should be"),
        ("spec__template__spec__containers__0", {"image": "x"}, "name: Field required"),
        ("spec__min_ready_seconds", 3, "key with its Python name"),
        ("apiVersion", "apps/v9", "Deployment is not in apps/v9"),
    ],
)
def test_a_wrong_manifest_is_not_valid(place: str, value: Any, problem: str) -> None:
    """The check of the schema sees unknown keys, wrong types and what is missing."""
    item = yaml.safe_load(TEXTS["deployment.yaml"])
    holder: Any = item
    *above, key = place.split("__")
    for name in above:
        holder = holder[int(name)] if isinstance(holder, list) else holder[name]
    holder[int(key) if isinstance(holder, list) else key] = value
    assert [found for found in problems(item) if problem in found] != []


def test_manifests_and_renderings_are_of_the_kinds_that_are_spoken() -> None:
    """In the same versions that the client reads and writes them."""
    for item in [*rendered(ALL_SETTINGS), *as_they_are()]:
        if item["kind"] not in ("Role", "RoleBinding"):
            assert item["apiVersion"] == KINDS[item["kind"]].api_version


@pytest.mark.parametrize(
    "item",
    [
        item
        for item in [*as_they_are(), *rendered(ALL_SETTINGS)]
        if item["kind"] in ("Deployment", "DaemonSet")
    ],
)
def test_pods_fit_a_restricted_namespace(item: Object) -> None:
    """As the manifests are, and as they are rendered: the strictest of the Pod Security Standards."""
    assert violations(pod_spec(item)) == []


@pytest.mark.parametrize(
    ("place", "value", "breach"),
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
def test_a_pod_that_may_more_than_restricted_is_seen(place: str, value: Any, breach: str) -> None:
    """The check of the standard finds each of its controls broken."""
    pod = deepcopy(pod_spec(yaml.safe_load(TEXTS["deployment.yaml"])))
    holder: Any = pod
    *above, key = place.split("__")
    for name in above:
        holder = holder[int(name)] if isinstance(holder, list) else holder[name]
    holder[int(key) if isinstance(holder, list) else key] = value
    assert violations(pod) == [breach]


@pytest.mark.parametrize(
    "item", [item for item in rendered(ALL_SETTINGS) if item["kind"] in ("Deployment", "DaemonSet")]
)
def test_pods_are_confined_beyond_the_standard(item: Object) -> None:
    """Nothing of the image can be written, no token lies in it, and what it takes is asked for and limited."""
    pod = pod_spec(item)
    container = app_container(item)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["imagePullPolicy"] == "IfNotPresent"
    for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
        assert amounts.keys() == {"cpu", "memory"}


@pytest.mark.parametrize(
    "item", [item for item in rendered(ALL_SETTINGS) if item["kind"] in ("Deployment", "DaemonSet")]
)
def test_pods_run_on_nodes_for_which_images_are_made(item: Object) -> None:
    """A cluster may have others: of the same processors, but not of Linux."""
    assert pod_spec(item)["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_replicas_can_write_to_tmp_alone() -> None:
    """Programs need some place; it goes with the pod, and cannot fill the node."""
    item = yaml.safe_load(TEXTS["deployment.yaml"])
    assert app_container(item)["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert pod_spec(item)["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}]


def test_a_rollout_takes_no_replica_before_another_is_ready() -> None:
    """And one that goes still answers while nodes learn of it."""
    item = yaml.safe_load(TEXTS["deployment.yaml"])
    assert item["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert item["spec"]["revisionHistoryLimit"] == 10
    pause = int(app_container(item)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert 0 < pause < pod_spec(item)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "examples/digits/Dockerfile"])
def test_images_name_their_user_by_number(dockerfile: str) -> None:
    """The kubelet cannot tell whether a name is root, and refuses to start it."""
    text = (Path(__file__).parents[5] / dockerfile).read_text(encoding="utf-8")
    user = [line.split()[1] for line in text.splitlines() if line.startswith("USER ")][-1]
    assert int(user.partition(":")[0]) > 0


def test_a_deployer_is_given_nothing_wholesale() -> None:
    """No wildcard, nothing outside of one namespace, no secret, and no way to give itself more."""
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
        "secrets",
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


def test_a_deployer_may_touch_only_what_a_release_consists_of() -> None:
    """Every rule is about a kind that the suite speaks of, in its group, and names each resource once."""
    spoken = {(kind.group, kind.plural) for kind in KINDS.values()}
    named = [
        (group, resource)
        for rule in rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    ]
    assert {(group, resource.partition("/")[0]) for group, resource in named} <= spoken
    assert len(named) == len(set(named))


def test_a_deployer_may_apply_whatever_is_rendered() -> None:
    """Server-side apply asks for `create` and `patch`."""
    allowed = {
        (group, resource): rule["verbs"]
        for rule in rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    for item in rendered(ALL_SETTINGS):
        kind = KINDS[item["kind"]]
        assert {"create", "patch"} <= set(allowed[kind.group, kind.plural])


def test_the_reason_of_each_rule_is_written_above_it() -> None:
    """Whoever hands out rights wants to know what for."""
    lines = TEXTS["rbac.yaml"].splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  - apiGroups:")]
    assert len(starts) == len(rules())
    assert all(lines[number - 1].startswith("  # ") for number in starts)


def test_the_deployers_account_is_bound_to_its_role() -> None:
    """In whatever namespace the file is applied to."""
    account, role, binding = yaml.safe_load_all(TEXTS["rbac.yaml"])
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["metadata"]["name"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert all("namespace" not in item["metadata"] for item in (account, role, binding))
