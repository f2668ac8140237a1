"""The Kubernetes client on a real cluster."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from deploy.clients.docker.client import DockerEngine
from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.clients.kubernetes.client import KubeCluster
from deploy.clients.kubernetes.protocol import ROOT_CA, Cluster, Object
from deploy.clients.kubernetes.retry import RetryPolicy
from deploy.errors import (
    ClusterForbidden,
    ClusterRefused,
    ClusterUnreachable,
    FieldConflict,
    NamespaceMissing,
)
from deploy.model import golden
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import Case
from tests.contracts.cluster import ClusterContract, Write, deployment, found, settings, until
from tests.fakes.kubeconfig import write_yaml
from tests.integration.conftest import lacking
from tests.integration.deploy.clients.conftest import Kubectl
from tests.integration.deploy.clients.oci.forwarder import Forwarder, forwarded
from tests.integration.deploy.responder import responder

pytestmark = pytest.mark.integration

ACCOUNT = "deployer"


class TestKubernetes(ClusterContract):
    """A real cluster keeps the contract."""

    @pytest.fixture
    def cluster(self, real: KubeCluster) -> Cluster:
        return real

    @pytest.fixture
    def other(self, kubectl: Kubectl, namespace: str) -> Write:
        """As kubectl does."""
        force = ("--server-side", "--force-conflicts", "--validate=false")

        def write(item: Object, manager: str) -> None:
            kubectl(
                "apply",
                *force,
                f"--field-manager={manager}",
                "-n",
                namespace,
                "-f",
                "-",
                stdin=json.dumps(item),
            )

        return write

    @pytest.fixture
    def unserved(self, real: KubeCluster) -> str:
        """A kind that is younger than the cluster."""
        for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
            if not real.serves(kind):
                return kind
        pytest.skip("this cluster serves every kind that releases use")


# --- refusals


def test_a_missing_namespace_is_told(access: ApiServerAccess) -> None:
    """By what writes there, and to whoever asks for it; to look for something there finds nothing."""
    cluster = KubeCluster(access, "test-absent")
    with pytest.raises(NamespaceMissing):
        cluster.require()
    assert cluster.find("ConfigMap", "one") is None
    assert cluster.list("ConfigMap", {}) == []
    cluster.delete("ConfigMap", "one")
    for write in (cluster.apply, cluster.create):
        with pytest.raises(NamespaceMissing):
            write(settings("one"))


def test_an_invalid_object_is_refused_field_by_field(real: KubeCluster) -> None:
    """With what the server says of each."""
    item = deployment("web", replicas=-1)
    item["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    with pytest.raises(ClusterRefused) as caught:
        real.apply(item)
    assert "422 Invalid" in caught.value.what
    assert "spec.replicas: " in caught.value.detail
    assert "spec.template.metadata.labels: " in caught.value.detail


def test_an_object_of_another_form_is_refused(access: ApiServerAccess, namespace: str) -> None:
    """One that cannot even be read; old servers fail over it as if they were ill."""
    with pytest.raises(ClusterRefused) as caught:
        KubeCluster(access, namespace, RetryPolicy(first_contact=2.0)).apply(
            settings("one") | {"data": "words"}
        )
    assert caught.value.detail


def test_an_exceeded_quota_is_no_missing_permission(
    real: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """Though the server forbids both with the same status."""
    kubectl("create", "quota", "small", "--hard=count/configmaps=0", "-n", namespace)
    refusals: list[ClusterRefused] = []

    def refused() -> bool:
        try:
            real.create(settings(f"one-{secrets.token_hex(4)}"))
        except ClusterRefused as error:
            refusals.append(error)
        return bool(refusals)

    until(refused, "the quota is known")
    assert "small" in refusals[0].detail


def test_whoever_edits_an_object_owns_what_they_changed(
    real: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """The owner's name is found also where the server adds a time to it."""
    real.apply(settings("one", key="value", rest="same"))
    patch = ("--type=merge", "--field-manager=editor", "-p", '{"data": {"key": "edited"}}')
    kubectl("patch", "configmap", "one", "-n", namespace, *patch)
    with pytest.raises(FieldConflict) as caught:
        real.apply(settings("one", key="value", rest="other"))
    assert dict(caught.value.owners) == {"data.key": "editor"}


# --- an account with few permissions


@pytest.fixture
def powerless(
    administrator: dict[str, Any], kubectl: Kubectl, namespace: str, tmp_path: Path
) -> KubeCluster:
    """A client with an account that no role names."""
    kubectl("create", "serviceaccount", ACCOUNT, "-n", namespace)
    return KubeCluster(
        ApiServerAccess(as_user(administrator, tmp_path, token=token(kubectl, namespace)), ""),
        namespace,
    )


def token(kubectl: Kubectl, namespace: str, account: str = ACCOUNT) -> str:
    """A token of an account."""
    return str(kubectl("create", "token", account, "-n", namespace)).strip()


def as_user(administrator: dict[str, Any], folder: Path, **user: Any) -> str:
    """The path of a kubeconfig for the same cluster, but somebody else."""
    content = copy.deepcopy(administrator)
    content["users"][0]["user"] = user
    return write_yaml(folder / f"kubeconfig-{secrets.token_hex(4)}", content)


def allow(kubectl: Kubectl, namespace: str, rules: list[Object]) -> None:
    """Gives the account a role with those rules."""
    name = secrets.token_hex(4)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name},
        "rules": rules,
    }
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(role))
    kubectl(
        "create",
        "rolebinding",
        name,
        f"--role={name}",
        f"--serviceaccount={namespace}:{ACCOUNT}",
        "-n",
        namespace,
    )


def test_an_account_is_told_the_rule_that_it_lacks(
    powerless: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """Added to a role as it was told, the rule is all that it takes."""
    assert not powerless.may("patch", "ConfigMap")
    with pytest.raises(ClusterForbidden) as caught:
        powerless.apply(settings("one"))
    assert (
        caught.value.what
        == f"this account may not create or patch configmaps in namespace {namespace}"
    )
    assert ACCOUNT in caught.value.detail
    allow(kubectl, namespace, yaml.safe_load(caught.value.detail))
    until(lambda: powerless.may("patch", "ConfigMap"), "the role is known")
    powerless.apply(settings("one"))
    assert not powerless.may("get", "ConfigMap")


def test_an_account_of_one_namespace_is_not_told_that_another_is_missing(
    powerless: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """To it they are all closed alike; its own is seen to be there with no more than a rule of deploy/manifests/rbac.yaml."""
    allow(kubectl, namespace, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])
    until(lambda: powerless.may("get", "ConfigMap"), "the role is known")
    powerless.require()
    for closed in ("default", "test-absent"):
        with pytest.raises(ClusterForbidden) as caught:
            KubeCluster(powerless._wire, closed).require()
        assert caught.value.what == f"this account may not get configmaps in namespace {closed}"


def test_a_namespace_is_seen_to_be_there_before_it_is_furnished(real: KubeCluster) -> None:
    """Its ConfigMap comes a moment after it, and comes again where somebody removes it; nothing is made in its place."""
    for _ in range(5):
        real.delete("ConfigMap", ROOT_CA)
        real.require()
    until(lambda: bool((real.find("ConfigMap", ROOT_CA) or {}).get("data")), "it is furnished")


def test_a_part_of_an_object_has_a_rule_of_its_own(
    powerless: KubeCluster, real: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """Who may read pods may not yet read their logs."""
    real.apply(a_pod("web", "registry.invalid/app:1"))
    allow(kubectl, namespace, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    until(lambda: powerless.may("get", "Pod"), "the role is known")
    with pytest.raises(ClusterForbidden) as caught:
        powerless.log("web", 5)
    (rule,) = yaml.safe_load(caught.value.detail)
    assert rule == {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}


# --- an API server that goes away and comes back


@pytest.fixture
def way(administrator: dict[str, Any]) -> Iterator[Forwarder]:
    """A way to the API server that can be closed."""
    parts = urlsplit(administrator["clusters"][0]["cluster"]["server"])
    assert parts.hostname
    with forwarded((parts.hostname, parts.port or 443)) as made:
        yield made


def through(
    way: Forwarder,
    administrator: dict[str, Any],
    namespace: str,
    folder: Path,
    patience: RetryPolicy,
) -> KubeCluster:
    """A client that goes that way."""
    content = copy.deepcopy(administrator)
    server = urlsplit(content["clusters"][0]["cluster"]["server"]).hostname
    content["clusters"][0]["cluster"] |= {"server": way.url, "tls-server-name": server}
    return KubeCluster(
        ApiServerAccess(write_yaml(folder / "through", content), ""), namespace, patience
    )


def test_an_api_server_that_is_started_again_is_waited_for(
    way: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """Every kind of call gets its answer in the end, and each write is carried out once."""
    cluster = through(way, administrator, namespace, tmp_path, RetryPolicy(wait=lambda _: way.up()))
    for ask, answer in (
        (lambda: bool(cluster.version()), True),
        (lambda: cluster.create(settings("one", key="value")), True),
        (lambda: cluster.apply(settings("two", key="value"))["data"], {"key": "value"}),
        (lambda: len(cluster.list("ConfigMap", {})) >= 2, True),
        (
            lambda: cluster.replace(found(cluster, "ConfigMap", "one") | {"data": {"key": "new"}}),
            True,
        ),
        (lambda: cluster.may("get", "Pod"), True),
        (lambda: cluster.delete("ConfigMap", "two"), None),
        (lambda: cluster.find("ConfigMap", "two"), None),
    ):
        way.down()
        assert ask() == answer
    assert found(cluster, "ConfigMap", "one")["data"] == {"key": "new"}


def test_a_write_whose_answer_was_lost_is_known_to_be_ours(
    way: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """The server refuses the second attempt: the first one was carried out."""
    waits: list[float] = []
    cluster = through(way, administrator, namespace, tmp_path, RetryPolicy(wait=waits.append))
    cluster.version()
    way.lose_an_answer()
    assert cluster.create(settings("one", key="value"))
    item = found(cluster, "ConfigMap", "one")
    item["data"] = {"key": "new"}
    way.lose_an_answer()
    assert cluster.replace(item)
    assert found(cluster, "ConfigMap", "one")["data"] == {"key": "new"}
    way.lose_an_answer()
    cluster.delete("ConfigMap", "one")
    assert cluster.find("ConfigMap", "one") is None
    assert len(waits) == 3


def test_somebody_elses_write_is_not_taken_for_ours(
    way: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path, real: KubeCluster
) -> None:
    """While the answer was waited for, another deployer came first."""

    def overtaken(_: float) -> None:
        real.create(settings("one", key="theirs"))
        way.up()

    cluster = through(way, administrator, namespace, tmp_path, RetryPolicy(wait=overtaken))
    cluster.version()
    way.down()
    assert not cluster.create(settings("one", key="ours"))
    assert found(real, "ConfigMap", "one")["data"] == {"key": "theirs"}


def test_an_api_server_that_stays_away_is_given_up(
    way: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """With its name, and why it cannot be reached."""
    cluster = through(way, administrator, namespace, tmp_path, RetryPolicy(outage=0.2))
    cluster.version()
    way.down()
    with pytest.raises(ClusterUnreachable) as caught:
        cluster.version()
    assert "Connection refused" in caught.value.what
    assert way.url in caught.value.on


# --- pods


def a_pod(name: str, image: str, *command: str) -> Object:
    """A pod that runs a command, with a folder that outlives its containers."""
    container = {
        "name": "app",
        "image": image,
        "command": list(command) or None,
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "kept", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec,
    }


@pytest.fixture
def shell(engine: DockerEngine, parts_image: str, registry_host: str) -> Iterator[str]:
    """An image with a shell, in a registry that the cluster can pull from."""
    name = f"{registry_host}/test-client"
    engine.tag(parts_image, f"{name}:shell")
    said = [
        json.loads(line)
        for line in engine._api.push(name, tag="shell", stream=True)
        for line in line.splitlines()
        if line
    ]
    assert not [line for line in said if "error" in line], said
    yield f"{name}:shell"
    engine._api.remove_image(f"{name}:shell")


@pytest.fixture
def nodes_answer(kubectl: Kubectl) -> None:
    """The API server reaches its nodes: logs come from there."""
    node = str(kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
    try:
        kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/healthz")
    except AssertionError as error:
        lacking(
            f"the API server does not reach node {node}: {error}",
            f"have its machine know that name: `127.0.0.1 {node}` in /etc/hosts",
        )


def test_the_log_of_a_container_that_was_started_again(
    real: KubeCluster, shell: str, nodes_answer: None
) -> None:
    """While the new run has written nothing, the log is that of the run that failed."""
    script = (
        "[ -e /kept/again ] && sleep 600; touch /kept/again; echo one; echo two; echo three; exit 1"
    )
    real.apply(a_pod("web", shell, "sh", "-c", script))

    def started_again() -> bool:
        states = found(real, "Pod", "web").get("status", {}).get("containerStatuses") or [{}]
        return bool(states[0].get("restartCount") and "running" in states[0]["state"])

    until(started_again, "the container runs again")
    assert real.log("web", 2) == "two\nthree\n"


def test_a_pod_that_has_not_started_has_no_log_but_events(real: KubeCluster) -> None:
    """They say what became of it."""
    real.apply(a_pod("web", "registry.invalid/app:1"))
    until(
        lambda: any(event["reason"] == "Failed" for event in real.events("web")), "the pull fails"
    )
    assert real.events("web")[0]["reason"] == "Scheduled"
    assert real.log("web", 5) == ""


def test_pods_and_services_can_be_asked_through_the_api_server(
    real: KubeCluster, shell: str
) -> None:
    """With what the endpoint says, and nothing else."""
    pod = a_pod("web", shell, *responder("hello"))
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}}
    service["spec"] = {
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
    }
    real.apply(pod)
    real.apply(service)
    for endpoint in (real.endpoint("Pod", "web", 8080), real.endpoint("Service", "front", 80)):
        with endpoint.session() as session:
            until(
                partial(_answers, session, f"{endpoint.url}/any?path=1"), f"{endpoint.url} answers"
            )
            assert session.get(f"{endpoint.url}/any").text == "hello"


def _answers(session: requests.Session, url: str) -> bool:
    return session.get(url, timeout=5).status_code == 200


# --- golden cases through the API server


@pytest.fixture
def replica(real: KubeCluster, shell: str) -> Endpoint:
    """The way to a pod that says hello."""
    real.apply(a_pod("web", shell, *responder("hello")))
    endpoint = real.endpoint("Pod", "web", 8080)
    until(lambda: not played(endpoint).problem, "the pod answers")
    return endpoint


def played(endpoint: Endpoint, request: GoldenRequest | None = None) -> Case:
    """How a golden case went that promises hello."""
    case = GoldenCase(
        name="one",
        request=request or GoldenRequest(path="/any"),
        expect=ExpectedResponse(contains="hello"),
    )
    return golden.play(golden.GoldenSet((case,), {}), endpoint).cases[0]


def test_golden_cases_are_played_again_when_the_api_server_is_back(
    replica: Endpoint, way: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """That it was away, or lost an answer, is no wrong answer."""
    cluster = through(way, administrator, namespace, tmp_path, RetryPolicy(wait=lambda _: way.up()))
    endpoint = cluster.endpoint("Pod", "web", 8080)
    cluster.version()
    way.down()
    assert played(endpoint).problem == ""
    way.lose_an_answer()
    assert played(endpoint).problem == ""


def test_golden_cases_are_not_missed_because_an_api_server_stays_away(
    replica: Endpoint, way: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """The reason is named."""
    cluster = through(way, administrator, namespace, tmp_path, RetryPolicy(outage=0.2))
    endpoint = cluster.endpoint("Pod", "web", 8080)
    cluster.version()
    way.down()
    with pytest.raises(ClusterUnreachable):
        played(endpoint)


def test_golden_cases_that_an_account_may_not_play_are_not_missed(
    replica: Endpoint, powerless: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """The rule is told, and is all that it takes."""
    asked = GoldenRequest(path="/any", method="PUT")
    with pytest.raises(ClusterForbidden) as caught:
        played(powerless.endpoint("Pod", "web", 8080), asked)
    assert caught.value.what == f"this account may not update pods/proxy in namespace {namespace}"
    allow(kubectl, namespace, yaml.safe_load(caught.value.detail))
    until(lambda: powerless.may("update", "Pod", "proxy"), "the role is known")
    assert played(powerless.endpoint("Pod", "web", 8080), asked).problem == ""


def test_what_an_application_says_itself_is_its_answer(
    real: KubeCluster, access: ApiServerAccess, namespace: str, shell: str
) -> None:
    """Whatever the status; where nobody answers at all the API server says so, and is believed in the end."""
    waits: list[float] = []
    patient = KubeCluster(access, namespace, RetryPolicy(outage=0.2, wait=waits.append))
    patient.version()
    real.apply(a_pod("web", shell, *responder("closed", 403)))
    endpoint = patient.endpoint("Pod", "web", 8080)
    until(
        lambda: played(endpoint).problem == "expected status 200, got 403: closed",
        "the pod answers",
    )
    waits.clear()
    assert played(endpoint).problem == "expected status 200, got 403: closed"
    assert waits == []
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}}
    service["spec"] = {
        "selector": {"app": "nobody"},
        "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
    }
    real.apply(service)
    endpoint = patient.endpoint("Service", "front", 80)
    until(lambda: "no endpoints available" in played(endpoint).problem, "the Service is known")
    assert waits
