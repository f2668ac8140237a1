"""The front door: the first way in that exists and can be reached from here."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from deploy import templates
from deploy.entrance import Entrance
from deploy.targets.front import Front, reachable, resolves
from tests.fakes.cluster import FakeCluster
from tests.fakes.renderings import rendering

HOST = "shop.example"
ADDRESS = "203.0.113.7"
NAME = "classifier-staging"
PROXY = f"http://fake/services/{NAME}:80"


class Place:
    """An environment whose Service and Ingress are there, seen from somewhere.

    Args:
        reach: hosts, or hosts with ports, that can be reached from there.
        known: host names that have an address there.
        settings: of the environment.
    """

    def __init__(self, reach: tuple[str, ...] = (), known: tuple[str, ...] = (), **settings: Any) -> None:
        self.cluster, self._reach = FakeCluster(), reach
        self.rendering = rendering(**settings)
        self.tried: list[str] = []
        self.front = Front(self.cluster, self.rendering, self._reaches, lambda host: host in known)
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
        return self.front.entrance(lambda: list(hosts)).url

    @property
    def node_port(self) -> int:
        """The port that the Service has on every node."""
        service = self.cluster.objects.get("Service", NAME) or {}
        return int(service["spec"]["ports"][0]["nodePort"])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was told of the choice."""
    return [record.message.removeprefix("door   ") for record in caplog.records if record.message.startswith("door")]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    """Keeps what is told."""
    caplog.set_level(logging.INFO)


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


def test_a_host_that_has_no_address_in_the_dns_yet_is_named_in_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """The controller's own address is asked."""
    place = Place((ADDRESS,), host=HOST).gives(ip=ADDRESS)
    assert place.front.entrance(list) == Entrance(f"http://{ADDRESS}", {"Host": HOST})
    assert said(caplog) == [f"Ingress {HOST} at {ADDRESS}, not in the DNS yet"]


def test_a_certificate_cannot_be_checked_for_a_name_that_is_not_known_yet(caplog: pytest.LogCaptureFixture) -> None:
    """Then there is another way."""
    place = Place((ADDRESS,), host=HOST, tls_secret="shop-tls").gives(ip=ADDRESS)
    assert place.url() == PROXY
    assert said(caplog) == [f"the API server's proxy to the Service ({HOST} has no address in the DNS yet)"]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", f"no controller has given the Ingress of {HOST} an address"),
        (ADDRESS, f"the Ingress's address {ADDRESS} cannot be reached from here"),
    ],
)
def test_an_ingress_that_leads_nowhere_is_passed_over(address: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
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
    ("given", "url"), [({"ip": ADDRESS}, f"http://{ADDRESS}"), ({"hostname": "lb.example"}, "http://lb.example")], ids=["address", "name"]
)
def test_the_load_balancer_is_asked_at_its_address(given: dict[str, str], url: str) -> None:
    """Or by its name, as the cloud gives it."""
    assert Place((ADDRESS, "lb.example"), service="LoadBalancer").gives(**given).url("192.0.2.1") == url


def test_an_address_of_the_new_kind_is_put_into_brackets() -> None:
    """As URLs want it (RFC 3986, section 3.2.2)."""
    place = Place(("2001:db8::7",), service="LoadBalancer")
    (place.cluster.objects.get("Service", NAME) or {})["status"] = {"loadBalancer": {"ingress": [{"ip": "2001:db8::7"}]}}
    assert place.url() == "http://[2001:db8::7]"


def test_a_load_balancer_that_is_not_there_yet_has_a_port_on_each_node_already(caplog: pytest.LogCaptureFixture) -> None:
    """Which may be reached from here."""
    place = Place(("192.0.2.2",), service="LoadBalancer")
    assert place.url("192.0.2.1", "192.0.2.2") == f"http://192.0.2.2:{place.node_port}"
    assert said(caplog) == [f"node port {place.node_port} of 192.0.2.2 (the load balancer has no address)"]


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
    own = templates.read(templates.OWN)
    ports = [{"name": "admin", "port": 9000, "targetPort": 9000}, {"name": "http", "port": 8000, "targetPort": "http"}]
    own["Service"]["spec"]["ports"] = ports
    place = Place(("192.0.2.1",), service="NodePort")
    made = type(place.rendering)(place.rendering.app, "staging", place.rendering.env, own)
    service = place.cluster.apply(made.service("main", both=False))
    expected = next(port["nodePort"] for port in service["spec"]["ports"] if port["name"] == "http")
    front = Front(place.cluster, made, lambda *_: True, lambda _: False)
    assert front.entrance(lambda: ["192.0.2.1"]).url == f"http://192.0.2.1:{expected}"
    front = Front(place.cluster, made, lambda *_: False, lambda _: False)
    assert front.entrance(lambda: ["192.0.2.1"]).url == f"http://fake/services/{NAME}:8000"


def test_before_a_replica_runs_no_node_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Where it is going to run is not known."""
    place = Place(("192.0.2.1",), service="NodePort")
    assert place.url() == PROXY
    assert said(caplog) == ["the API server's proxy to the Service (no node runs a replica yet)"]


def test_whoever_has_access_to_the_api_server_has_a_way_in(caplog: pytest.LogCaptureFixture) -> None:
    """It needs nothing else; nodes are not looked for where the Service has no port on them."""

    def hosts() -> list[str]:
        pytest.fail("nobody asked for nodes")

    assert Place().front.entrance(hosts).url == PROXY
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
    assert [line.partition(" (")[0] for line in said(caplog)] == ["the API server's proxy to the Service", f"load balancer {ADDRESS}"]


# --- what can be reached


def test_a_host_is_reached_if_somebody_accepts_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong otherwise: refused, silent, unknown, or not a name at all."""
    asked: list[Any] = []

    def connect(address: Any, timeout: float) -> socket.socket:
        asked.append((address, timeout))
        if len(asked) > 1:
            raise [OSError(), TimeoutError(), socket.gaierror(), UnicodeError()][len(asked) - 2]
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    assert [reachable("shop.example", 80) for _ in range(5)] == [True, False, False, False, False]
    assert asked[0] == (("shop.example", 80), 2.0)


def test_a_name_is_known_if_it_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the resolver, or of the name itself, says that it is not."""
    answers: list[Any] = [[("family",)], [], socket.gaierror(), UnicodeError()]

    def look_up(_host: str, _port: None) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert [resolves("shop.example") for _ in range(4)] == [True, False, False, False]
