"""The check of what a release needs on Azure; it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from deploy.clients.azure.aks import AksCluster, find_aks_cluster
from deploy.clients.azure.blob import BlobStore
from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.errors import AzureError
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.names import SECRET, is_blob_location
from deploy.clients.azure.registry import RegistryLogin, is_registry
from deploy.clients.azure.resource_manager import ResourceManager
from deploy.errors import ReleaseError
from deploy.machine.doctor import Check, lacking_kinds
from deploy.machine.host import Host
from deploy.settings.environments import ClusterAddress
from deploy.settings.reading import Settings

_PUSH = frozenset({"pull", "push"})


class AzureDoctor:
    """Checks each part on Azure that an environment uses, by requests that change nothing.

    Args:
        settings: the application's settings.
        environment: the environment's name.
        identity: the identity.
        secrets: the secrets that settings name.
        open_store: returns the model store, if it is in Azure Blob.
        host: this machine, which connects to clusters.
    """

    def __init__(
        self,
        settings: Settings,
        environment: str,
        identity: Identity,
        secrets: Mapping[str, str],
        open_store: Callable[[], BlobStore],
        host: Host,
    ) -> None:
        self._settings = settings
        self._env = settings.environment(environment)
        self._repository = settings.repository(environment)
        self._identity = identity
        self._secrets = secrets
        self._open_store = open_store
        self._host = host

    def checks(self) -> tuple[Check, ...]:
        """Return the checks; none for an environment that uses nothing on Azure."""
        parts = list(self._parts())
        if not parts:
            return ()
        login = self._login()
        return (login, *(_run(name, check) for name, check in parts)) if login.ok else (login,)

    def _parts(self) -> Iterator[tuple[str, Callable[[], Check]]]:
        for name in self._vault_secrets():
            yield "key vault", partial(self._secret, name)
        if is_blob_location(self._settings.model.store):
            yield "model store", self._store
        names_login = self._env.username and self._env.password
        if not names_login and is_registry(self._env.registry, self._identity):
            yield "registry login", self._registry
        address = self._env.cluster_address(Path())
        cluster = find_aks_cluster(address.kubeconfig) if address else None
        if address and cluster:
            yield "cluster rights", partial(self._cluster, address, cluster)

    def _vault_secrets(self) -> list[str]:
        model = self._settings.model
        logins = (self._env.username, self._env.password, model.account_key, model.sas)
        names = (*logins, *self._env.secrets.values())
        return [name for name in names if name.startswith(SECRET)]

    def _login(self) -> Check:
        def check() -> Check:
            principal = self._identity.principal()
            return Check("Azure login", f"{self._identity.source.name}, as {principal}")

        return _run("Azure login", check)

    def _secret(self, name: str) -> Check:
        # Only whether it can be read; its value is not looked at.
        _ = self._secrets[name]
        return Check("key vault", name)

    def _store(self) -> Check:
        store = self._open_store()
        # A listing, as its refusal has the service's code.
        store.folders("models")
        advice = store.publish_advice()
        # No failure: a release fetches a model, and others may publish it.
        found = f"can fetch; to publish: {advice}" if advice else "can fetch and publish"
        return Check("model store", f"{store.location}, {found}")

    def _registry(self) -> Check:
        registry = RegistryLogin(self._env.registry, self._identity)
        granted = registry.granted_actions(self._repository)
        where = f"{self._env.registry}/{self._repository}"
        if granted >= _PUSH:
            return Check("registry login", f"pull and push, {where}")
        return Check("registry login", "", registry.advise("PUT", ""))

    def _cluster(self, address: ClusterAddress, cluster: AksCluster) -> Check:
        namespace = self._host.connect_cluster(*address)
        if not lacking_kinds(namespace, has_secrets=bool(self._env.secrets)):
            return Check("cluster rights", f"namespace {address.namespace}")
        resource = cluster.resource_id(ResourceManager(self._identity))
        account = ClusterAccount(self._identity.principal(), resource)
        return Check(
            "cluster rights",
            "",
            f"{account.assignment(address.namespace)}; in a cluster that does not use roles of "
            f"Azure: {account.binding(address.namespace)}",
        )


def _run(part: str, check: Callable[[], Check]) -> Check:
    """Return a check, or what its failure says to do."""
    try:
        return check()
    except (AzureError, ReleaseError) as error:
        detail = " ".join(error.detail.split())
        return Check(part, "", f"{error.what}: {error.next}" + (f" ({detail})" if detail else ""))
