"""Connections whose operations all end at one deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

from deploy.clients.timed import Deadline, TimedSocket, timed_pools


class Clock:
    """A clock that advances by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_deadline_says_how_much_time_is_left() -> None:
    """After it there is none, and before it is set as well."""
    deadline = Deadline(Clock())
    with pytest.raises(TimeoutError):
        deadline.remaining()
    deadline.set(5)
    assert [deadline.remaining() for _ in range(3)] == [3, 2, 1]
    with pytest.raises(TimeoutError):
        deadline.remaining()


def test_bytes_that_arrive_in_time_are_read(pair: tuple[socket.socket, socket.socket]) -> None:
    """The reader is that of a socket."""
    near, far = pair
    deadline = Deadline(time.monotonic)
    deadline.set(time.monotonic() + 60)
    far.sendall(b"one\ntwo")
    far.shutdown(socket.SHUT_WR)
    with TimedSocket(near, deadline).makefile("rb") as reader:
        assert reader.readline() == b"one\n"
        assert reader.read() == b"two"


def test_bytes_that_arrive_now_and_then_end_at_the_deadline(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Each of them arrives in time."""
    near, far = pair
    deadline = Deadline(Clock())
    deadline.set(4)
    with TimedSocket(near, deadline).makefile("rb") as reader:
        for _ in range(3):
            far.sendall(b"#")
            assert reader.read1(1) == b"#"
        far.sendall(b"#")
        with pytest.raises(TimeoutError):
            reader.read1(1)


def test_silence_ends_at_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """A read waits no longer."""
    near, _ = pair
    deadline = Deadline(time.monotonic)
    deadline.set(time.monotonic() + 0.05)
    with TimedSocket(near, deadline).makefile("rb") as reader, pytest.raises(TimeoutError):
        reader.read(1)


def test_a_request_that_is_not_read_ends_at_the_deadline(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Its body is larger than the buffers of the system."""
    near, _ = pair
    deadline = Deadline(time.monotonic)
    deadline.set(time.monotonic() + 0.05)
    with pytest.raises(TimeoutError):
        TimedSocket(near, deadline).sendall(bytes(10_000_000))


def test_a_request_is_sent_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    """It is sent in pieces."""
    near, far = pair
    deadline = Deadline(time.monotonic)
    deadline.set(time.monotonic() + 60)
    data = bytes(range(256)) * 128
    TimedSocket(near, deadline).sendall(data)
    near.shutdown(socket.SHUT_WR)
    with far.makefile("rb") as reader:
        assert reader.read() == data


def test_other_attributes_are_those_of_the_socket(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A connection pool asks for the descriptor of its sockets."""
    near, _ = pair
    assert TimedSocket(near, Deadline(Clock())).fileno() == near.fileno()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_connection_is_made_after_the_deadline(scheme: str) -> None:
    """An exchange of several requests has one deadline."""
    plain = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
    pool = timed_pools(Deadline(Clock()), plain)[scheme]("replica.example", 80)
    with pool, pytest.raises(TimeoutError):
        pool.ConnectionCls("replica.example").connect()
