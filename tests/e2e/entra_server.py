"""An API server of the cluster that takes the tokens of the stand-in, as one of AKS does.

It runs beside the cluster's own, with the same state and the same command line, on a port of its
own. Clusters whose API server is no process of this machine have none.
Source: Kubernetes, "Authenticating", "OpenID Connect Tokens".
"""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
from kubernetes import client

from bench.application import free_port
from tests.e2e.cluster import ACCOUNT, Namespace, until
from tests.e2e.server import MARK, Process, find_process
from tests.fakes.azure.stand_in import CLUSTER, ISSUER

_BINDING = "entra"


@dataclass(frozen=True)
class EntraServer:
    """An API server that takes the tokens of the stand-in.

    Attributes:
        url: its URL.
        cluster: the cluster's namespace, as its administrator sees it by this server.
    """

    url: str
    cluster: Namespace

    def status(self, token: str) -> int:
        """Return the status of a request with a token; 0 if there is no answer."""
        trusted = self.cluster.api.configuration.ssl_ca_cert
        headers = {"Authorization": f"Bearer {token}"}
        try:
            return requests.get(
                f"{self.url}/api", headers=headers, verify=trusted, timeout=10
            ).status_code
        except requests.ConnectionError:
            return 0

    def await_start(self, token: str) -> None:
        """Wait until it takes a token."""
        until(lambda: self.status(token) == requests.codes.ok, "the API server takes a token")

    def allow(self, objects: Sequence[str]) -> None:
        """Let identities do in the namespace what a deployer may do.

        Args:
            objects: their object ids.
        """
        group = "rbac.authorization.k8s.io"
        self._rights.create_namespaced_role_binding(
            self.cluster.name,
            {
                "metadata": {"name": _BINDING},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": ACCOUNT},
                "subjects": [{"apiGroup": group, "kind": "User", "name": one} for one in objects],
            },
        )

    def forbid(self) -> None:
        """Take back what was allowed."""
        self._rights.delete_namespaced_role_binding(_BINDING, self.cluster.name)

    @property
    def _rights(self) -> Any:
        return client.RbacAuthorizationV1Api(self.cluster.api)


@contextmanager
def serve_api(
    cluster: Namespace, folder: Path, authority: Path, proxy: str
) -> Iterator[EntraServer | None]:
    """Start an API server; end it afterwards. There is none if the cluster is not of this machine.

    Args:
        cluster: the namespace of the tests.
        folder: gets its log.
        authority: the file with the authority of the stand-in.
        proxy: the proxy that leads to the stand-in.
    """
    own = _server_of(cluster)
    if own is None:
        yield None
        return
    port = free_port()
    command = _command(own, port, authority)
    with (folder / "api-server.log").open("wb") as log:
        process = subprocess.Popen(command, env=_environ(cluster, proxy), stdout=log, stderr=log)
    try:
        url = f"https://127.0.0.1:{port}"
        yield EntraServer(url, replace(cluster, api=_client_at(url, cluster)))
    finally:
        # A server that is asked to stop waits for its clients first.
        process.kill()
        process.wait()


def _server_of(cluster: Namespace) -> Process | None:
    """Return the cluster's own API server, if it can be started a second time here."""
    found = find_process() if os.geteuid() == 0 else None
    port = str(cluster.api.configuration.host).rpartition(":")[2]
    return found if found and f"--secure-port={port}" in found.command else None


def _command(own: Process, port: int, authority: Path) -> tuple[str, ...]:
    """Return the command of another API server; of an option that is there twice, the last counts.

    Args:
        own: the cluster's own.
        port: the port of the other.
        authority: the file with the authority of the stand-in.
    """
    return (
        # It ends with this process, even if that is killed.
        *("setpriv", "--pdeathsig", "KILL"),
        # It sees the files, and the names of hosts, that the cluster's own does.
        *("nsenter", "--mount", "--target", str(own.process), "--"),
        *(*own.command, f"--secure-port={port}"),
        *(f"{MARK}{ISSUER}", f"--oidc-client-id={CLUSTER}", f"--oidc-ca-file={authority}"),
        *("--oidc-username-claim=oid", "--oidc-username-prefix=-"),
    )


def _environ(cluster: Namespace, proxy: str) -> dict[str, str]:
    """Return the environment of an API server that reaches the stand-in by the proxy alone."""
    nodes = [node.status.addresses for node in cluster.core.list_node().items]
    names = (one.address for addresses in nodes for one in addresses)
    direct = ",".join(("127.0.0.1", "localhost", *names))
    proxies = {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": direct, "no_proxy": direct}
    return {**os.environ, **proxies}


def _client_at(url: str, cluster: Namespace) -> Any:
    """Return the administrator's client of another API server of the cluster."""
    library: Any = client
    configuration = copy.copy(cluster.api.configuration)
    configuration.host = url
    return library.ApiClient(configuration)
