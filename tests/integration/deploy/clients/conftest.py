"""Fixtures of tests on a real cluster: access, and namespaces that are removed afterwards."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.clients.kubernetes.client import KubeCluster
from deploy.errors import ClusterError
from tests.missing import lacking

Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def access() -> ApiServerAccess:
    """Return the access to a cluster."""
    if not os.environ.get("KUBECONFIG"):
        lacking(
            "no cluster is named",
            "set KUBECONFIG to the path of a kubeconfig for a cluster that tests may use",
        )
    try:
        found = ApiServerAccess("", "")
        KubeCluster(found, "default").version()
    except ClusterError as error:
        lacking(str(error), error.next)
    return found


@pytest.fixture(scope="session")
def kubectl(access: ApiServerAccess) -> Kubectl:
    """Return a function that runs kubectl as the administrator and returns its output."""
    found = shutil.which("kubectl")
    if found is None:
        lacking("kubectl is not installed", "install it: Debian's package is kubernetes-client")

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [found, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def administrator(kubectl: Kubectl) -> dict[str, Any]:
    """Return the kubeconfig of the cluster with its current context only."""
    found: dict[str, Any] = json.loads(
        kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
    )
    return found


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """Create a namespace for a test."""
    name = f"test-client-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def real(access: ApiServerAccess, namespace: str) -> KubeCluster:
    """Return a client of the cluster."""
    return KubeCluster(access, namespace)
