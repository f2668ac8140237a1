"""The guards of the unit tests."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from deploy.machine.host import cache_folder

Failed = pytest.fail.Exception


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_network_socket_is_refused(
    family: socket.AddressFamily,
) -> None:
    """No unit test connects by network; the message says where such a test belongs."""
    with (
        socket.socket(family) as caller,
        pytest.raises(Failed, match="tests/integration/ and mark it `integration`"),
    ):
        caller.connect(("127.0.0.1", 9))


def test_the_other_ways_to_send_are_refused_as_well() -> None:
    """`connect_ex`, datagrams and lookups of names are refused, too."""
    with socket.socket() as caller, pytest.raises(Failed, match="connects to"):
        caller.connect_ex(("127.0.0.1", 9))
    with (
        socket.socket(type=socket.SOCK_DGRAM) as caller,
        pytest.raises(Failed, match="connects to"),
    ):
        caller.sendto(b"", ("127.0.0.1", 9))
    with pytest.raises(Failed, match="looks up the address of 'localhost'"):
        socket.create_connection(("localhost", 9))


@pytest.mark.parametrize(
    "path",
    [
        "/var/run/docker.sock",
        "/run/user/1000/podman/podman.sock",
        "/home/person/.docker/run/docker.sock",
    ],
)
def test_the_engine_is_refused_wherever_its_socket_is(path: str) -> None:
    """No unit test connects to a container engine."""
    with (
        socket.socket(socket.AF_UNIX) as caller,
        pytest.raises(Failed, match="speaks to the container engine"),
    ):
        caller.connect(path)


def test_the_refusal_is_not_swallowed_by_the_code_under_test() -> None:
    """Code that suppresses every exception does not suppress the guard."""
    with pytest.raises(Failed), contextlib.suppress(Exception), socket.socket() as caller:
        caller.connect(("127.0.0.1", 9))


def test_other_unix_sockets_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test can connect to a process that it starts, without a network."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as caller:
        server.bind("here")
        server.listen()
        caller.connect("here")
        caller.sendall(b"hello")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(5) == b"hello"


def test_nothing_of_the_user_is_left() -> None:
    """Home and cache are empty, and no variable names an engine, a cluster, a cloud or a proxy."""
    assert not list(Path.home().iterdir())
    assert cache_folder() == Path.home() / "twinship"
    found = [
        name
        for name in os.environ
        if name.upper().endswith("_PROXY") or name.startswith(("DOCKER_", "KUBE", "AZURE_"))
    ]
    assert not found
