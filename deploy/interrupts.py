"""Being told to stop, by Ctrl-C or by SIGTERM, where stopping at once would leave a thing half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from deploy import progress

_Handler = Callable[[int, FrameType | None], None]
_CALLED = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which CI systems, service managers and engines end what runs; whatever minds Ctrl-C minds this as well."""


def stop(number: int, _frame: FrameType | None) -> None:
    """Ends what runs, as that signal asks for.

    Raises:
        KeyboardInterrupt, Terminated: always.
    """
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def handle_sigterm() -> Iterator[None]:
    """Has SIGTERM end a `with` block as Ctrl-C does: with an exception, on whose way out things are put right."""
    with _handled(stop, signal.SIGTERM):
        yield


@contextmanager
def defer_signals(doing: str) -> Iterator[None]:
    """Has both signals come too late while a `with` block lasts; the same one again goes through at once.

    The one need not insist on the other: a runner that asks with both has asked once.

    Args:
        doing: what is brought to its end first, for people.
    """
    asked: set[int] = set()

    def wait(number: int, frame: FrameType | None) -> None:
        if number in asked:
            stop(number, frame)
        asked.add(number)
        progress.report(f"{doing}; {_CALLED[signal.Signals(number)]} again stops at once")

    with _handled(wait, *_CALLED):
        yield


@contextmanager
def _handled(handler: _Handler, *signals: signal.Signals) -> Iterator[None]:
    """Has signals do that while a `with` block lasts; they are the main thread's, and nothing changes in another."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, handling in before.items():
            signal.signal(number, handling)
