"""Service accounts of the cluster, with kubeconfigs and roles for them."""

from __future__ import annotations

import copy
import json
import secrets
from pathlib import Path
from typing import Any

from deploy.clients.kubernetes.protocol import Object
from tests.fakes.kubeconfig import write_yaml
from tests.integration.deploy.clients.conftest import Kubectl

ACCOUNT = "deployer"


def token(kubectl: Kubectl, namespace: str, account: str = ACCOUNT) -> str:
    """Return a token of an account."""
    return str(kubectl("create", "token", account, "-n", namespace)).strip()


def as_user(administrator: dict[str, Any], folder: Path, **user: Any) -> str:
    """Return the path of a kubeconfig for the same cluster with another user."""
    content = copy.deepcopy(administrator)
    content["users"][0]["user"] = user
    return write_yaml(folder / f"kubeconfig-{secrets.token_hex(4)}", content)


def allow(kubectl: Kubectl, namespace: str, rules: list[Object]) -> None:
    """Give the account a role with those rules."""
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
