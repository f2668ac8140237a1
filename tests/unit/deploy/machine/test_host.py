"""This machine: what can be asked of it without leaving it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.errors import ClusterUnknown, PortTaken, SettingsInvalid
from deploy.machine.host import THIS_MACHINE, cache_folder, is_loopback, require_free_port

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: shop
clusters: [{name: far, cluster: {server: "https://api.example:6443"}}]
users: [{name: ada, user: {token: secret}}]
contexts: [{name: shop, context: {cluster: far, user: ada}}]
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A program that listens on a port of the loopback address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("registry.example", False),
        ("registry.example:5000", False),
        ("10.0.0.1:80", False),
    ],
)
def test_a_registry_on_this_machine_is_told_from_others(host: str, expected: bool) -> None:
    """Only one on the loopback address can be started here."""
    assert is_loopback(host) is expected


def test_a_port_on_which_somebody_listens_is_taken(listener: socket.socket) -> None:
    """The port and the command that names the program are told."""
    port = listener.getsockname()[1]
    with pytest.raises(PortTaken) as caught:
        require_free_port("127.0.0.1", port)
    assert caught.value.on == f"127.0.0.1:{port}"
    assert f"sport = :{port}" in caught.value.next


@pytest.mark.parametrize("address", ["192.0.2.1", "x" * 70])
def test_an_address_that_is_not_this_machines_is_not_called_a_taken_port(address: str) -> None:
    """Stopping another program would not help; the settings are what is wrong."""
    for port in (0, 8080):
        with pytest.raises(SettingsInvalid) as caught:
            require_free_port(address, port)
        assert caught.value.on == (f"{address}:{port}" if port else address)
        assert "ip -brief address" in caught.value.next


def test_a_port_that_there_is_not_is_said() -> None:
    """Ports end at 65535."""
    with pytest.raises(SettingsInvalid, match="port must be 0-65535"):
        require_free_port("127.0.0.1", 65536)


def test_port_zero_asks_for_the_address_alone() -> None:
    """Whoever has the port already may ask whether a door could listen on another address."""
    require_free_port("127.0.0.1", 0)
    require_free_port("0.0.0.0", 0)


def test_a_port_is_free_as_soon_as_nobody_listens(listener: socket.socket) -> None:
    """A door that was just closed can be opened again at once, and asking does not take the port."""
    port = listener.getsockname()[1]
    listener.close()
    require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    """The path of a kubeconfig with one context."""
    (tmp_path / "config").write_text(KUBECONFIG, encoding="utf-8")
    return str(tmp_path / "config")


@pytest.mark.parametrize("context", ["", "shop"])
def test_a_cluster_is_known_before_it_is_asked(kubeconfig: str, context: str) -> None:
    """By the current context where none is named, in the namespace of the environment."""
    found = THIS_MACHINE.connect_cluster(kubeconfig, context, "live")
    assert (found.namespace, found.name) == ("live", "shop at https://api.example:6443")


def test_a_cluster_that_nobody_knows_is_said(kubeconfig: str) -> None:
    """Whether the kubeconfig or its context is missing."""
    for path, context in ((kubeconfig, "elsewhere"), (f"{kubeconfig}.absent", "")):
        with pytest.raises(ClusterUnknown):
            THIS_MACHINE.connect_cluster(path, context, "live")


def test_the_cache_is_where_it_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TWINSHIP_HOME first, then the place for caches, then the one below the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("TWINSHIP_HOME")
    assert cache_folder() == tmp_path / "caches" / "twinship"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "twinship"
