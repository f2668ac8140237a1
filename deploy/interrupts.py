"""Requests to stop, by Ctrl-C or by SIGTERM, and how they are deferred until a step is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from deploy import progress

_Handler = Callable[[int, FrameType | None], None]
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which CI systems, service managers and engines stop a process.

    Code that handles Ctrl-C handles it too.
    """


def stop(number: int, _frame: FrameType | None) -> None:
    """Stop the process by the exception of a signal.

    Raises:
        KeyboardInterrupt, Terminated: always.
    """
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def handle_sigterm() -> Iterator[None]:
    """Let SIGTERM end a `with` block by an exception, as Ctrl-C does, so that it cleans up."""
    with _use_handler(stop, signal.SIGTERM):
        yield


@contextmanager
def defer_signals(action: str) -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM in a `with` block until the same signal comes a second time.

    One signal of each kind counts as one request: a CI runner may send both.

    Args:
        action: the action that is completed first, for the user.
    """
    received: set[int] = set()

    def report(number: int, frame: FrameType | None) -> None:
        if number in received:
            stop(number, frame)
        received.add(number)
        progress.report(f"{action}; {_NAMES[signal.Signals(number)]} again stops at once")

    with _use_handler(report, *_NAMES):
        yield


@contextmanager
def _use_handler(handler: _Handler, *signals: signal.Signals) -> Iterator[None]:
    """Handle signals in a `with` block; only the main thread can, so others change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, handling in previous.items():
            signal.signal(number, handling)
