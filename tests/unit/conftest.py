"""Guards of the unit tests: no network, no engine, no cluster, and no settings of the user."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from hypothesis import settings

# On a busy machine an example takes any time: nothing here measures it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_MOVE = (
    "a unit test must not: use a fake of tests/fakes/, "
    "or move the test to tests/integration/ and mark it `integration`"
)
_ENGINES = ("docker.sock", "podman.sock", "containerd.sock", "buildkitd.sock")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_NAMED = (
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    *_PROXIES,
)
_PREFIXES = ("DOCKER_", "TWINSHIP_", "AZURE_", "AWS_", "GOOGLE_")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Block connections to the outside, and give each test a home folder of its own."""
    _block_sockets(monkeypatch)
    for name in list(os.environ):
        if name.upper() in _NAMED or name.startswith(_PREFIXES):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TWINSHIP_HOME", str(home / "twinship"))


def _block_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect
    connect_ex = socket.socket.connect_ex
    sendto = socket.socket.sendto

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse(self, address)
        return connect_ex(self, address)

    def guarded_sendto(self: socket.socket, *arguments: Any) -> int:
        _refuse(self, arguments[-1])
        return sendto(self, *arguments)

    def no_lookup(host: Any, *_: Any, **__: Any) -> Any:
        pytest.fail(f"this looks up the address of {host!r}, which {_MOVE}")

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket.socket, "sendto", guarded_sendto)
    monkeypatch.setattr(socket, "getaddrinfo", no_lookup)


def _refuse(caller: socket.socket, address: Any) -> None:
    """Fail the test in a way that no `except Exception` of the code under test can catch."""
    if caller.family in (socket.AF_INET, socket.AF_INET6):
        pytest.fail(f"this connects to {address!r}, which {_MOVE}")
    path = os.path.realpath(os.fsdecode(address)) if isinstance(address, (str, bytes)) else ""
    if path.startswith("/run/") or path.endswith(_ENGINES):
        pytest.fail(f"this speaks to the container engine at {path}, which {_MOVE}")
