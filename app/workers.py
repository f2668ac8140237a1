"""A few threads that work, and a bounded number of requests that wait for one, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

# Clients that ask and go give their places up a moment later, when the event loop sees that.
_PATIENCE_SECONDS = 2.0


class FullError(Exception):
    """As many requests wait as may, and none gave its place up."""


class GoneError(Exception):
    """The client has closed its connection while its request waited."""


class Workers:
    """Work for threads, given from one event loop.

    Args:
        threads: How many pieces of work run at the same time.
        places: How many more wait.
        patience: Seconds for which work waits for a place.
    """

    def __init__(self, threads: int, places: int, patience: float = _PATIENCE_SECONDS) -> None:
        self._threads = ThreadPoolExecutor(threads, "scoring")
        self._places = asyncio.Semaphore(threads + places)
        self._patience = patience

    async def run(
        self, work: Callable[[], _Result], gone: Callable[[], Awaitable[object]]
    ) -> _Result:
        """Return the result of a piece of work.

        Args:
            work: Runs in a thread.
            gone: Returns when the client closes its connection. Work that has not begun is then
                dropped.

        Raises:
            FullError: There is no place to wait, nor has there been one for a while.
            GoneError: The client has gone and the work was not begun.
        """
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise FullError from None
        job = self._threads.submit(work)
        result = asyncio.wrap_future(job)
        watch = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((result, watch), return_when=asyncio.FIRST_COMPLETED)
            if not result.done() and job.cancel():
                raise GoneError
            return await result
        finally:
            watch.cancel()
            self._places.release()
