"""Where requests are sent, and what is sent along."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.entrance import Entrance

SECRET = "Bearer 5e1f"
URL = "https://cluster.example"


def test_credentials_are_not_shown() -> None:
    """Neither those of the server nor those of a proxy, wherever an entrance is printed."""
    entrance = Entrance(URL, {"Authorization": SECRET}, proxy="http://ada:5e1f@proxy.example")
    assert "5e1f" not in repr(entrance)
    assert "5e1f" not in str(entrance)
    assert URL in repr(entrance)


def test_headers_are_sent_with_every_request() -> None:
    """Beside those that requests send anyway."""
    with Entrance(URL, {"Authorization": SECRET}).session() as session:
        assert session.headers["Authorization"] == SECRET
        assert "User-Agent" in session.headers


@pytest.mark.parametrize(
    ("told", "verified"),
    [({}, True), ({"authority": "/etc/ca.crt"}, "/etc/ca.crt"), ({"authority": "/etc/ca.crt", "unverified": True}, False)],
)
def test_a_server_is_known_by_its_certificate(told: dict[str, Any], verified: object) -> None:
    """By the usual authorities, by one of one's own, or by none if that is said."""
    with Entrance(URL, **told).session() as session:
        assert session.verify == verified


def test_a_client_certificate_is_shown_to_the_server() -> None:
    """With its key."""
    with Entrance(URL, certificate=("/etc/me.crt", "/etc/me.key")).session() as session:
        assert session.cert == ("/etc/me.crt", "/etc/me.key")


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_nothing_of_the_machine_is_taken(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its proxies and not its certificates: only what the entrance says."""
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/elsewhere.crt")
    with Entrance(URL, proxy=proxy).session() as session:
        settings = session.merge_environment_settings(URL, {}, None, None, None)
    assert settings["proxies"].get("https", "") == proxy
    assert settings["verify"] is True


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
def test_a_server_may_have_another_name_than_its_address(proxy: str) -> None:
    """It is asked for by that name and its certificate checked for it, behind a proxy, too."""
    with Entrance("https://192.0.2.1", server_name="cluster.example").session() as session:
        adapter: Any = session.get_adapter("https://192.0.2.1")
        pools = adapter.proxy_manager_for(proxy) if proxy else adapter.poolmanager
        assert pools.connection_pool_kw["server_hostname"] == "cluster.example"


def test_a_server_is_called_by_its_address_if_nothing_else_is_said() -> None:
    """As everywhere."""
    with Entrance(URL).session() as session:
        adapter: Any = session.get_adapter(URL)
        assert "server_hostname" not in adapter.poolmanager.connection_pool_kw
