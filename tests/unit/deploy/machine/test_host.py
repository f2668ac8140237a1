"""This machine's network, clusters and cache folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.errors import ClusterUnknown, FileRefused, PortTaken, SettingsInvalid
from deploy.machine.host import (
    THIS_MACHINE,
    cache_folder,
    ensure_cache_folder,
    is_loopback,
    require_free_port,
)

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
    """Yield a program that listens on a port of the loopback address."""
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
def test_a_loopback_address_is_on_this_machine(host: str, expected: bool) -> None:
    """Only a registry there can be started here."""
    assert is_loopback(host) is expected


def test_a_port_on_which_a_program_listens_is_taken(listener: socket.socket) -> None:
    """The error has the port and the command that names the program."""
    port = listener.getsockname()[1]
    with pytest.raises(PortTaken) as caught:
        require_free_port("127.0.0.1", port)
    assert caught.value.on == f"127.0.0.1:{port}"
    assert f"sport = :{port}" in caught.value.next


@pytest.mark.parametrize("address", ["192.0.2.1", "x" * 70])
def test_an_address_of_another_machine_is_an_error_of_the_settings(address: str) -> None:
    """To stop another program would not help."""
    for port in (0, 8080):
        with pytest.raises(SettingsInvalid) as caught:
            require_free_port(address, port)
        assert caught.value.on == (f"{address}:{port}" if port else address)
        assert "ip -brief address" in caught.value.next


def test_a_port_above_65535_is_an_error_of_the_settings() -> None:
    """Ports end there."""
    with pytest.raises(SettingsInvalid, match="port must be 0-65535"):
        require_free_port("127.0.0.1", 65536)


def test_port_zero_checks_the_address_alone() -> None:
    """The address can be checked while its port is in use."""
    require_free_port("127.0.0.1", 0)
    require_free_port("0.0.0.0", 0)


def test_a_port_is_free_as_soon_as_its_program_closes_it(listener: socket.socket) -> None:
    """The check itself does not take the port."""
    port = listener.getsockname()[1]
    listener.close()
    require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    """Return the path of a kubeconfig with one context."""
    (tmp_path / "config").write_text(KUBECONFIG, encoding="utf-8")
    return str(tmp_path / "config")


@pytest.mark.parametrize("context", ["", "shop"])
def test_a_cluster_has_its_name_before_the_first_request(kubeconfig: str, context: str) -> None:
    """Without a named context it is that of the current one."""
    cluster = THIS_MACHINE.connect_cluster(kubeconfig, context, "live")
    assert (cluster.namespace, cluster.name) == ("live", "shop at https://api.example:6443")


def test_an_unknown_cluster_is_an_error(kubeconfig: str) -> None:
    """The kubeconfig or its context is missing."""
    for path, context in ((kubeconfig, "other"), (f"{kubeconfig}.absent", "")):
        with pytest.raises(ClusterUnknown):
            THIS_MACHINE.connect_cluster(path, context, "live")


def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TWINSHIP_HOME comes first, then the XDG folder, then the one in the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("TWINSHIP_HOME")
    assert cache_folder() == tmp_path / "caches" / "twinship"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "twinship"


def test_a_user_without_a_home_folder_has_to_name_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the two variables is enough."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert cache_folder() == Path(os.environ["TWINSHIP_HOME"])
    monkeypatch.delenv("TWINSHIP_HOME")
    with pytest.raises(SettingsInvalid) as caught:
        cache_folder()
    assert "TWINSHIP_HOME" in caught.value.next
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "twinship"


def test_a_cache_that_cannot_be_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home folder of a user in a container may be `/`."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(FileRefused) as caught:
        ensure_cache_folder()
    assert caught.value.on == str(tmp_path / "file" / "cache")
    assert "TWINSHIP_HOME" in caught.value.next
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "cache"))
    assert ensure_cache_folder().is_dir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FileRefused):
        ensure_cache_folder()
