"""Where requests are sent, and what is sent along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests

from deploy.clients.http import Endpoint, HttpClient, NoResponse, Request, Response, make_adapter
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
    """Beside those that requests send anyway."""
    with Endpoint(URL, {"Authorization": SECRET}).open_session() as session:
        assert session.headers["Authorization"] == SECRET
        assert "User-Agent" in session.headers


@pytest.mark.parametrize(
    ("told", "verified"),
    [
        ({}, True),
        ({"ca_bundle": "/etc/ca.crt"}, "/etc/ca.crt"),
        ({"ca_bundle": "/etc/ca.crt", "unverified": True}, False),
    ],
)
def test_a_server_is_known_by_its_certificate(told: dict[str, Any], verified: object) -> None:
    """By the usual authorities, by one of one's own, or by none if that is said."""
    with Endpoint(URL, **told).open_session() as session:
        assert session.verify == verified


def test_a_client_certificate_is_shown_to_the_server() -> None:
    """With its key."""
    with Endpoint(URL, client_certificate=("/etc/me.crt", "/etc/me.key")).open_session() as session:
        assert session.cert == ("/etc/me.crt", "/etc/me.key")


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_nothing_of_the_machine_is_taken(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its proxies and not its certificates: only what the endpoint says."""
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/elsewhere.crt")
    with Endpoint(URL, proxy=proxy).open_session() as session:
        settings = session.merge_environment_settings(URL, {}, None, None, None)
    assert settings["proxies"].get("https", "") == proxy
    assert settings["verify"] is True


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_a_server_may_have_another_name_than_its_address(proxy: str) -> None:
    """It is asked for by that name and its certificate checked for it, behind a proxy, too."""
    with Endpoint("https://192.0.2.1", server_name="cluster.example").open_session() as session:
        mounted: Any = session.get_adapter("https://192.0.2.1")
        pools = mounted.proxy_manager_for(proxy) if proxy else mounted.poolmanager
        assert pools.connection_pool_kw["server_hostname"] == "cluster.example"


def test_a_server_is_called_by_its_address_if_nothing_else_is_said() -> None:
    """As everywhere."""
    with Endpoint(URL).open_session() as session:
        mounted: Any = session.get_adapter(URL)
        assert "server_hostname" not in mounted.poolmanager.connection_pool_kw


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_every_connection_is_made_with_the_options(proxy: str) -> None:
    """To the server itself, and by way of a proxy."""
    found: Any = make_adapter(at_most=3, blocksize=1 << 20)
    pools = found.proxy_manager_for(proxy) if proxy else found.poolmanager
    assert (pools.connection_pool_kw["blocksize"], pools.connection_pool_kw["maxsize"]) == (
        1 << 20,
        3,
    )
    pool = pools.connection_from_url("https://registry.example")
    assert pool.conn_kw["blocksize"] == 1 << 20


def test_connections_of_one_adapter_are_not_those_of_another() -> None:
    """Each has the options that it was given, and no others."""
    make_adapter(server_hostname="cluster.example")
    found: Any = make_adapter(blocksize=1 << 20)
    assert "server_hostname" not in found.poolmanager.connection_pool_kw


# --- asking

ASKED = Request("/score?a=b", 5.0, 100)


def test_a_question_is_sent_as_it_is() -> None:
    """To the path below the endpoint, with the headers of both."""
    replica = FakeReplica(b"3", 201, {"Retry-After": "7"})
    question = Request("/score?a=b", 5.0, 100, "PUT", {"Content-Type": "image/png"}, b"\x89PNG")
    with HttpClient(
        MemoryEndpoint("http://replica/below", {"Authorization": SECRET}, replica=replica)
    ) as visit:
        reply = visit.send(question)
    (sent,) = replica.asked
    assert (sent.method, sent.url, sent.body) == (
        "PUT",
        "http://replica/below/score?a=b",
        b"\x89PNG",
    )
    assert (sent.headers["Authorization"], sent.headers["Content-Type"]) == (SECRET, "image/png")
    assert (reply.status, reply.content, reply.retry_after) == (201, b"3", "7")
    assert reply.seconds > 0


def test_no_more_of_an_answer_is_read_than_is_wanted() -> None:
    """Whatever it is."""
    with HttpClient(endpoint_with(b"x" * 1000)) as visit:
        assert visit.send(ASKED).content == b"x" * 100


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (requests.ConnectionError(), "ConnectionError"),
        (requests.Timeout(), "Timeout"),
        (ConnectionResetError(), "ConnectionResetError"),
        (trickling_body([0.0], ConnectionResetError()), "ProtocolError"),
    ],
)
def test_no_answer_is_told_by_its_kind(body: Any, kind: str) -> None:
    """With the time that it took, and the failure behind it."""
    ticks = iter((10.0, 12.5, 15.0))
    with (
        HttpClient(endpoint_with(body), lambda: next(ticks)) as visit,
        pytest.raises(NoResponse, match=f"^{kind}$") as caught,
    ):
        visit.send(ASKED)
    assert caught.value.seconds == 2.5
    assert caught.value.__cause__ is not None


def test_a_trickle_is_given_up() -> None:
    """Though each byte comes in time."""
    now = [0.0]
    with (
        HttpClient(endpoint_with(trickling_body(now)), lambda: now[0]) as visit,
        pytest.raises(NoResponse, match="TimeoutError"),
    ):
        visit.send(ASKED)
    assert 5 < now[0] < 10


def test_redirects_are_followed_where_that_is_said() -> None:
    """Otherwise they are an answer like any other."""
    with HttpClient(
        MemoryEndpoint("http://replica", replica=FakeReplica(b"3", 200, {}, at="/there"))
    ) as visit:
        assert visit.send(ASKED).status == 307
        assert visit.send(replace(ASKED, follow_redirects=True)).content == b"3"


class Renewing:
    """A gateway that asks twice, with other credentials the second time."""

    def __init__(self, again: Endpoint) -> None:
        self._again = again

    def forward(self, ask: Callable[[Endpoint, Request], Response], question: Request) -> Response:
        ask(self._again, question)
        return ask(replace(self._again, headers={"Authorization": "Bearer new"}), question)


def test_a_gateway_is_asked_with_the_credentials_that_it_wants_then() -> None:
    """Connections are kept as long as these are the same, and left when the visit ends."""
    replica = FakeReplica(b"3", 200, {})
    plain = MemoryEndpoint("http://replica", {"Authorization": SECRET}, replica=replica)
    with HttpClient(replace(plain, gateway=Renewing(plain))) as visit:
        visit.send(ASKED)
        assert replica.closed == 1
        visit.send(ASKED)
    assert [request.headers["Authorization"] for request in replica.asked] == [
        SECRET,
        "Bearer new",
    ] * 2
    assert replica.closed == 4


def test_the_gateway_makes_no_difference_to_where_an_entrance_is() -> None:
    """It is not shown, either."""
    plain = Endpoint(URL)
    behind = Endpoint(URL, gateway=Renewing(plain))
    assert behind == plain
    assert repr(behind) == repr(plain)
