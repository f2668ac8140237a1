"""Requests to an endpoint: where they go, what they carry, and which responses come back."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest
import requests

from deploy.clients.http import (
    Endpoint,
    HttpClient,
    NoResponse,
    Request,
    Response,
    SendOnce,
    leaves_its_folder,
    make_adapter,
    open_session,
    read_body,
    send,
)
from deploy.clients.timed import Deadline
from tests.fakes.endpoints import FakeReplica, MemoryEndpoint, endpoint_with, trickling_body

SECRET = "Bearer 5e1f"
URL = "https://cluster.example"


def test_credentials_are_not_shown() -> None:
    """Neither those of the server nor those of a proxy, wherever an endpoint is printed."""
    endpoint = Endpoint(URL, {"Authorization": SECRET}, proxy="http://ada:5e1f@proxy.example")
    assert "5e1f" not in repr(endpoint)
    assert "5e1f" not in str(endpoint)
    assert URL in repr(endpoint)


def test_headers_are_sent_with_every_request() -> None:
    """They are added to those that requests sends by default."""
    with Endpoint(URL, {"Authorization": SECRET}).open_session() as session:
        assert session.headers["Authorization"] == SECRET
        assert "User-Agent" in session.headers


@pytest.mark.parametrize(
    ("options", "verified"),
    [
        ({}, True),
        ({"ca_bundle": "/etc/ca.crt"}, "/etc/ca.crt"),
        ({"ca_bundle": "/etc/ca.crt", "unverified": True}, False),
    ],
)
def test_a_servers_certificate_is_verified(options: dict[str, Any], verified: object) -> None:
    """The usual authorities verify it, or a CA bundle, or none where the endpoint says so."""
    with Endpoint(URL, **options).open_session() as session:
        assert session.verify == verified


def test_a_client_certificate_is_sent_to_the_server() -> None:
    """Its key is used as well."""
    pair = ("/etc/me.crt", "/etc/me.key")
    with Endpoint(URL, client_certificate=pair).open_session() as session:
        assert session.cert == pair


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_settings_of_the_machine_do_not_apply(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies and certificates come from the endpoint alone."""
    monkeypatch.setenv("HTTPS_PROXY", "http://other.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/other.crt")
    with Endpoint(URL, proxy=proxy).open_session() as session:
        settings = session.merge_environment_settings(URL, {}, None, None, None)
    assert settings["proxies"].get("https", "") == proxy
    assert settings["verify"] is True


@pytest.mark.parametrize(
    ("environ", "verified"),
    [
        ({}, True),
        ({"SSL_CERT_FILE": "/etc/ssl.crt"}, "/etc/ssl.crt"),
        ({"REQUESTS_CA_BUNDLE": "/etc/requests.crt"}, "/etc/requests.crt"),
        (
            {"SSL_CERT_FILE": "/etc/ssl.crt", "REQUESTS_CA_BUNDLE": "/etc/requests.crt"},
            "/etc/requests.crt",
        ),
        ({"SSL_CERT_FILE": "/etc/ssl.crt", "CURL_CA_BUNDLE": "/etc/curl.crt"}, "/etc/curl.crt"),
    ],
)
def test_each_variable_of_the_machine_names_the_authorities(
    environ: dict[str, str], verified: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a session that takes no settings of the machine does not read them."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = []
    for trust_env in (True, False):
        with open_session(trust_env=trust_env) as session:
            settings = session.merge_environment_settings(URL, {}, None, None, None)
        found.append(settings["verify"])
    assert found == [verified, True]


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_a_server_may_have_another_name_than_its_address(proxy: str) -> None:
    """The certificate is verified for that name, also through an HTTP proxy."""
    with Endpoint("https://192.0.2.1", server_name="cluster.example").open_session() as session:
        mounted: Any = session.get_adapter("https://192.0.2.1")
        pools = mounted.proxy_manager_for(proxy) if proxy else mounted.poolmanager
        assert pools.connection_pool_kw["server_hostname"] == "cluster.example"


def test_a_servers_name_is_its_address_by_default() -> None:
    """The connection has no other name then."""
    with Endpoint(URL).open_session() as session:
        mounted: Any = session.get_adapter(URL)
        assert "server_hostname" not in mounted.poolmanager.connection_pool_kw


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_every_connection_is_made_with_the_options(proxy: str) -> None:
    """Direct connections have them, and those through an HTTP proxy."""
    found: Any = make_adapter(max_connections=3, blocksize=1 << 20)
    pools = found.proxy_manager_for(proxy) if proxy else found.poolmanager
    assert (pools.connection_pool_kw["blocksize"], pools.connection_pool_kw["maxsize"]) == (
        1 << 20,
        3,
    )
    pool = pools.connection_from_url("https://registry.example")
    assert pool.conn_kw["blocksize"] == 1 << 20


def test_connections_of_one_adapter_are_not_those_of_another() -> None:
    """Each adapter has only its own options."""
    make_adapter(server_hostname="cluster.example")
    found: Any = make_adapter(blocksize=1 << 20)
    assert "server_hostname" not in found.poolmanager.connection_pool_kw


# --- sending

REQUEST = Request("/score?a=b", 5.0, 100)


def test_a_request_is_sent_unchanged() -> None:
    """Its path is below the endpoint's, and it has the headers of both."""
    replica = FakeReplica(b"3", 201, {"Retry-After": "7"})
    request = Request("/score?a=b", 5.0, 100, "PUT", {"Content-Type": "image/png"}, b"\x89PNG")
    with HttpClient(
        MemoryEndpoint("http://replica/below", {"Authorization": SECRET}, replica=replica)
    ) as client:
        response = client.send(request)
    (sent,) = replica.requests
    assert (sent.method, sent.url, sent.body) == (
        "PUT",
        "http://replica/below/score?a=b",
        b"\x89PNG",
    )
    assert (sent.headers["Authorization"], sent.headers["Content-Type"]) == (SECRET, "image/png")
    assert (response.status, response.content, response.retry_after) == (201, b"3", "7")
    assert response.seconds > 0


def test_a_response_is_read_up_to_its_limit() -> None:
    """The rest of a longer body is not read."""
    with HttpClient(endpoint_with(b"x" * 1000)) as client:
        assert client.send(REQUEST).content == b"x" * 100


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (requests.ConnectionError(), "ConnectionError"),
        (requests.Timeout(), r"not complete after 5\.0 s"),
        (requests.ConnectionError(TimeoutError()), r"not complete after 5\.0 s"),
        (ConnectionResetError(), "ConnectionResetError"),
        (trickling_body([0.0], ConnectionResetError()), "ProtocolError"),
    ],
)
def test_a_missing_response_has_the_kind_of_its_failure(body: Any, kind: str) -> None:
    """It also has the time that it took, and the cause."""
    ticks = iter((10.0, 12.5, 15.0))
    with (
        HttpClient(endpoint_with(body), lambda: next(ticks)) as client,
        pytest.raises(NoResponse, match=f"^{kind}$") as caught,
    ):
        client.send(REQUEST)
    assert caught.value.seconds == 2.5
    assert caught.value.__cause__ is not None


def test_a_slow_body_ends_in_no_response() -> None:
    """Each byte arrives in time, but the whole body does not."""
    now = [0.0]
    with (
        HttpClient(endpoint_with(trickling_body(now)), lambda: now[0]) as client,
        pytest.raises(NoResponse, match="not complete after"),
    ):
        client.send(REQUEST)
    assert 5 < now[0] < 10


@pytest.mark.parametrize(
    ("failure", "refused"),
    [
        (requests.ConnectionError(ConnectionRefusedError(111, "Connection refused")), True),
        (requests.ConnectionError(ConnectionResetError(104, "Connection reset by peer")), False),
        (requests.ReadTimeout(), False),
    ],
)
def test_a_refused_connection_is_told_from_other_failures(
    failure: requests.RequestException, refused: bool
) -> None:
    """By it, a server that does not listen is distinguished from one that does not respond."""
    with pytest.raises(NoResponse) as caught:
        send(endpoint_with(failure), REQUEST)
    assert caught.value.refused is refused


def test_a_single_request_closes_its_connection() -> None:
    """It has the response, with where that leads."""
    endpoint = endpoint_with(b"", 301, Location="https://replica/ready/")
    response = send(endpoint, REQUEST)
    assert (response.status, response.location) == (301, "https://replica/ready/")
    assert endpoint.replica is not None
    assert endpoint.replica.closed


def test_redirects_are_followed_if_the_request_says_so() -> None:
    """Otherwise a redirect is the response."""
    with HttpClient(
        MemoryEndpoint("http://replica", replica=FakeReplica(b"3", 200, {}, at="/there"))
    ) as client:
        assert client.send(REQUEST).status == 307
        assert client.send(replace(REQUEST, follow_redirects=True)).content == b"3"


PROXY = f"{URL}/api/v1/namespaces/shop/services/web:80/proxy".replace("https", "http")


@pytest.mark.parametrize(
    "path",
    [
        "/../../secrets/registry",
        "/a/../../../secrets",
        "/%2e%2e/secrets",
        "/%252e%252E/secrets",
        "/..%2fsecrets",
        "/..\\secrets",
    ],
)
def test_a_path_that_leaves_the_endpoint_is_not_sent(path: str) -> None:
    """The endpoint's credentials may open other paths of the same server."""
    replica = FakeReplica(b"secret", 200, {})
    with (
        HttpClient(MemoryEndpoint(PROXY, replica=replica)) as client,
        pytest.raises(NoResponse, match="InvalidURL"),
    ):
        client.send(replace(REQUEST, path=path))
    assert leaves_its_folder(path)
    assert replica.requests == []


@pytest.mark.parametrize("path", ["/./score", "//other.example/score", "/score#../secrets"])
def test_a_path_that_a_server_may_read_in_another_way_is_refused(path: str) -> None:
    """A golden case has no use for it."""
    assert leaves_its_folder(path)


@pytest.mark.parametrize("path", ["/", "/score", "/a..b/.well-known", "/x?next=/../y", "/%41//b/"])
def test_other_paths_are_sent(path: str) -> None:
    """Dots in names, queries, encoded letters and repeated slashes lead nowhere else."""
    replica = FakeReplica(b"3", 200, {})
    with HttpClient(MemoryEndpoint(PROXY, replica=replica)) as client:
        assert client.send(replace(REQUEST, path=path)).content == b"3"
    assert not leaves_its_folder(path)


@pytest.mark.parametrize(
    "place",
    ["http://other.example/", "https://cluster.example/", "/api/v1/namespaces/shop/secrets", "../"],
)
def test_a_redirect_that_leaves_the_endpoint_is_not_followed(place: str) -> None:
    """An application must not choose what the endpoint's credentials open."""
    replica = FakeReplica(b"secret", 307, {"Location": place})
    with (
        HttpClient(MemoryEndpoint(PROXY, replica=replica)) as client,
        pytest.raises(NoResponse, match="InvalidURL"),
    ):
        client.send(replace(REQUEST, follow_redirects=True))
    assert len(replica.requests) == 1


def test_redirects_without_an_end_are_no_response() -> None:
    """Only a few are followed."""
    replica = FakeReplica(b"", 307, {"Location": f"{PROXY}/again"})
    with (
        HttpClient(MemoryEndpoint(PROXY, replica=replica)) as client,
        pytest.raises(NoResponse, match="TooManyRedirects"),
    ):
        client.send(replace(REQUEST, follow_redirects=True))
    assert len(replica.requests) < 10


class RenewingGateway:
    """A gateway that sends each request twice, with new credentials the second time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def forward(self, send: SendOnce, request: Request) -> Response:
        send(self._endpoint, request)
        return send(replace(self._endpoint, headers={"Authorization": "Bearer new"}), request)


def test_a_gateway_gets_the_credentials_that_it_requires() -> None:
    """Connections last as long as the credentials are the same, and end with the client."""
    replica = FakeReplica(b"3", 200, {})
    plain = MemoryEndpoint("http://replica", {"Authorization": SECRET}, replica=replica)
    with HttpClient(replace(plain, gateway=RenewingGateway(plain))) as client:
        client.send(REQUEST)
        assert replica.closed == 1
        client.send(REQUEST)
    assert [request.headers["Authorization"] for request in replica.requests] == [
        SECRET,
        "Bearer new",
    ] * 2
    assert replica.closed == 4


def test_endpoints_are_compared_without_their_gateway() -> None:
    """The gateway is not shown either."""
    plain = Endpoint(URL)
    behind = Endpoint(URL, gateway=RenewingGateway(plain))
    assert behind == plain
    assert repr(behind) == repr(plain)


@pytest.mark.parametrize("scheme", ["socks4a", "socks5", "socks5h"])
def test_a_request_goes_through_a_socks_proxy(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting to it ends at the deadline of the request as well."""
    near, far = socket.socketpair()
    made: list[tuple[tuple[str, int], dict[str, Any]]] = []

    def connect(address: tuple[str, int], **options: Any) -> socket.socket:
        made.append((address, options))
        return near

    monkeypatch.setattr("socks.create_connection", connect)
    endpoint = Endpoint("http://cluster.example", proxy=f"{scheme}://bastion.example:1080")
    far.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3")
    with near, far, HttpClient(endpoint, lambda: 100.0) as client:
        assert client.send(REQUEST).content == b"3"
        assert far.recv(1 << 16).startswith(b"GET /score?a=b HTTP/1.1\r\n")
    ((address, options),) = made
    assert address == ("cluster.example", 80)
    assert (options["proxy_addr"], options["proxy_port"]) == ("bastion.example", 1080)
    assert options["timeout"] == 5


@pytest.mark.parametrize("proxy", ["http://proxy.example:3128", "socks5://bastion.example:1080"])
def test_the_connections_to_a_proxy_are_kept(proxy: str) -> None:
    """All requests through it share their pools."""
    found: Any = make_adapter(deadline=Deadline(lambda: 0.0))
    first = found.proxy_manager_for(proxy)
    classes = first.pool_classes_by_scheme
    assert found.proxy_manager_for(proxy) is first
    assert first.pool_classes_by_scheme is classes


# --- bodies


class Pieces:
    """A response of urllib3 whose body arrives in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read1(self, amount: int, *, decode_content: bool) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        assert len(piece) <= amount
        return piece


def test_a_body_is_read_to_its_end() -> None:
    """It may arrive in any number of pieces."""
    assert read_body(Pieces(b"a", b"bc", b"d"), 100, 1.0, lambda: 0.0) == b"abcd"


def test_a_body_is_read_up_to_its_limit() -> None:
    """The bytes after that are not read."""
    assert read_body(Pieces(b"ab", b"cd", b"ef"), 4, 1.0, lambda: 0.0) == b"abcd"


def test_a_body_has_to_end_before_the_deadline() -> None:
    """Each piece arrives in time, and all of them together do not."""
    now = iter((0.5, 1.0, 1.5))
    with pytest.raises(TimeoutError):
        read_body(Pieces(b"a", b"b", b"c", b"d"), 100, 1.0, lambda: next(now))
