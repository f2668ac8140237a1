"""The front door: the first way in that exists and can be reached from here."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from deploy.clients.http import Endpoint
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.endpoint import EndpointFinder, ca_bundle, is_reachable, resolves_to
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.renderings import rendering

HOST = "shop.example"
ADDRESS = "203.0.113.7"
NAME = "classifier-staging"
PROXY = f"http://fake/services/{NAME}:80"


class Place:
    """An environment whose Service and Ingress are there, seen from somewhere.

    Args:
        reach: hosts, or hosts with ports, that can be reached from there.
        known: host names from which the DNS leads to the Ingress.
        settings: of the environment.

    Attributes:
        insecure: why no TLS connection can be made.
    """

    def __init__(
        self, reach: tuple[str, ...] = (), known: tuple[str, ...] = (), **settings: Any
    ) -> None:
        self.insecure: dict[tuple[str, str], str] = {}
        self.cluster = FakeCluster()
        self._reach = reach
        self.rendering = rendering(**settings)
        self.tried: list[str] = []
        named = lambda host, address: host in known and address == ADDRESS  # noqa: E731 - two arguments of one call
        self.front = EndpointFinder(
            self.cluster,
            self.rendering,
            self._reaches,
            named,
            lambda *where: self.insecure.get(where, ""),
        )
        for item in (self.rendering.service("main", both=False), self.rendering.ingress()):
            if item:
                self.cluster.apply(item)

    def _reaches(self, host: str, port: int) -> bool:
        self.tried.append(f"{host}:{port}")
        return host in self._reach or f"{host}:{port}" in self._reach

    def gives(self, **status: Any) -> Place:
        """Has the controllers give Service and Ingress an address."""
        self.cluster.world.addresses |= {NAME: status.get("ip", "") or status.get("hostname", "")}
        self.cluster.step()
        return self

    def url(self, *hosts: str) -> str:
        """Where it is asked, with replicas on those nodes."""
        return self.front.find(lambda: list(hosts)).url

    @property
    def node_port(self) -> int:
        """The port that the Service has on every node."""
        service = self.cluster.objects.get("Service", NAME) or {}
        return int(service["spec"]["ports"][0]["nodePort"])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was told of the choice."""
    return [
        record.message.removeprefix("door   ")
        for record in caplog.records
        if record.message.startswith("door")
    ]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what is told, and names no authorities."""
    caplog.set_level(logging.INFO)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


# --- the host of the Ingress


def test_the_host_of_the_ingress_comes_first(caplog: pytest.LogCaptureFixture) -> None:
    """Where its controller can be reached, and its name is known."""
    place = Place((ADDRESS,), (HOST,), host=HOST, service="LoadBalancer").gives(ip=ADDRESS)
    assert place.url("192.0.2.1") == f"http://{HOST}"
    assert said(caplog) == [f"Ingress {HOST}"]


def test_a_host_with_a_certificate_is_asked_by_https() -> None:
    """And its controller is looked for at that port."""
    place = Place((f"{ADDRESS}:443",), (HOST,), host=HOST, tls_secret="shop-tls").gives(ip=ADDRESS)
    assert place.url() == f"https://{HOST}"
    assert place.tried == [f"{ADDRESS}:443"]


@pytest.mark.parametrize("known", [(), ("other.example",)])
def test_a_host_from_which_the_dns_does_not_lead_to_the_ingress_is_named_in_the_request(
    known: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """It may still lead to another cluster: the controller's own address is asked."""
    place = Place((ADDRESS,), known, host=HOST).gives(ip=ADDRESS)
    assert place.front.find(list) == Endpoint(f"http://{ADDRESS}", {"Host": HOST})
    assert said(caplog) == [f"Ingress {HOST} at {ADDRESS}, where the DNS does not lead"]


def test_such_a_host_has_its_certificate_checked_all_the_same() -> None:
    """It is asked for by its name, and has to show the certificate of that."""
    place = Place((ADDRESS,), host=HOST, tls_secret="shop-tls").gives(ip=ADDRESS)
    assert place.front.find(list) == Endpoint(
        f"https://{ADDRESS}", {"Host": HOST}, server_name=HOST
    )


@pytest.mark.parametrize("known", [(), (HOST,)])
def test_a_host_without_a_good_certificate_is_passed_over(
    known: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """It may be on its way: then there is another way, and the reason is told."""
    place = Place((ADDRESS,), known, host=HOST, tls_secret="shop-tls").gives(ip=ADDRESS)
    place.insecure[HOST, ADDRESS] = "self-signed certificate"
    assert place.url() == PROXY
    reason = f"no secure connection to {HOST} can be made at {ADDRESS}: self-signed certificate"
    assert said(caplog) == [f"the API server's proxy to the Service ({reason})"]
    place.insecure.clear()
    assert place.url().startswith("https://")


def test_without_a_certificate_none_is_asked_for() -> None:
    """Nor an authority for it."""
    place = Place((ADDRESS,), (HOST,), host=HOST).gives(ip=ADDRESS)
    place.insecure[HOST, ADDRESS] = "wrong version number"
    assert place.front.find(list) == Endpoint(f"http://{HOST}")


@pytest.mark.parametrize("known", [(), (HOST,)])
def test_the_certificate_of_a_host_is_checked_with_the_authorities_that_the_machine_names(
    known: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company may have one of its own."""
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/company.pem")
    secure = Place((ADDRESS,), known, host=HOST, tls_secret="shop-tls").gives(ip=ADDRESS)
    assert secure.front.find(list).authority == "/etc/company.pem"
    assert Place((ADDRESS,), known, host=HOST).gives(ip=ADDRESS).front.find(list).authority == ""


def test_the_authorities_are_those_of_requests_or_else_of_openssl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the variables of these; one that is empty names none."""
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/openssl.pem")
    assert ca_bundle() == "/etc/openssl.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/requests.pem")
    assert ca_bundle() == "/etc/requests.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert ca_bundle() == ""


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", f"no controller has given the Ingress of {HOST} an address"),
        (ADDRESS, f"the Ingress's address {ADDRESS} cannot be reached from here"),
    ],
)
def test_an_ingress_that_leads_nowhere_is_passed_over(
    address: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And that is told."""
    place = Place(known=(HOST,), host=HOST).gives(ip=address)
    assert place.url() == PROXY
    assert said(caplog) == [f"the API server's proxy to the Service ({why})"]


def test_an_ingress_that_is_not_served_is_passed_over() -> None:
    """The cluster is not even asked for it."""
    place = Place((ADDRESS,), (HOST,), host=HOST).gives(ip=ADDRESS)
    place.cluster.unserved.add("Ingress")
    assert place.url() == PROXY


# --- the load balancer


@pytest.mark.parametrize(
    ("given", "url"),
    [({"ip": ADDRESS}, f"http://{ADDRESS}"), ({"hostname": "lb.example"}, "http://lb.example")],
    ids=["address", "name"],
)
def test_the_load_balancer_is_asked_at_its_address(given: dict[str, str], url: str) -> None:
    """Or by its name, as the cloud gives it."""
    assert (
        Place((ADDRESS, "lb.example"), service="LoadBalancer").gives(**given).url("192.0.2.1")
        == url
    )


def test_an_address_of_the_new_kind_is_put_into_brackets() -> None:
    """As URLs want it (RFC 3986, section 3.2.2)."""
    place = Place(("2001:db8::7",), service="LoadBalancer")
    (place.cluster.objects.get("Service", NAME) or {})["status"] = {
        "loadBalancer": {"ingress": [{"ip": "2001:db8::7"}]}
    }
    assert place.url() == "http://[2001:db8::7]"


def test_a_load_balancer_that_is_not_there_yet_has_a_port_on_each_node_already(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Which may be reached from here."""
    place = Place(("192.0.2.2",), service="LoadBalancer")
    assert place.url("192.0.2.1", "192.0.2.2") == f"http://192.0.2.2:{place.node_port}"
    assert said(caplog) == [
        f"node port {place.node_port} of 192.0.2.2 (the load balancer has no address)"
    ]


def test_a_load_balancer_out_of_reach_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """One in a private network, for example."""
    place = Place(service="LoadBalancer").gives(ip=ADDRESS)
    assert place.url("192.0.2.1") == PROXY
    reasons = f"the load balancer's address {ADDRESS} cannot be reached from here; node port {place.node_port} cannot be reached from here"
    assert said(caplog) == [f"the API server's proxy to the Service ({reasons})"]


# --- the port of a node, and the proxy


def test_the_port_of_a_node_is_asked_where_replicas_run() -> None:
    """The first of them that can be reached."""
    place = Place(("192.0.2.2", "192.0.2.3"), service="NodePort")
    assert place.url("192.0.2.1", "192.0.2.2", "192.0.2.3") == f"http://192.0.2.2:{place.node_port}"
    assert place.tried == [f"192.0.2.1:{place.node_port}", f"192.0.2.2:{place.node_port}"]


def test_the_port_of_a_node_is_the_one_of_the_application() -> None:
    """A Service may have others beside it."""
    own = templates.read_templates(templates.DEFAULT_FOLDER)
    ports = [
        {"name": "admin", "port": 9000, "targetPort": 9000},
        {"name": "http", "port": 8000, "targetPort": "http"},
    ]
    own["Service"]["spec"]["ports"] = ports
    place = Place(("192.0.2.1",), service="NodePort")
    made = type(place.rendering)(place.rendering.app, "staging", place.rendering.env, own)
    service = place.cluster.apply(made.service("main", both=False))
    expected = next(port["nodePort"] for port in service["spec"]["ports"] if port["name"] == "http")
    front = EndpointFinder(place.cluster, made, lambda *_: True)
    assert front.find(lambda: ["192.0.2.1"]).url == f"http://192.0.2.1:{expected}"
    front = EndpointFinder(place.cluster, made, lambda *_: False)
    assert front.find(lambda: ["192.0.2.1"]).url == f"http://fake/services/{NAME}:8000"


def test_before_a_replica_runs_no_node_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Where it is going to run is not known."""
    place = Place(("192.0.2.1",), service="NodePort")
    assert place.url() == PROXY
    assert said(caplog) == ["the API server's proxy to the Service (no node runs a replica yet)"]


def test_whoever_has_access_to_the_api_server_has_a_way_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It needs nothing else; nodes are not looked for where the Service has no port on them."""

    def hosts() -> list[str]:
        pytest.fail("nobody asked for nodes")

    assert Place().front.find(hosts).url == PROXY
    assert said(caplog) == ["the API server's proxy to the Service"]


def test_before_a_service_is_there_the_way_is_known() -> None:
    """It leads to where the Service will be."""
    place = Place(service="NodePort")
    place.cluster.delete("Service", NAME)
    assert place.url("192.0.2.1") == PROXY


def test_a_choice_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """And again when it is another one."""
    place = Place((ADDRESS,), service="LoadBalancer")
    for _ in range(3):
        place.url()
    place.gives(ip=ADDRESS)
    for _ in range(3):
        place.url()
    assert [line.partition(" (")[0] for line in said(caplog)] == [
        "the API server's proxy to the Service",
        f"load balancer {ADDRESS}",
    ]


# --- what can be reached


def test_a_host_is_reached_if_somebody_accepts_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is wrong otherwise: refused, silent, unknown, or not a name at all."""
    asked: list[Any] = []

    def connect(address: Any, timeout: float) -> socket.socket:
        asked.append((address, timeout))
        if len(asked) > 1:
            raise [OSError(), TimeoutError(), socket.gaierror(), UnicodeError()][len(asked) - 2]
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    assert [is_reachable("shop.example", 80) for _ in range(5)] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert asked[0] == (("shop.example", 80), 2.0)


def test_the_dns_leads_to_an_address_that_is_among_those_of_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A load balancer may have a name itself, and both more addresses than one; what is not known leads nowhere."""
    addresses = {
        HOST: (ADDRESS, "2001:db8::7"),
        "lb.example": ("203.0.113.8", ADDRESS),
        ADDRESS: (ADDRESS,),
        "192.0.2.9": ("192.0.2.9",),
    }

    def look_up(host: str, _port: None) -> Any:
        if host == "..":
            raise UnicodeError
        if host not in addresses:
            raise socket.gaierror
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert resolves_to(HOST, ADDRESS)
    assert resolves_to(HOST, "lb.example")
    assert not any(resolves_to(HOST, address) for address in ("192.0.2.9", "absent.example", ".."))
    assert not any(resolves_to(host, ADDRESS) for host in ("192.0.2.9", "absent.example", ".."))
    assert not resolves_to("absent.example", "absent.example")
