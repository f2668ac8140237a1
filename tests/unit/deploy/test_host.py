"""This machine: what can be asked of it without leaving it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from deploy.errors import PortTaken
from deploy.host import is_loopback, require_free


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
def test_a_registry_on_this_machine_is_told_from_others(host: str, expected: bool) -> None:  # noqa: FBT001  both
    """Only one on the loopback address can be started here."""
    assert is_loopback(host) is expected


def test_a_port_on_which_somebody_listens_is_taken(listener: socket.socket) -> None:
    """The port and the command that names the program are told."""
    port = listener.getsockname()[1]
    with pytest.raises(PortTaken) as caught:
        require_free("127.0.0.1", port)
    assert caught.value.on == f"127.0.0.1:{port}"
    assert f"sport = :{port}" in caught.value.next


def test_a_port_is_free_as_soon_as_nobody_listens(listener: socket.socket) -> None:
    """A door that was just closed can be opened again at once, and asking does not take the port."""
    port = listener.getsockname()[1]
    listener.close()
    require_free("127.0.0.1", port)
    require_free("127.0.0.1", port)
