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
from deploy.model import golden_cases
from deploy.model.manifest import ExpectedResponse, GoldenCase, GoldenRequest
from deploy.records import CaseResult
from tests.contracts.cluster import ClusterContract, Write, deployment, found, settings, until
from tests.fakes.kubeconfig import write_yaml
from tests.integration.deploy.clients.conftest import Kubectl
from tests.integration.deploy.clients.kubernetes.accounts import ACCOUNT, allow, as_user, token
from tests.integration.deploy.clients.oci.forwarder import Forwarder, run_forwarder
from tests.integration.deploy.responder import responder
from tests.missing import lacking

pytestmark = pytest.mark.integration


class TestKubernetes(ClusterContract):
    """The contract, on a real cluster."""

    @pytest.fixture
    def cluster(self, real: KubeCluster) -> Cluster:
        return real

    @pytest.fixture
    def other(self, kubectl: Kubectl, namespace: str) -> Write:
        """Return a write by kubectl, which takes the fields over."""
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
        """Return a kind that the cluster is too old for."""
        for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
            if not real.serves(kind):
                return kind
        pytest.skip("this cluster serves every kind that releases use: name an older one")


# --- refusals


def test_a_missing_namespace_is_an_error_of_writes(access: ApiServerAccess) -> None:
    """Reads there find nothing."""
    cluster = KubeCluster(access, "test-absent")
    with pytest.raises(NamespaceMissing):
        cluster.require_access()
    assert cluster.find("ConfigMap", "one") is None
    assert cluster.list("ConfigMap", {}) == []
    cluster.delete("ConfigMap", "one")
    for write in (cluster.apply, cluster.create):
        with pytest.raises(NamespaceMissing):
            write(settings("one"))


def test_an_invalid_object_is_refused_field_by_field(real: KubeCluster) -> None:
    """The detail has the server's message for each."""
    item = deployment("web", replicas=-1)
    item["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    with pytest.raises(ClusterRefused) as caught:
        real.apply(item)
    assert "422 Invalid" in caught.value.what
    assert "spec." in caught.value.what
    assert "spec.replicas: " in caught.value.detail
    assert "spec.template.metadata.labels: " in caught.value.detail


def test_a_malformed_object_is_refused(access: ApiServerAccess, namespace: str) -> None:
    """Old servers respond as if they had failed themselves."""
    with pytest.raises(ClusterRefused) as caught:
        KubeCluster(access, namespace, RetryPolicy(before_first_response=2.0)).apply(
            settings("one") | {"data": "words"}
        )
    assert ": " in caught.value.what


def test_an_exceeded_quota_is_no_missing_permission(
    real: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """The server refuses both with the same status."""
    kubectl("create", "quota", "small", "--hard=count/configmaps=0", "-n", namespace)
    refusals: list[ClusterRefused] = []

    def refused() -> bool:
        try:
            real.create(settings(f"one-{secrets.token_hex(4)}"))
        except ClusterRefused as error:
            refusals.append(error)
        return bool(refusals)

    until(refused, "the quota takes effect")
    assert "exceeded quota: small" in refusals[0].what


def test_an_edit_makes_its_manager_the_owner(
    real: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """Its name is found also where the server adds a time to it."""
    real.apply(settings("one", key="value", rest="same"))
    patch = ("--type=merge", "--field-manager=editor", "-p", '{"data": {"key": "edited"}}')
    kubectl("patch", "configmap", "one", "-n", namespace, *patch)
    with pytest.raises(FieldConflict) as caught:
        real.apply(settings("one", key="value", rest="other"))
    assert dict(caught.value.owners) == {"data.key": "editor"}


# --- an account with few permissions


@pytest.fixture
def account(
    administrator: dict[str, Any], kubectl: Kubectl, namespace: str, tmp_path: Path
) -> ApiServerAccess:
    """Return the access of an account that no role names."""
    kubectl("create", "serviceaccount", ACCOUNT, "-n", namespace)
    path = as_user(administrator, tmp_path, token=token(kubectl, namespace))
    return ApiServerAccess(path, "")


@pytest.fixture
def powerless(account: ApiServerAccess, namespace: str) -> KubeCluster:
    """Return a client with an account that no role names."""
    return KubeCluster(account, namespace)


def test_a_forbidden_account_gets_the_rule_to_add(
    powerless: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """The rule, added to a role as it is, is enough."""
    assert not powerless.is_allowed("patch", "ConfigMap")
    with pytest.raises(ClusterForbidden) as caught:
        powerless.apply(settings("one"))
    assert (
        caught.value.what
        == f"this account may not create or patch configmaps in namespace {namespace}"
    )
    assert ACCOUNT in caught.value.detail
    allow(kubectl, namespace, yaml.safe_load(caught.value.detail))
    until(lambda: powerless.is_allowed("patch", "ConfigMap"), "the role takes effect")
    powerless.apply(settings("one"))
    assert not powerless.is_allowed("get", "ConfigMap")


def test_other_namespaces_are_forbidden_whether_they_exist_or_not(
    account: ApiServerAccess, powerless: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """For its own namespace, an account needs only a rule of deploy/manifests/rbac.yaml."""
    allow(kubectl, namespace, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])
    until(lambda: powerless.is_allowed("get", "ConfigMap"), "the role takes effect")
    powerless.require_access()
    for closed in ("default", "test-absent"):
        with pytest.raises(ClusterForbidden) as caught:
            KubeCluster(account, closed).require_access()
        assert caught.value.what == f"this account may not get configmaps in namespace {closed}"


def test_a_namespace_exists_before_its_root_ca(real: KubeCluster) -> None:
    """The cluster creates it later, or again after it is deleted; the client does not."""
    for _ in range(5):
        real.delete("ConfigMap", ROOT_CA)
        real.require_access()
    until(lambda: bool((real.find("ConfigMap", ROOT_CA) or {}).get("data")), "the root CA is there")


def test_a_subresource_needs_a_rule_of_its_own(
    powerless: KubeCluster, real: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """An account that may read pods may not read their logs."""
    real.apply(a_pod("web", "registry.invalid/app:1"))
    allow(kubectl, namespace, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    until(lambda: powerless.is_allowed("get", "Pod"), "the role takes effect")
    with pytest.raises(ClusterForbidden) as caught:
        powerless.log("web", 5)
    (rule,) = yaml.safe_load(caught.value.detail)
    assert rule == {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}


# --- an API server that restarts


@pytest.fixture
def forwarder(administrator: dict[str, Any]) -> Iterator[Forwarder]:
    """Yield a port that forwards to the API server and can be closed."""
    parts = urlsplit(administrator["clusters"][0]["cluster"]["server"])
    assert parts.hostname
    with run_forwarder((parts.hostname, parts.port or 443)) as forwarder:
        yield forwarder


def through(
    forwarder: Forwarder,
    administrator: dict[str, Any],
    namespace: str,
    folder: Path,
    retry_policy: RetryPolicy,
) -> KubeCluster:
    """Return a client that connects through that port."""
    content = copy.deepcopy(administrator)
    server = urlsplit(content["clusters"][0]["cluster"]["server"]).hostname
    content["clusters"][0]["cluster"] |= {"server": forwarder.url, "tls-server-name": server}
    return KubeCluster(
        ApiServerAccess(write_yaml(folder / "through", content), ""), namespace, retry_policy
    )


def test_requests_are_retried_while_an_api_server_restarts(
    forwarder: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """Each operation succeeds in the end, and each write is carried out once."""
    cluster = through(
        forwarder, administrator, namespace, tmp_path, RetryPolicy(wait=lambda _: forwarder.open())
    )
    for operation, expected in (
        (lambda: bool(cluster.version()), True),
        (lambda: cluster.create(settings("one", key="value")), True),
        (lambda: cluster.apply(settings("two", key="value"))["data"], {"key": "value"}),
        (lambda: len(cluster.list("ConfigMap", {})) >= 2, True),
        (
            lambda: cluster.replace(found(cluster, "ConfigMap", "one") | {"data": {"key": "new"}}),
            True,
        ),
        (lambda: cluster.is_allowed("get", "Pod"), True),
        (lambda: cluster.delete("ConfigMap", "two"), None),
        (lambda: cluster.find("ConfigMap", "two"), None),
    ):
        forwarder.close()
        assert operation() == expected
    assert found(cluster, "ConfigMap", "one")["data"] == {"key": "new"}


def test_a_write_whose_response_was_lost_is_ours(
    forwarder: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """The server refuses the second attempt, as the first one was carried out."""
    waits: list[float] = []
    cluster = through(forwarder, administrator, namespace, tmp_path, RetryPolicy(wait=waits.append))
    cluster.version()
    forwarder.lose_response()
    assert cluster.create(settings("one", key="value"))
    item = found(cluster, "ConfigMap", "one")
    item["data"] = {"key": "new"}
    forwarder.lose_response()
    assert cluster.replace(item)
    assert found(cluster, "ConfigMap", "one")["data"] == {"key": "new"}
    forwarder.lose_response()
    cluster.delete("ConfigMap", "one")
    assert cluster.find("ConfigMap", "one") is None
    assert len(waits) == 3


def test_the_write_of_another_deployer_is_not_ours(
    forwarder: Forwarder,
    administrator: dict[str, Any],
    namespace: str,
    tmp_path: Path,
    real: KubeCluster,
) -> None:
    """It came first while the client was waiting."""

    def come_first(_: float) -> None:
        real.create(settings("one", key="theirs"))
        forwarder.open()

    cluster = through(forwarder, administrator, namespace, tmp_path, RetryPolicy(wait=come_first))
    cluster.version()
    forwarder.close()
    assert not cluster.create(settings("one", key="ours"))
    assert found(real, "ConfigMap", "one")["data"] == {"key": "theirs"}


def test_an_api_server_that_stays_away_is_an_error(
    forwarder: Forwarder, administrator: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    """It has the server's name and the reason."""
    cluster = through(
        forwarder, administrator, namespace, tmp_path, RetryPolicy(after_first_response=0.2)
    )
    cluster.version()
    forwarder.close()
    with pytest.raises(ClusterUnreachable) as caught:
        cluster.version()
    assert "Connection refused" in caught.value.what
    assert forwarder.url in caught.value.on


# --- pods


def a_pod(name: str, image: str, *command: str) -> Object:
    """Return a pod that runs a command, with a folder that outlives its containers."""
    container = {
        "name": "app",
        "image": image,
        "command": list(command) or None,
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "state", "emptyDir": {}}],
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
    """Yield an image with a shell, in a registry that the cluster can pull from."""
    name = f"{registry_host}/test-client"
    engine.tag(parts_image, f"{name}:shell")
    lines = [
        json.loads(line)
        for line in engine._api.push(name, tag="shell", stream=True)
        for line in line.splitlines()
        if line
    ]
    assert not [line for line in lines if "error" in line], lines
    yield f"{name}:shell"
    engine._api.remove_image(f"{name}:shell")


@pytest.fixture
def nodes_answer(kubectl: Kubectl) -> None:
    """Require that the API server reaches its nodes, from which it reads logs."""
    node = str(kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
    try:
        kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/healthz")
    except AssertionError as error:
        lacking(
            f"the API server does not reach node {node}: {error}",
            f"have its machine know that name: `127.0.0.1 {node}` in /etc/hosts",
        )


def test_a_restarted_container_has_the_log_of_its_previous_run(
    real: KubeCluster, shell: str, nodes_answer: None
) -> None:
    """This is so while the current run has logged nothing."""
    script = (
        "[ -e /state/again ] && sleep 600; touch /state/again; "
        "echo one; echo two; echo three; exit 1"
    )
    real.apply(a_pod("web", shell, "sh", "-c", script))

    def restarted() -> bool:
        states = found(real, "Pod", "web").get("status", {}).get("containerStatuses") or [{}]
        return bool(states[0].get("restartCount") and "running" in states[0]["state"])

    until(restarted, "the container runs again")
    assert real.log("web", 2) == "two\nthree\n"


def test_a_pod_that_has_not_started_has_events_and_no_log(real: KubeCluster) -> None:
    """The events have the reason."""
    real.apply(a_pod("web", "registry.invalid/app:1"))
    until(
        lambda: any(event["reason"] == "Failed" for event in real.events("web")), "the pull fails"
    )
    assert real.events("web")[0]["reason"] == "Scheduled"
    assert real.log("web", 5) == ""


def test_requests_reach_pods_and_services_through_the_api_server(
    real: KubeCluster, shell: str
) -> None:
    """The endpoint has all that such a request needs."""
    pod = a_pod("web", shell, *responder("hello"))
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}}
    service["spec"] = {
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
    }
    real.apply(pod)
    real.apply(service)
    for endpoint in (real.endpoint("Pod", "web", 8080), real.endpoint("Service", "front", 80)):
        with endpoint.open_session() as session:
            until(
                partial(is_answering, session, f"{endpoint.url}/any?path=1"),
                f"{endpoint.url} answers",
            )
            assert session.get(f"{endpoint.url}/any").text == "hello"


def is_answering(session: requests.Session, url: str) -> bool:
    """Return whether a request gets a response of success."""
    return session.get(url, timeout=5).status_code == 200


# --- golden cases through the API server


@pytest.fixture
def replica(real: KubeCluster, shell: str) -> Endpoint:
    """Return the endpoint of a pod that says hello."""
    real.apply(a_pod("web", shell, *responder("hello")))
    endpoint = real.endpoint("Pod", "web", 8080)
    until(lambda: not play(endpoint).problem, "the pod answers")
    return endpoint


def play(endpoint: Endpoint, request: GoldenRequest | None = None) -> CaseResult:
    """Return the result of a golden case that expects hello."""
    case = GoldenCase(
        name="one",
        request=request or GoldenRequest(path="/any"),
        expect=ExpectedResponse(contains="hello"),
    )
    return golden_cases.play(golden_cases.GoldenSet((case,), {}), endpoint).cases[0]


def test_golden_cases_are_repeated_when_the_api_server_is_back(
    replica: Endpoint,
    forwarder: Forwarder,
    administrator: dict[str, Any],
    namespace: str,
    tmp_path: Path,
) -> None:
    """Neither its absence nor a lost response is a wrong response."""
    cluster = through(
        forwarder, administrator, namespace, tmp_path, RetryPolicy(wait=lambda _: forwarder.open())
    )
    endpoint = cluster.endpoint("Pod", "web", 8080)
    cluster.version()
    forwarder.close()
    assert play(endpoint).problem == ""
    forwarder.lose_response()
    assert play(endpoint).problem == ""


def test_an_api_server_that_stays_away_is_no_wrong_response(
    replica: Endpoint,
    forwarder: Forwarder,
    administrator: dict[str, Any],
    namespace: str,
    tmp_path: Path,
) -> None:
    """The error has the reason."""
    cluster = through(
        forwarder, administrator, namespace, tmp_path, RetryPolicy(after_first_response=0.2)
    )
    endpoint = cluster.endpoint("Pod", "web", 8080)
    cluster.version()
    forwarder.close()
    with pytest.raises(ClusterUnreachable):
        play(endpoint)


def test_a_forbidden_golden_case_is_no_wrong_response(
    replica: Endpoint, powerless: KubeCluster, kubectl: Kubectl, namespace: str
) -> None:
    """The error has the rule to add, which is enough."""
    request = GoldenRequest(path="/any", method="PUT")
    with pytest.raises(ClusterForbidden) as caught:
        play(powerless.endpoint("Pod", "web", 8080), request)
    assert caught.value.what == f"this account may not update pods/proxy in namespace {namespace}"
    allow(kubectl, namespace, yaml.safe_load(caught.value.detail))
    until(lambda: powerless.is_allowed("update", "Pod", "proxy"), "the role takes effect")
    assert play(powerless.endpoint("Pod", "web", 8080), request).problem == ""


def test_an_error_of_the_application_is_its_response(
    real: KubeCluster, access: ApiServerAccess, namespace: str, shell: str
) -> None:
    """If no pod answers, the API server says so, and that is the result after the retries."""
    waits: list[float] = []
    cluster = KubeCluster(
        access, namespace, RetryPolicy(after_first_response=0.2, wait=waits.append)
    )
    cluster.version()
    real.apply(a_pod("web", shell, *responder("closed", 403)))
    endpoint = cluster.endpoint("Pod", "web", 8080)
    until(
        lambda: play(endpoint).problem == "expected status 200, got 403: closed",
        "the pod answers",
    )
    waits.clear()
    assert play(endpoint).problem == "expected status 200, got 403: closed"
    assert waits == []
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}}
    service["spec"] = {
        "selector": {"app": "none"},
        "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
    }
    real.apply(service)
    endpoint = cluster.endpoint("Service", "front", 80)
    until(lambda: "no endpoints available" in play(endpoint).problem, "the Service is known")
    assert waits
