"""The front door of an environment on a cluster: the first way in that exists and can be reached from here.

In this order: the host of the Ingress, the address of the load balancer, the port of a node, the API server's proxy to the
Service, which needs nothing but access to the API server.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.targets.kubernetes.render import Rendering

log = logging.getLogger(__name__)

_PATIENCE = 2.0


def is_reachable(host: str, port: int) -> bool:
    """Whether somebody accepts a connection there."""
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE):
            return True
    except (OSError, UnicodeError):
        return False


def resolves_to(host: str, address: str) -> bool:
    """Whether the DNS leads from a host name to an address, which may be a name itself."""
    return bool(_addresses(host) & _addresses(address))


def tls_problem(host: str, address: str, port: int = 443) -> str:
    """Why no TLS connection to that host can be made at an address; empty if one can."""
    import certifi
    import urllib3.util

    trusted = Path(ca_bundle() or certifi.where())
    # As golden cases have it: urllib3 may ask more of a certificate than Python does.
    context = urllib3.util.create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    try:
        context.load_verify_locations(**{"capath" if trusted.is_dir() else "cafile": str(trusted)})
    except OSError as error:
        return f"{trusted} cannot be used ({_why(error)})"
    try:
        with (
            socket.create_connection((address, port), timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except (OSError, UnicodeError) as error:
        return _why(error)


def _why(error: Exception) -> str:
    """What a certificate lacks, or what else is wrong, in the fewest words."""
    said = (getattr(error, name, None) for name in ("verify_message", "reason", "strerror"))
    return str(next(filter(None, said), type(error).__name__))


def ca_bundle() -> str:
    """The CA bundle that this machine names for the certificates of servers; empty if it names none."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or ""


def _addresses(host: str) -> frozenset[str]:
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return frozenset()


class EndpointFinder:
    """The front door of one environment.

    Args:
        cluster: where it is.
        rendering: tells what its objects are called, and the settings.
        reach: tells whether a host and port can be reached from here.
        leads: tells whether the DNS leads from a host name to an address.
        insecure: tells why no TLS connection to a host can be made at an address.
    """

    def __init__(
        self,
        cluster: Cluster,
        rendering: Rendering,
        reach: Callable[[str, int], bool] = is_reachable,
        resolves_to: Callable[[str, str], bool] = resolves_to,
        tls_problem: Callable[[str, str], str] = tls_problem,
    ) -> None:
        self._cluster = cluster
        self._reach = reach
        self._leads = resolves_to
        self._insecure = tls_problem
        self._name = rendering.name
        self._env = rendering.env
        self._port = rendering.port
        self._said = ""

    def find(self, hosts: Callable[[], list[str]]) -> Endpoint:
        """The best way in now.

        Args:
            hosts: gives the addresses of nodes that run replicas.
        """
        passed: list[str] = []
        for words, endpoint in self._ways(hosts):
            if endpoint is None:
                passed.append(words)
                continue
            self._say(words, passed)
            return endpoint
        self._say("the API server's proxy to the Service", passed)
        return self._cluster.endpoint("Service", self._name, self._port)

    def _say(self, words: str, passed: list[str]) -> None:
        """Says which way was chosen and why none before it, once for each choice."""
        said = f"{words} ({'; '.join(passed)})" if passed else words
        if said != self._said:
            log.info("door   %s", said)
        self._said = said

    def _ways(self, hosts: Callable[[], list[str]]) -> Iterator[tuple[str, Endpoint | None]]:
        """Each way that the settings ask for, or why it cannot be taken."""
        service = self._cluster.find("Service", self._name) or {}
        if self._env.host:
            yield self._ingress()
        if self._env.service == "LoadBalancer":
            yield self._balancer(service)
        ports = (
            port
            for port in service.get("spec", {}).get("ports") or []
            if port.get("port") == self._port
        )
        port = next((port["nodePort"] for port in ports if port.get("nodePort")), 0)
        if port:
            yield self._node(hosts(), port)

    def _ingress(self) -> tuple[str, Endpoint | None]:
        address = (
            _address(self._cluster.find("Ingress", self._name) or {})
            if self._cluster.serves("Ingress")
            else ""
        )
        host = self._env.host
        secure = bool(self._env.tls_secret)
        if not address:
            return f"no controller has given the Ingress of {host} an address", None
        if not self._reach(address, 443 if secure else 80):
            return f"the Ingress's address {address} cannot be reached from here", None
        why = self._insecure(host, address) if secure else ""
        if why:
            return f"no secure connection to {host} can be made at {address}: {why}", None
        scheme, trusted = ("https", ca_bundle()) if secure else ("http", "")
        if self._leads(host, address):
            return f"Ingress {host}", Endpoint(f"{scheme}://{host}", authority=trusted)
        # Whoever answers where the DNS leads, if it leads anywhere, is not known to be this cluster.
        words = f"Ingress {host} at {address}, where the DNS does not lead"
        return words, Endpoint(
            f"{scheme}://{_shown(address)}",
            {"Host": host},
            trusted,
            server_name=host if secure else "",
        )

    def _balancer(self, service: Object) -> tuple[str, Endpoint | None]:
        address = _address(service)
        if not address:
            return "the load balancer has no address", None
        if not self._reach(address, self._port):
            return f"the load balancer's address {address} cannot be reached from here", None
        port = "" if self._port == 80 else f":{self._port}"
        return f"load balancer {address}", Endpoint(f"http://{_shown(address)}{port}")

    def _node(self, hosts: list[str], port: int) -> tuple[str, Endpoint | None]:
        for host in hosts:
            if self._reach(host, port):
                return f"node port {port} of {host}", Endpoint(f"http://{_shown(host)}:{port}")
        return (
            f"node port {port} cannot be reached from here"
            if hosts
            else "no node runs a replica yet",
            None,
        )


def _address(item: Any) -> str:  # noqa: ANN401 - JSON
    """What a controller put into the status of a Service or an Ingress."""
    given = item.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    return str(given[0].get("ip") or given[0].get("hostname") or "")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
