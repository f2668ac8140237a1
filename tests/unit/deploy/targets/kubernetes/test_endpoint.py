"""The endpoint of an environment: the first address that exists and is reachable from here."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deploy.clients.http import Endpoint
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.endpoint import EndpointFinder
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.renderings import rendering

HOST = "shop.example"
ADDRESS = "203.0.113.7"
NAME = "classifier-staging"
PROXY = f"http://fake/services/{NAME}:80"


class Environment:
    """An environment with a Service and an Ingress, as one machine reaches it.

    Args:
        reachable: hosts, or hosts with ports, that the machine can reach.
        resolved: host names that DNS resolves to the Ingress.
        settings: the settings of the environment.

    Attributes:
        tls_problems: why no TLS connection can be made, by host and address.
        tried: the hosts with ports that the finder tried to reach.
    """

    def __init__(
        self, reachable: tuple[str, ...] = (), resolved: tuple[str, ...] = (), **settings: Any
    ) -> None:
        self.tls_problems: dict[tuple[str, str], str] = {}
        self.cluster = FakeCluster()
        self._reachable = reachable
        self.rendering = rendering(**settings)
        self.tried: list[str] = []
        self.finder = EndpointFinder(
            self.cluster,
            self.rendering,
            self._is_reachable,
            lambda host, address: host in resolved and address == ADDRESS,
            lambda host, address: self.tls_problems.get((host, address), ""),
        )
        for item in (self.rendering.service("main", both=False), self.rendering.ingress()):
            if item:
                self.cluster.apply(item)

    def _is_reachable(self, host: str, port: int) -> bool:
        self.tried.append(f"{host}:{port}")
        return host in self._reachable or f"{host}:{port}" in self._reachable

    def assign_address(self, **status: Any) -> Environment:
        """Let the controllers give the Service and the Ingress an address; return self."""
        self.cluster.world.addresses |= {NAME: status.get("ip", "") or status.get("hostname", "")}
        self.cluster.step()
        return self

    def url(self, *node_addresses: str) -> str:
        """Return the URL of the endpoint, with replicas on those nodes."""
        return self.finder.find(lambda: list(node_addresses)).url

    @property
    def node_port(self) -> int:
        """The port that the Service has on every node."""
        service = self.cluster.objects.get("Service", NAME) or {}
        return int(service["spec"]["ports"][0]["nodePort"])


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log messages about the choice."""
    return [
        record.message.removeprefix("route  ")
        for record in caplog.records
        if record.message.startswith("route")
    ]


@pytest.fixture(autouse=True)
def defaults(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record log messages, and remove the variables that name a CA bundle."""
    caplog.set_level(logging.INFO)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


# --- the host of the Ingress


def test_the_host_of_the_ingress_comes_first(caplog: pytest.LogCaptureFixture) -> None:
    """If its controller is reachable and DNS resolves its name."""
    environment = Environment(
        (ADDRESS,), (HOST,), host=HOST, service="LoadBalancer"
    ).assign_address(ip=ADDRESS)
    assert environment.url("192.0.2.1") == f"http://{HOST}"
    assert messages(caplog) == [f"Ingress {HOST}"]


def test_a_host_with_a_tls_secret_is_requested_by_https() -> None:
    """The controller must be reachable at that port."""
    environment = Environment(
        (f"{ADDRESS}:443",), (HOST,), host=HOST, tls_secret="shop-tls"
    ).assign_address(ip=ADDRESS)
    assert environment.url() == f"https://{HOST}"
    assert environment.tried == [f"{ADDRESS}:443"]


@pytest.mark.parametrize("resolved", [(), ("other.example",)])
def test_a_host_that_dns_does_not_resolve_to_the_ingress_is_sent_as_a_header(
    resolved: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """DNS may still lead to another cluster, so requests go to the address of the controller."""
    environment = Environment((ADDRESS,), resolved, host=HOST).assign_address(ip=ADDRESS)
    assert environment.finder.find(list) == Endpoint(f"http://{ADDRESS}", {"Host": HOST})
    assert messages(caplog) == [f"Ingress {HOST} at {ADDRESS}, to which DNS does not resolve"]


def test_the_certificate_is_checked_for_the_host_when_the_url_has_an_address() -> None:
    """The name is sent in the handshake."""
    environment = Environment((ADDRESS,), host=HOST, tls_secret="shop-tls").assign_address(
        ip=ADDRESS
    )
    assert environment.finder.find(list) == Endpoint(
        f"https://{ADDRESS}", {"Host": HOST}, server_name=HOST
    )


@pytest.mark.parametrize("resolved", [(), (HOST,)])
def test_a_host_without_a_valid_certificate_is_skipped(
    resolved: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate may not have been issued yet; the reason is logged."""
    environment = Environment(
        (ADDRESS,), resolved, host=HOST, tls_secret="shop-tls"
    ).assign_address(ip=ADDRESS)
    environment.tls_problems[HOST, ADDRESS] = "self-signed certificate"
    assert environment.url() == PROXY
    reason = f"no secure connection to {HOST} can be made at {ADDRESS}: self-signed certificate"
    assert messages(caplog) == [f"the API server's proxy to the Service ({reason})"]
    environment.tls_problems.clear()
    assert environment.url().startswith("https://")


def test_without_a_tls_secret_no_certificate_is_checked() -> None:
    """The endpoint names no CA bundle either."""
    environment = Environment((ADDRESS,), (HOST,), host=HOST).assign_address(ip=ADDRESS)
    environment.tls_problems[HOST, ADDRESS] = "wrong version number"
    assert environment.finder.find(list) == Endpoint(f"http://{HOST}")


@pytest.mark.parametrize("resolved", [(), (HOST,)])
def test_the_certificate_is_checked_with_the_ca_bundle_of_the_machine(
    resolved: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company may have an authority of its own."""
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/company.pem")
    secure = Environment((ADDRESS,), resolved, host=HOST, tls_secret="shop-tls").assign_address(
        ip=ADDRESS
    )
    assert secure.finder.find(list).ca_bundle == "/etc/company.pem"
    assert (
        Environment((ADDRESS,), resolved, host=HOST)
        .assign_address(ip=ADDRESS)
        .finder.find(list)
        .ca_bundle
        == ""
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", f"no controller has given the Ingress of {HOST} an address"),
        (ADDRESS, f"the Ingress's address {ADDRESS} cannot be reached from here"),
    ],
)
def test_an_ingress_without_a_reachable_address_is_skipped(
    address: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged."""
    environment = Environment(resolved=(HOST,), host=HOST).assign_address(ip=address)
    assert environment.url() == PROXY
    assert messages(caplog) == [f"the API server's proxy to the Service ({why})"]


def test_an_ingress_that_the_cluster_does_not_serve_is_skipped() -> None:
    """The cluster is not even asked for it."""
    environment = Environment((ADDRESS,), (HOST,), host=HOST).assign_address(ip=ADDRESS)
    environment.cluster.unserved.add("Ingress")
    assert environment.url() == PROXY


# --- the load balancer


@pytest.mark.parametrize(
    ("given", "url"),
    [({"ip": ADDRESS}, f"http://{ADDRESS}"), ({"hostname": "lb.example"}, "http://lb.example")],
    ids=["address", "name"],
)
def test_the_load_balancer_is_requested_at_its_address(given: dict[str, str], url: str) -> None:
    """Some clouds give a name instead."""
    assert (
        Environment((ADDRESS, "lb.example"), service="LoadBalancer")
        .assign_address(**given)
        .url("192.0.2.1")
        == url
    )


def test_an_ipv6_address_is_put_in_brackets() -> None:
    """URLs require that (RFC 3986, section 3.2.2)."""
    environment = Environment(("2001:db8::7",), service="LoadBalancer")
    (environment.cluster.objects.get("Service", NAME) or {})["status"] = {
        "loadBalancer": {"ingress": [{"ip": "2001:db8::7"}]}
    }
    assert environment.url() == "http://[2001:db8::7]"


def test_before_a_load_balancer_has_an_address_the_port_of_a_node_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Kubernetes opens a port on each node for such a Service."""
    environment = Environment(("192.0.2.2",), service="LoadBalancer")
    assert environment.url("192.0.2.1", "192.0.2.2") == f"http://192.0.2.2:{environment.node_port}"
    assert messages(caplog) == [
        f"node port {environment.node_port} of 192.0.2.2 (the load balancer has no address)"
    ]


def test_an_unreachable_load_balancer_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    """It may be in a private network."""
    environment = Environment(service="LoadBalancer").assign_address(ip=ADDRESS)
    assert environment.url("192.0.2.1") == PROXY
    reasons = (
        f"the load balancer's address {ADDRESS} cannot be reached from here; "
        f"node port {environment.node_port} cannot be reached from here"
    )
    assert messages(caplog) == [f"the API server's proxy to the Service ({reasons})"]


# --- the port of a node, and the API server's proxy


def test_the_port_of_the_first_reachable_node_with_a_replica_is_used() -> None:
    """Nodes are tried in order."""
    environment = Environment(("192.0.2.2", "192.0.2.3"), service="NodePort")
    assert (
        environment.url("192.0.2.1", "192.0.2.2", "192.0.2.3")
        == f"http://192.0.2.2:{environment.node_port}"
    )
    assert environment.tried == [
        f"192.0.2.1:{environment.node_port}",
        f"192.0.2.2:{environment.node_port}",
    ]


def test_the_node_port_is_the_one_of_the_application() -> None:
    """A Service may have other ports."""
    object_templates = templates.read_templates(templates.DEFAULT_FOLDER)
    ports = [
        {"name": "admin", "port": 9000, "targetPort": 9000},
        {"name": "http", "port": 8000, "targetPort": "http"},
    ]
    object_templates["Service"]["spec"]["ports"] = ports
    environment = Environment(("192.0.2.1",), service="NodePort")
    rendering_ = type(environment.rendering)(
        environment.rendering.app, "staging", environment.rendering.env, object_templates
    )
    service = environment.cluster.apply(rendering_.service("main", both=False))
    expected = next(port["nodePort"] for port in service["spec"]["ports"] if port["name"] == "http")
    finder = EndpointFinder(environment.cluster, rendering_, lambda *_: True)
    assert finder.find(lambda: ["192.0.2.1"]).url == f"http://192.0.2.1:{expected}"
    finder = EndpointFinder(environment.cluster, rendering_, lambda *_: False)
    assert finder.find(lambda: ["192.0.2.1"]).url == f"http://fake/services/{NAME}:8000"


def test_before_a_replica_runs_no_node_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    """It is not known which node will run one."""
    environment = Environment(("192.0.2.1",), service="NodePort")
    assert environment.url() == PROXY
    assert messages(caplog) == [
        "the API server's proxy to the Service (no node runs a replica yet)"
    ]


def test_the_api_servers_proxy_is_the_last_choice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It needs only the API server; nodes are not listed if the Service has no node port."""

    def node_addresses() -> list[str]:
        pytest.fail("the nodes are not needed")

    assert Environment().finder.find(node_addresses).url == PROXY
    assert messages(caplog) == ["the API server's proxy to the Service"]


def test_before_the_service_exists_the_proxy_is_the_endpoint() -> None:
    """The URL is the one that the Service will have."""
    environment = Environment(service="NodePort")
    environment.cluster.delete("Service", NAME)
    assert environment.url("192.0.2.1") == PROXY


def test_a_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Another choice is logged again."""
    environment = Environment((ADDRESS,), service="LoadBalancer")
    for _ in range(3):
        environment.url()
    environment.assign_address(ip=ADDRESS)
    for _ in range(3):
        environment.url()
    assert [line.partition(" (")[0] for line in messages(caplog)] == [
        "the API server's proxy to the Service",
        f"load balancer {ADDRESS}",
    ]
