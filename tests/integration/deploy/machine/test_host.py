"""This machine's network: ports that only root may open, addresses, and registries."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.clients.oci.http import RetryPolicy
from deploy.errors import PortTaken, SettingsInvalid
from deploy.machine.host import find_registry_problem, require_free_port
from tests.missing import lacking

pytestmark = pytest.mark.integration

UNPRIVILEGED = 65534
RESERVED = 1
"""A port of a service that is no longer in use."""


@contextmanager
def without_root() -> Iterator[None]:
    """Take the rights of root away from a test that has them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def reserved() -> None:
    """Require ports that only root may open."""
    if (
        int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="utf-8"))
        <= RESERVED
    ):
        lacking(
            "every user may listen on every port here",
            "`sysctl net.ipv4.ip_unprivileged_port_start=1024` reserves the low ones",
        )


@pytest.mark.usefixtures("reserved")
def test_an_unused_port_that_only_root_may_open_is_free() -> None:
    """The engine opens the port of the proxy, so that its user need not be root."""
    with without_root():
        require_free_port("127.0.0.1", RESERVED)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen on such a port: run as root")
@pytest.mark.usefixtures("reserved")
def test_a_used_port_that_only_root_may_open_is_taken() -> None:
    """A user who may not listen there finds out by a connection."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", RESERVED))
        listener.listen()
        with without_root(), pytest.raises(PortTaken):
            require_free_port("127.0.0.1", RESERVED)


@pytest.mark.parametrize("address", ["300.1.1.1", "not an address"])
def test_a_malformed_address_is_an_error_of_the_settings(address: str) -> None:
    """It is not a taken port."""
    with pytest.raises(SettingsInvalid):
        require_free_port(address, 0)


def test_a_silent_server_is_no_registry() -> None:
    """The wait for it is short."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert find_registry_problem(
            f"127.0.0.1:{silent.getsockname()[1]}", RetryPolicy(connect=0.1, read=0.05)
        )


def test_a_registry_answers(registry_host: str) -> None:
    """A closed port does not."""
    assert find_registry_problem(registry_host) is None
    assert find_registry_problem("127.0.0.1:1")
