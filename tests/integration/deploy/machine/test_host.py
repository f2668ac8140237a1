"""This machine's network as a front door finds it: ports that only root may open, and addresses that nobody has."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.clients.oci.http import RetryPolicy
from deploy.errors import PortTaken, SettingsInvalid
from deploy.machine.host import registry_answers, require_free_port
from tests.integration.conftest import lacking

pytestmark = pytest.mark.integration

NOBODY = 65534
RESERVED = 1
"""A port of a service that nobody runs any more."""


@contextmanager
def nobody() -> Iterator[None]:
    """Takes the rights of root away for a while, from a test that has them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def reserved() -> None:
    """Ports that only root may open."""
    if (
        int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="utf-8"))
        <= RESERVED
    ):
        lacking(
            "every user may listen on every port here",
            "`sysctl net.ipv4.ip_unprivileged_port_start=1024` reserves the low ones",
        )


@pytest.mark.usefixtures("reserved")
def test_a_port_that_only_the_engine_may_open_is_free() -> None:
    """A front door on port 80 is opened by the engine, so its user need not be root; nobody is there yet."""
    with nobody():
        require_free_port("127.0.0.1", RESERVED)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen on such a port")
@pytest.mark.usefixtures("reserved")
def test_a_port_that_only_the_engine_may_open_can_be_taken() -> None:
    """Who cannot try to listen there finds out by asking who answers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", RESERVED))
        listener.listen()
        with nobody(), pytest.raises(PortTaken):
            require_free_port("127.0.0.1", RESERVED)


@pytest.mark.parametrize("address", ["300.1.1.1", "not an address"])
def test_what_is_no_address_is_not_called_a_taken_port(address: str) -> None:
    """A name that leads nowhere is a mistake in the settings."""
    with pytest.raises(SettingsInvalid):
        require_free_port(address, 0)


def test_who_takes_a_connection_and_says_nothing_is_no_registry() -> None:
    """It is not waited for as long as for a registry at work."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not registry_answers(
            f"127.0.0.1:{silent.getsockname()[1]}", RetryPolicy(connect=0.1, read=0.05)
        )


def test_a_registry_is_known_by_its_answer(registry_host: str) -> None:
    """And nobody is none."""
    assert registry_answers(registry_host)
    assert not registry_answers("127.0.0.1:1")
