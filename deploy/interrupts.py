"""Ctrl-C, where stopping at once would leave a thing half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deploy import progress


@contextmanager
def held(doing: str) -> Iterator[None]:
    """Has a first Ctrl-C come too late while a `with` block lasts; a second one goes through at once.

    Args:
        doing: what is brought to its end first, for people.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals are the main thread's; no other can be interrupted by them.
        yield
        return
    pressed = False

    def wait(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        progress.note(f"{doing}; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
