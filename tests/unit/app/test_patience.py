from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.patience import Patience, Room

READING = socket.SHUT_RD


class Clock:
    """A clock that stands until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock by which patience ends."""
    return Clock()


@pytest.fixture
def patience(clock: Clock) -> Patience:
    """Patience of 20 seconds."""
    return Patience(20.0, clock)


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connections: ours and the client's end."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(9)]
        for ours, theirs in made:
            stack.enter_context(ours).settimeout(0)
            stack.enter_context(theirs)
        yield made


def ended(ours: socket.socket) -> bool:
    """Whether reading sees the end of the stream."""
    try:
        return ours.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_client_has_its_time(
    patience: Patience, clock: Clock, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    """Until the time is over it is waited for, then it can send no more, and can still be answered."""
    (ours, theirs), *_ = pairs
    patience.begin(1, ours, READING)
    clock.now += 20.0
    patience.enforce()
    assert not ended(ours)
    clock.now += 0.1
    patience.enforce()
    assert ended(ours)
    ours.sendall(b"late")
    assert theirs.recv(10) == b"late"


def test_one_that_takes_no_answer_is_shut_both_ways(
    patience: Patience, clock: Clock, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    """A thread that waits to write sees that nobody reads."""
    (ours, _), *_ = pairs
    patience.begin(1, ours, socket.SHUT_RDWR)
    clock.now += 21.0
    patience.enforce()
    with pytest.raises(BrokenPipeError):
        ours.sendall(b"x")


def test_what_has_come_is_not_waited_for(
    patience: Patience, clock: Clock, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    """A request that is whole may take as long as it takes."""
    patience.begin(1, pairs[0][0], READING)
    patience.end(1)
    patience.end(1)
    patience.moved(1, 5)
    clock.now += 1000.0
    patience.enforce()
    assert not ended(pairs[0][0])


def test_in_a_crowd_those_that_stand_still_are_cut_off(
    patience: Patience, clock: Clock, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    """Nine at once: who keeps to the rate from moment to moment stays, whatever was sent before; who does not goes."""
    for key, (ours, _) in enumerate(pairs):
        patience.begin(key, ours, READING)
        patience.moved(key, 10_000_000 if key else 66_000)
    clock.now += 0.9
    patience.enforce()
    clock.now += 0.1
    patience.enforce()
    assert not any(ended(ours) for ours, _ in pairs)
    patience.moved(0, 66_000)
    clock.now += 1.0
    patience.enforce()
    assert [ended(ours) for ours, _ in pairs] == [False] + [True] * 8


def test_a_few_may_be_slow(
    patience: Patience, clock: Clock, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    """Eight at once are no crowd: a telephone on a train has its time."""
    for key, (ours, _) in enumerate(pairs[:8]):
        patience.begin(key, ours, READING)
    for _ in range(19):
        clock.now += 1.0
        patience.enforce()
    assert not any(ended(ours) for ours, _ in pairs)


def test_a_connection_that_is_gone_is_no_fault(
    patience: Patience, clock: Clock, pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    """Between two looks a client may hang up."""
    pairs[0][0].close()
    patience.begin(1, pairs[0][0], READING)
    clock.now += 21.0
    patience.enforce()


def test_room_is_taken_and_given_back() -> None:
    """What is full takes no byte more, and as many again when a share that has some is done with."""
    room = Room(100)
    with room.share() as other:
        assert other.take(40)
        with room.share() as share:
            assert share.take(60)
            assert not share.take(1)
            assert (share.taken, other.taken) == (60, 40)
        assert not other.take(61)
        assert other.take(60)
        assert not other.take(1)
    with room.share() as share:
        assert share.take(100)
