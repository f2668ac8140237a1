"""What this machine reaches, with sockets and DNS replaced."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from deploy.clients.network import (
    ca_bundle,
    has_private_address,
    is_reachable,
    is_taken,
    resolves_to,
)

HOST = "shop.example"
ADDRESS = "203.0.113.7"


def test_a_host_is_reachable_if_a_server_accepts_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refused connection, a timeout, and an unknown or invalid name all mean no."""
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


def test_a_port_is_taken_while_a_program_has_it() -> None:
    """A program may reserve a port before it listens there."""
    with socket.socket() as program:
        program.bind(("127.0.0.1", 0))
        port = program.getsockname()[1]
        assert is_taken("127.0.0.1", port)
        program.listen()
        assert is_taken("127.0.0.1", port)
    assert not is_taken("127.0.0.1", port)


def test_a_name_resolves_to_an_address_that_dns_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both names may have several addresses; a name that DNS does not know resolves to nothing."""
    addresses = {
        HOST: (ADDRESS, "2001:db8::7"),
        "lb.example": ("203.0.113.8", ADDRESS),
        ADDRESS: (ADDRESS,),
        "192.0.2.9": ("192.0.2.9",),
    }

    def resolve(host: str, _port: None) -> Any:
        if host == "..":
            raise UnicodeError
        if host not in addresses:
            raise socket.gaierror
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert resolves_to(HOST, ADDRESS)
    assert resolves_to(HOST, "lb.example")
    assert not any(resolves_to(HOST, address) for address in ("192.0.2.9", "absent.example", ".."))
    assert not any(resolves_to(host, ADDRESS) for host in ("192.0.2.9", "absent.example", ".."))
    assert not resolves_to("absent.example", "absent.example")


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["10.1.0.4"], True),
        (["192.168.0.1", "fd00::4"], True),
        (["10.1.0.4", "20.1.0.4"], False),
        (["20.1.0.4"], False),
        ([], False),
    ],
)
def test_a_private_address_is_one_that_no_other_network_reaches(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], expected: bool
) -> None:
    """All addresses of a name have to be so; one that DNS does not know has none."""

    def resolve(_host: str, _port: None) -> Any:
        if not addresses:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert has_private_address(HOST) is expected


def test_the_ca_bundle_of_requests_comes_before_that_of_openssl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty variable names no bundle."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/openssl.pem")
    assert ca_bundle() == "/etc/openssl.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/requests.pem")
    assert ca_bundle() == "/etc/requests.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert ca_bundle() == ""
