"""Clusters on AKS: their kubeconfig by the management API, and a token in place of `kubelogin`.

All of it stays in memory, but for the certificate of the cluster's authority.
Source: AKS's REST API "Managed Clusters - List Cluster User Credentials"; kubelogin's "Concepts".
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.errors import as_error_of
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.names import CLUSTER
from deploy.clients.azure.resource_manager import ResourceManager
from deploy.clients.network import has_private_address
from deploy.errors import ClusterLogin, ClusterUnknown

if TYPE_CHECKING:
    from kubernetes.client import Configuration

log = logging.getLogger(__name__)

SERVER = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""The application that AKS has in every tenant and every cloud."""

_VERSION = "2025-10-01"
# The ends of the names of API servers: of the public cloud, of China, of the US government.
_DOMAINS = (".azmk8s.io", ".azk8s.cn", ".aks.containerservice.azure.us")
_PRIVATE = frozenset({"privatelink", "private"})
_ID = re.compile(
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)"
    r"/providers/Microsoft\.ContainerService/managedClusters/([^/]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AksCluster:
    """A cluster on AKS.

    Attributes:
        subscription: The id of its subscription; empty for that of the identity.
        group: Its resource group.
        name: Its name.
    """

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> AksCluster:
        """Return the cluster that `group/name` or a resource id means."""
        found = _ID.fullmatch(text)
        if found:
            return cls(*found.groups())
        group, _, name = text.partition("/")
        return cls("", group, name)

    def resource_id(self, manager: ResourceManager) -> str:
        """Return the id of the resource.

        Args:
            manager: Tells the subscription if the cluster names none.

        Raises:
            AzureError: It does not.
        """
        subscription = self.subscription or manager.subscription()
        return (
            f"/subscriptions/{subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{self.name}"
        )

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


def find_aks_cluster(kubeconfig: str) -> AksCluster | None:
    """Return the cluster that is named as `aks:group/name`; None for other names."""
    if not kubeconfig.startswith(CLUSTER):
        return None
    return AksCluster.parse(kubeconfig.removeprefix(CLUSTER))


def find_aks_login(kubeconfig: str, identity: Identity | None) -> AksLogin | None:
    """Return the login to a cluster that is named as `aks:group/name`; None for other names.

    Raises:
        ClusterLogin: There is no identity for it.
    """
    cluster = find_aks_cluster(kubeconfig)
    if cluster is None:
        return None
    if identity is None:
        raise ClusterLogin(
            "a cluster on AKS needs the identity on Azure",
            on=kubeconfig,
            next="name it by `aks` in the environment's settings",
        )
    return AksLogin(cluster, identity)


def is_private_cluster(host: str) -> bool:
    """Return whether a host is the API server of a private cluster on AKS.

    Its name is that of a private DNS zone, or leads to a private address.
    Source: AKS's "Create a private Azure Kubernetes Service cluster".
    """
    if not host.endswith(_DOMAINS):
        return False
    return not _PRIVATE.isdisjoint(host.split(".")) or has_private_address(host)


class AksLogin:
    """The login to a cluster on AKS, whose token is renewed for as long as a rollout lasts.

    Args:
        cluster: The cluster.
        identity: The identity.
    """

    def __init__(self, cluster: AksCluster, identity: Identity) -> None:
        self._cluster = cluster
        self._identity = identity
        self._kubeconfig: dict[str, Any] = {}
        self._resource_id = ""
        self._token: ClusterToken | None = None

    def account(self) -> ClusterAccount | None:
        """Return whose token is sent; None for a cluster that has no login by Entra."""
        return self._token.account(self._resource_id) if self._token else None

    def load(self) -> tuple[str, Configuration]:
        """Return the cluster's name, and the library's configuration; again with a new token.

        Raises:
            ClusterUnknown: The cluster is not found, or its kubeconfig cannot be read.
            ClusterLogin: There is no login to Azure, or it was refused.
        """
        if not self._kubeconfig:
            self._kubeconfig = self._request_kubeconfig()
        user = _user_of(self._kubeconfig)
        server = server_of(user)
        if server is None:
            log.warning(
                "the cluster %s has no login by Entra: its own certificate is used", self._cluster
            )
            return str(self._cluster), configuration_of(self._kubeconfig, None)
        if self._token is None:
            self._token = ClusterToken(self._identity, server)
        else:
            self._token.replace()
        return str(self._cluster), configuration_of(self._kubeconfig, self._token)

    def _request_kubeconfig(self) -> dict[str, Any]:
        manager = ResourceManager(self._identity)
        with as_error_of(ClusterLogin):
            self._resource_id = self._cluster.resource_id(manager)
            path = f"{self._resource_id}/listClusterUserCredential"
            found = manager.send("POST", path, _VERSION, format="exec")
        return self._parse(found)

    def _parse(self, found: Mapping[str, Any]) -> dict[str, Any]:
        import yaml

        try:
            text = base64.b64decode(found["kubeconfigs"][0]["value"]).decode()
            content = yaml.safe_load(text)
            _user_of(content)
        except (LookupError, TypeError, AttributeError, ValueError, yaml.YAMLError):
            # Without a cause: it may quote the kubeconfig.
            raise ClusterUnknown(
                "Azure's management API gave no kubeconfig that can be used",
                on=str(self._cluster),
                next="see whether `az aks get-credentials` gives one",
            ) from None
        return dict(content)


class ClusterToken:
    """The token for an API server.

    Args:
        identity: The identity.
        server: The id of the application that the API server is.
    """

    def __init__(self, identity: Identity, server: str) -> None:
        self._identity = identity
        self._server = server
        self._value = ""

    def __call__(self) -> str:
        """Return the token; a new one if the last is about to end.

        Raises:
            ClusterLogin: There is no login to Azure, or it was refused.
        """
        with as_error_of(ClusterLogin):
            self._value = self._identity.token(self._server).value
        return self._value

    def account(self, cluster: str) -> ClusterAccount:
        """Return whose token it is, once it was requested.

        Args:
            cluster: the id of the cluster's resource, or a command in `$( )` that prints it.
        """
        return ClusterAccount(self._identity.principal(), cluster)

    def replace(self) -> None:
        """Replace the token, which the API server did not accept.

        Raises:
            ClusterLogin: There is no login to Azure, or it was refused.
        """
        with as_error_of(ClusterLogin):
            self._value = self._identity.token(self._server, self._value).value


def server_of(user: Mapping[str, Any]) -> str | None:
    """Return the application for which a user of a kubeconfig gets tokens by `kubelogin`.

    It is None for a user who logs in by other means.
    """
    login = user.get("exec")
    if not isinstance(login, dict) or PurePath(str(login.get("command"))).stem != "kubelogin":
        return None
    # `--name value` and `--name=value` mean the same.
    words = "=".join(map(str, login.get("args") or ())).split("=")
    named = dict(pairwise(words)).get("--server-id")
    variables = {
        one.get("name"): one.get("value") for one in login.get("env") or () if isinstance(one, dict)
    }
    return str(named or variables.get("AAD_SERVER_APPLICATION_ID") or SERVER)


def configuration_of(kubeconfig: Mapping[str, Any], token: ClusterToken | None) -> Configuration:
    """Return the configuration of the kubernetes library for a kubeconfig in memory.

    Args:
        kubeconfig: The kubeconfig; its current context is used.
        token: Takes the place of the user's login; None leaves that as it is.
    """
    from kubernetes import config
    from kubernetes.client import Configuration

    configuration = Configuration()
    configuration.retries = False
    content = dict(kubeconfig)
    if token is not None:
        # A placeholder, as the library would run the user's login program.
        content["users"] = [
            {**one, "user": {"token": "replaced"}} for one in kubeconfig.get("users") or ()
        ]
    config.load_kube_config_from_dict(  # type: ignore[no-untyped-call]  # the library has no types here
        content, client_configuration=configuration, persist_config=False
    )
    if token is not None:
        _use_token(configuration, token)
    return configuration


def _use_token(configuration: Configuration, token: ClusterToken) -> None:
    """Let each request have the token as it is then."""

    def refresh(settings: Any) -> None:  # noqa: ANN401 - the library's own type
        settings.api_key["BearerToken"] = f"Bearer {token()}"

    settings_of_library: Any = configuration
    settings_of_library.refresh_api_key_hook = refresh


def _user_of(kubeconfig: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user of the current context."""
    contexts = {one["name"]: one["context"] for one in kubeconfig["contexts"]}
    users = {one["name"]: one["user"] for one in kubeconfig["users"]}
    user = users[contexts[kubeconfig["current-context"]]["user"]]
    return dict(user)
