"""The endpoint of an environment on a cluster: the first address that is reachable from here.

The order is: the host of the Ingress, the address of the load balancer, the port of a node, and
the API server's proxy to the Service, which needs nothing but access to the API server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from deploy.clients import network
from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.targets.kubernetes.render import Rendering

log = logging.getLogger(__name__)


class EndpointFinder:
    """A search for the endpoint of one environment.

    Args:
        cluster: the namespace of the environment.
        rendering: the names and settings of its objects.
        is_reachable: returns whether a host and port can be reached from here.
        resolves_to: returns whether DNS resolves a host name to an address.
        tls_problem: returns why no TLS connection to a host can be made at an address.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        is_reachable: Callable[[str, int], bool] = network.is_reachable,
        resolves_to: Callable[[str, str], bool] = network.resolves_to,
        tls_problem: Callable[[str, str], str] = network.tls_problem,
    ) -> None:
        self._cluster = cluster
        self._is_reachable = is_reachable
        self._resolves_to = resolves_to
        self._tls_problem = tls_problem
        self._name = rendering.name
        self._env = rendering.env
        self._port = rendering.port
        self._last_message = ""

    def find(self, node_addresses: Callable[[], list[str]]) -> Endpoint:
        """Return the best endpoint now.

        Args:
            node_addresses: returns the addresses of the nodes that run replicas.
        """
        rejected: list[str] = []
        for description, endpoint in self._candidates(node_addresses):
            if endpoint is None:
                rejected.append(description)
                continue
            self._log_choice(description, rejected)
            return endpoint
        self._log_choice("the API server's proxy to the Service", rejected)
        return self._cluster.endpoint("Service", self._name, self._port)

    def _log_choice(self, description: str, rejected: list[str]) -> None:
        """Log the chosen endpoint and why the others were rejected, once for each choice."""
        message = f"{description} ({'; '.join(rejected)})" if rejected else description
        if message != self._last_message:
            log.info("route  %s", message)
        self._last_message = message

    def _candidates(
        self, node_addresses: Callable[[], list[str]]
    ) -> Iterator[tuple[str, Endpoint | None]]:
        """Yield each endpoint that the settings allow, or the reason why it cannot be used."""
        if self._env.host:
            yield self._at_ingress()
        service = self._cluster.find("Service", self._name) or {}
        if self._env.service == "LoadBalancer":
            yield self._at_load_balancer(service)
        ports = (
            port
            for port in service.get("spec", {}).get("ports") or []
            if port.get("port") == self._port
        )
        port = next((port["nodePort"] for port in ports if port.get("nodePort")), 0)
        if port:
            yield self._at_node(node_addresses(), port)

    def _at_ingress(self) -> tuple[str, Endpoint | None]:
        address = (
            _load_balancer_address(self._cluster.find("Ingress", self._name) or {})
            if self._cluster.serves("Ingress")
            else ""
        )
        host = self._env.host
        secure = bool(self._env.tls_secret)
        if not address:
            return f"no controller has given the Ingress of {host} an address", None
        if not self._is_reachable(address, 443 if secure else 80):
            return f"the Ingress's address {address} cannot be reached from here", None
        problem = self._tls_problem(host, address) if secure else ""
        if problem:
            return f"no secure connection to {host} can be made at {address}: {problem}", None
        scheme = "https" if secure else "http"
        authority = network.ca_bundle() if secure else ""
        if self._resolves_to(host, address):
            return f"Ingress {host}", Endpoint(f"{scheme}://{host}", ca_bundle=authority)
        # Another cluster may answer where DNS leads, so the address of this Ingress is used.
        return f"Ingress {host} at {address}, to which DNS does not resolve", Endpoint(
            f"{scheme}://{_in_url(address)}",
            {"Host": host},
            authority,
            server_name=host if secure else "",
        )

    def _at_load_balancer(self, service: Object) -> tuple[str, Endpoint | None]:
        address = _load_balancer_address(service)
        if not address:
            return "the load balancer has no address", None
        if not self._is_reachable(address, self._port):
            return f"the load balancer's address {address} cannot be reached from here", None
        port = "" if self._port == 80 else f":{self._port}"
        return f"load balancer {address}", Endpoint(f"http://{_in_url(address)}{port}")

    def _at_node(self, addresses: list[str], port: int) -> tuple[str, Endpoint | None]:
        for address in addresses:
            if self._is_reachable(address, port):
                endpoint = Endpoint(f"http://{_in_url(address)}:{port}")
                return f"node port {port} of {address}", endpoint
        if addresses:
            return f"node port {port} cannot be reached from here", None
        return "no node runs a replica yet", None


def _load_balancer_address(item: Any) -> str:  # noqa: ANN401 - JSON
    """Return the address that a controller wrote to the status of a Service or an Ingress."""
    entries = item.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    return str(entries[0].get("ip") or entries[0].get("hostname") or "")


def _in_url(host: str) -> str:
    """Return a host as a URL needs it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
