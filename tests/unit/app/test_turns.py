from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from app.turns import CrowdedError, Turns

HERE: Callable[[], bool] = lambda: False  # noqa: E731 - a client, not a function of these tests
GONE: Callable[[], bool] = lambda: True  # noqa: E731 - as above


@pytest.fixture(name="threads")
def _threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def test_only_so_many_wait(threads: ThreadPoolExecutor) -> None:
    """One that would wait beside the last is refused at once; the one that waits gets its turn."""
    turns = Turns(slots=1, places=1)
    with turns.turn(HERE):
        waiting = _queued(threads, turns, HERE)
        with pytest.raises(CrowdedError), turns.turn(HERE):
            pass
        assert not waiting.done()
    assert waiting.result() is None


def test_without_places_nobody_waits() -> None:
    """Where all threads work, none is kept for later; once one is done, there is a turn again."""
    turns = Turns(slots=1, places=0)
    for _ in range(2):
        with turns.turn(HERE), pytest.raises(CrowdedError), turns.turn(HERE):
            pass


def test_turns_come_in_order(threads: ThreadPoolExecutor) -> None:
    """Who came first is called first."""
    turns, order = Turns(slots=1, places=5), list[int]()
    with turns.turn(HERE):
        queued = [
            _queued(threads, turns, HERE, partial(order.append, number)) for number in range(5)
        ]
    for one in queued:
        one.result()
    assert order == [0, 1, 2, 3, 4]


def test_as_many_work_at_a_time_as_there_are_slots(threads: ThreadPoolExecutor) -> None:
    """Never more, also after some have waited; and no slot is lost."""
    turns, meeting = Turns(slots=3, places=5), threading.Barrier(3, timeout=30)
    running, most = [0], [0]

    def work() -> None:
        with turns.turn(HERE):
            running[0] += 1
            most[0] = max(most[0], running[0])
            meeting.wait()  # Only three at once get over it.
            running[0] -= 1

    for _ in range(2):
        for done in [threads.submit(work) for _ in range(6)]:
            done.result()
    assert most == [3]


def test_who_has_gone_makes_room(threads: ThreadPoolExecutor) -> None:
    """Only where there is no other place, and only those that have gone; the others keep their places and their order."""
    turns, order = Turns(slots=1, places=4), list[str]()
    with turns.turn(HERE):
        first = _queued(threads, turns, HERE, partial(order.append, "first"))
        gone = [_queued(threads, turns, GONE) for _ in range(2)]
        second = _queued(threads, turns, HERE, partial(order.append, "second"))
        assert not any(one.done() for one in gone)
        third = _queued(threads, turns, HERE, partial(order.append, "third"), waiting=3)
        for one in gone:
            with pytest.raises(CrowdedError):
                one.result(30)
    for one in (first, second, third):
        one.result()
    assert order == ["first", "second", "third"]


def test_who_has_said_all_is_served_where_there_is_room(threads: ThreadPoolExecutor) -> None:
    """One that has closed its side may still read the answer: it has its turn if nobody needs its place."""
    turns = Turns(slots=1, places=2)
    with turns.turn(GONE):
        waiting = _queued(threads, turns, GONE)
        _queued(threads, turns, HERE)
    assert waiting.result() is None


def test_a_fault_in_a_turn_ends_it(threads: ThreadPoolExecutor) -> None:
    """Whatever goes wrong in it, the next one has its turn."""
    turns = Turns(slots=1, places=1)
    waiting: list[Future[None]] = []

    def fail() -> None:
        with turns.turn(HERE):
            waiting.append(_queued(threads, turns, HERE))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert waiting[0].result() is None


def _queued(
    threads: ThreadPoolExecutor,
    turns: Turns,
    gone: Callable[[], bool],
    work: Callable[[], object] = lambda: None,
    waiting: int = 0,
) -> Future[None]:
    """Have another thread take a turn, and return when it waits: beside all that do, or as one of so many."""

    def take() -> None:
        with turns.turn(gone):
            work()

    wanted = waiting or len(turns._waiting) + 1
    last = turns._waiting[-1] if turns._waiting else None
    taken = threads.submit(take)
    deadline = time.monotonic() + 30
    while len(turns._waiting) != wanted or turns._waiting[-1] is last:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # The other thread takes its place a moment later.
    return taken
