"""The front door of an environment on a cluster: the first way in that exists and can be reached from here.

In this order: the host of the Ingress, the address of the load balancer, the port of a node, the API server's proxy to the
Service, which needs nothing but access to the API server.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from deploy.clients.cluster import Cluster, Object
from deploy.entrance import Entrance
from deploy.render import Rendering

log = logging.getLogger(__name__)

_PATIENCE = 2.0


def reachable(host: str, port: int) -> bool:
    """Whether somebody accepts a connection there."""
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE):
            return True
    except (OSError, UnicodeError):
        return False


def resolves(host: str) -> bool:
    """Whether the name has an address."""
    with suppress(OSError, UnicodeError):
        return bool(socket.getaddrinfo(host, None))
    return False


class Front:
    """The front door of one environment.

    Args:
        cluster: where it is.
        rendering: tells what its objects are called, and the settings.
        reach: tells whether a host and port can be reached from here.
        known: tells whether a host name can be resolved here.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        reach: Callable[[str, int], bool] = reachable,
        known: Callable[[str], bool] = resolves,
    ) -> None:
        self._cluster, self._reach, self._known = cluster, reach, known
        self._name, self._env, self._port = rendering.name, rendering.env, rendering.port
        self._said = ""

    def entrance(self, hosts: Callable[[], list[str]]) -> Entrance:
        """The best way in now.

        Args:
            hosts: gives the addresses of nodes that run replicas.
        """
        passed: list[str] = []
        for words, entrance in self._ways(hosts):
            if entrance is None:
                passed.append(words)
                continue
            self._say(words, passed)
            return entrance
        self._say("the API server's proxy to the Service", passed)
        return self._cluster.entrance("Service", self._name, self._port)

    def _say(self, words: str, passed: list[str]) -> None:
        """Says which way was chosen and why none before it, once for each choice."""
        said = f"{words} ({'; '.join(passed)})" if passed else words
        if said != self._said:
            log.info("door   %s", said)
        self._said = said

    def _ways(self, hosts: Callable[[], list[str]]) -> Iterator[tuple[str, Entrance | None]]:
        """Each way that the settings ask for, or why it cannot be taken."""
        service = self._cluster.find("Service", self._name) or {}
        if self._env.host:
            yield self._ingress()
        if self._env.service == "LoadBalancer":
            yield self._balancer(service)
        ports = (port for port in service.get("spec", {}).get("ports") or [] if port.get("port") == self._port)
        port = next((port["nodePort"] for port in ports if port.get("nodePort")), 0)
        if port:
            yield self._node(hosts(), port)

    def _ingress(self) -> tuple[str, Entrance | None]:
        address = _address(self._cluster.find("Ingress", self._name) or {}) if self._cluster.serves("Ingress") else ""
        scheme, port = ("https", 443) if self._env.tls_secret else ("http", 80)
        if not address:
            return f"no controller has given the Ingress of {self._env.host} an address", None
        if not self._reach(address, port):
            return f"the Ingress's address {address} cannot be reached from here", None
        if self._known(self._env.host):
            return f"Ingress {self._env.host}", Entrance(f"{scheme}://{self._env.host}")
        if self._env.tls_secret:
            return f"{self._env.host} has no address in the DNS yet", None
        return f"Ingress {self._env.host} at {address}, not in the DNS yet", Entrance(f"http://{_shown(address)}", {"Host": self._env.host})

    def _balancer(self, service: Object) -> tuple[str, Entrance | None]:
        address = _address(service)
        if not address:
            return "the load balancer has no address", None
        if not self._reach(address, self._port):
            return f"the load balancer's address {address} cannot be reached from here", None
        port = "" if self._port == 80 else f":{self._port}"
        return f"load balancer {address}", Entrance(f"http://{_shown(address)}{port}")

    def _node(self, hosts: list[str], port: int) -> tuple[str, Entrance | None]:
        for host in hosts:
            if self._reach(host, port):
                return f"node port {port} of {host}", Entrance(f"http://{_shown(host)}:{port}")
        return f"node port {port} cannot be reached from here" if hosts else "no node runs a replica yet", None


def _address(item: Any) -> str:  # noqa: ANN401  JSON
    """What a controller put into the status of a Service or an Ingress."""
    given = item.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    return str(given[0].get("ip") or given[0].get("hostname") or "")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
