"""A cluster on AKS: a real API server, whose kubeconfig and tokens come from the stand-in."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from deploy.clients.azure.sources import Account
from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.clients.kubernetes.client import KubeCluster
from deploy.errors import ClusterLogin
from tests.fakes.azure.logins import SERVICE_PRINCIPAL, identity_on
from tests.fakes.azure.stand_in import CLIENT, CLUSTER, SUBSCRIPTION, TENANT, StandIn
from tests.fakes.kubeconfig import exec_user
from tests.integration.deploy.clients.conftest import Kubectl
from tests.integration.deploy.clients.kubernetes.accounts import ACCOUNT, allow, token

pytestmark = pytest.mark.integration

NOTE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}}
RULE = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"]}
DEADLINE = 120.0


@pytest.fixture
def azure(administrator: dict[str, Any]) -> StandIn:
    """Return a stand-in that has the real cluster, as AKS does: with `kubelogin` in its users."""
    found = StandIn()
    content = copy.deepcopy(administrator)
    content["users"][0]["user"] = exec_user("kubelogin", "get-token", "--server-id", CLUSTER)
    found.kubeconfig = yaml.safe_dump(content)
    return found


@pytest.fixture
def log_in(azure: StandIn, kubectl: Kubectl, namespace: str) -> Callable[[], None]:
    """Return a function that makes the account again, whose earlier tokens end by that."""
    allow(kubectl, namespace, [RULE])

    def make_account() -> None:
        kubectl("delete", "serviceaccount", ACCOUNT, "-n", namespace, "--ignore-not-found")
        kubectl("create", "serviceaccount", ACCOUNT, "-n", namespace)
        azure.cluster_token = token(kubectl, namespace)

    return make_account


def connect(azure: StandIn, namespace: str) -> KubeCluster:
    """Return the cluster, as an environment with `aks` has it."""
    identity = identity_on(azure, SERVICE_PRINCIPAL, Account(subscription=SUBSCRIPTION))
    return KubeCluster(ApiServerAccess("aks:pictures/shop", "", identity), namespace)


def test_a_token_that_the_cluster_revokes_is_replaced(
    azure: StandIn, namespace: str, log_in: Callable[[], None]
) -> None:
    """In the middle of a rollout; no `kubelogin` is installed here."""
    log_in()
    cluster = connect(azure, namespace)
    assert cluster.create(NOTE)
    log_in()
    # The API server remembers a token that it has checked for some seconds.
    end = time.monotonic() + DEADLINE
    while azure.tokens_issued(CLUSTER) < 2:
        assert time.monotonic() < end
        assert cluster.find("ConfigMap", "note")


def test_a_token_that_the_cluster_does_not_know_is_a_login_error(
    azure: StandIn, namespace: str
) -> None:
    """The cluster may belong to another tenant; one more token is tried."""
    with pytest.raises(ClusterLogin, match="the token of the identity on Azure") as caught:
        connect(azure, namespace).version()
    assert f"this is {CLIENT} of tenant {TENANT}" in caught.value.next
    assert azure.tokens_issued(CLUSTER) == 2
