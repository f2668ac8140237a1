from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest

from app.workers import FullError, GoneError, Workers


class Gate:
    """Work that waits until it may end, and reports that it has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.end.wait(30)
        return "done"


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Work that ends with the test at the latest."""
    gate = Gate()
    yield gate
    gate.end.set()


async def stays() -> None:
    """Wait for a client that never closes its connection."""
    await asyncio.Event().wait()


def start(
    workers: Workers,
    work: Callable[[], object],
    gone: Callable[[], Awaitable[object]] = stays,
) -> asyncio.Task[object]:
    """Give work to the threads."""
    return asyncio.create_task(workers.run(work, gone))


async def has_begun(gate: Gate) -> None:
    """Return as soon as the work runs in a thread."""
    assert await asyncio.to_thread(gate.begun.wait, 30)


def test_only_so_many_wait(gate: Gate) -> None:
    """Work that finds no place is refused; the place of finished work is free again."""

    async def story() -> None:
        workers = Workers(threads=1, places=1, patience=0)
        busy = start(workers, gate)
        await has_begun(gate)
        waiting = start(workers, lambda: "next")
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await workers.run(lambda: "refused", stays)
        assert not waiting.done()
        gate.end.set()
        assert [await busy, await waiting] == ["done", "next"]
        assert await workers.run(lambda: "later", stays) == "later"

    asyncio.run(story())


def test_work_waits_for_the_place_of_a_client_that_goes(gate: Gate) -> None:
    """A crowd that asks and goes must not have others refused."""

    async def story() -> None:
        workers = Workers(threads=1, places=1, patience=30)
        busy = start(workers, gate)
        await has_begun(gate)
        leaves = asyncio.Event()
        leaving = start(workers, lambda: "never", leaves.wait)
        staying = start(workers, lambda: "mine")
        await asyncio.sleep(0)
        leaves.set()
        with pytest.raises(GoneError):
            await leaving
        gate.end.set()
        assert [await busy, await staying] == ["done", "mine"]

    asyncio.run(story())


def test_work_is_done_in_order(gate: Gate) -> None:
    """The request that came first is served first."""

    async def story() -> list[int]:
        workers = Workers(threads=1, places=5)
        order: list[int] = []
        tasks = [start(workers, gate)]
        tasks += [start(workers, partial(order.append, number)) for number in range(5)]
        await has_begun(gate)
        gate.end.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(story()) == [0, 1, 2, 3, 4]


def test_a_client_that_has_gone_gives_up_its_place(gate: Gate) -> None:
    """What has not begun for it is never done."""

    async def story() -> None:
        workers = Workers(threads=1, places=1)
        busy = start(workers, gate)
        await has_begun(gate)
        leaves = asyncio.Event()
        done: list[int] = []
        waiting = start(workers, partial(done.append, 1), leaves.wait)
        await asyncio.sleep(0)
        leaves.set()
        with pytest.raises(GoneError):
            await waiting
        other = start(workers, lambda: "other")
        gate.end.set()
        assert [await busy, await other] == ["done", "other"]
        assert not done

    asyncio.run(story())


def test_work_that_has_begun_is_finished_for_a_client_that_has_gone(gate: Gate) -> None:
    """A thread cannot be stopped: it keeps its place until it is done."""

    async def story() -> None:
        workers = Workers(threads=1, places=0, patience=0)
        leaves = asyncio.Event()
        busy = start(workers, gate, leaves.wait)
        await has_begun(gate)
        leaves.set()
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await workers.run(lambda: "refused", stays)
        gate.end.set()
        assert await busy == "done"

    asyncio.run(story())


def test_a_fault_frees_the_place() -> None:
    """Whatever goes wrong in it, the next work is done."""

    async def story() -> None:
        workers = Workers(threads=1, places=0, patience=0)
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0, stays)
        assert await workers.run(lambda: "next", stays) == "next"

    asyncio.run(story())
