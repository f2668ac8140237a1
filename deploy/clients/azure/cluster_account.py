"""Whom an API server on AKS sees, and the commands that give rights there.

Source: AKS's "Use Azure RBAC for Kubernetes authorization"; the role is that of
`deploy/manifests/rbac.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploy.clients.azure.identity import Principal
from deploy.clients.azure.roles import WRITE_NAMESPACE, assignment

_ROLE = "twinship-deployer"


@dataclass(frozen=True)
class ClusterAccount:
    """The account of Azure whose token is sent to an API server.

    Attributes:
        principal: who it is.
        cluster: the id of the cluster's resource, or a command in `$( )` that prints it.
        is_identity: whether it is the identity of this run, and not that of a login program.
    """

    principal: Principal
    cluster: str
    is_identity: bool = True

    def assignment(self, namespace: str) -> str:
        """Return the command that gives it a namespace, where rights are roles of Azure."""
        return assignment(self.principal, WRITE_NAMESPACE, f"{self.cluster}/namespaces/{namespace}")

    def binding(self, namespace: str) -> str:
        """Return the commands that give it a namespace, where rights are those of Kubernetes.

        A binding names the object id, which is the user that the API server sees.
        """
        return (
            f"`kubectl apply --namespace {namespace} -f deploy/manifests/rbac.yaml`, and "
            f"`kubectl create rolebinding {_ROLE}-{self.principal.object_id} --role {_ROLE} "
            f"--user {self.principal.object_id} --namespace {namespace}`"
        )

    def login_advice(self) -> str:
        """Return what to do when the API server does not accept its token."""
        return (
            f"this is {self.principal}; `az aks show --ids {self.cluster} --query aadProfile` "
            "shows the tenant that the cluster trusts: without any, add the login by Entra "
            f"(`az aks update --ids {self.cluster} --enable-aad`); another tenant has to be "
            "`tenant` in [azure]; if it is this one, the identity was disabled or its tokens were "
            "revoked: log in again"
        )
