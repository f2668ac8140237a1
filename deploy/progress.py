"""What a person sees of work that takes longer than a second; stages report, and whoever runs them decides how it is shown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TextIO

Advance = Callable[[int], None]

_MINUTE = 60
_EVERY = 5.0
_USUAL = 80


class Display(Protocol):
    """Shows pieces of work while they last."""

    def track(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Shows bytes going by; `total` is their number, 0 if unknown."""

    def report(self, text: str) -> None:
        """Shows one line about what is being done right now; it may be overwritten by the next."""


class QuietDisplay:
    """Shows nothing."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Drops the counts."""
        yield lambda _: None

    def report(self, text: str) -> None:
        """Drops the line."""


class LineDisplay:
    """Plain lines for logs: one now and then while bytes go by, one at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._noted = time.monotonic()

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Prints how far it is every few seconds, and how long it took."""
        started = shown = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, shown
            done += count
            if time.monotonic() - shown > _EVERY:
                shown = time.monotonic()
                self._print(
                    f"{label}: {format_size(done)}{f' of {format_size(total)}' if total else ''}"
                )

        yield advance
        if done:
            self._print(
                f"{label}: {format_size(done)} in {format_seconds(time.monotonic() - started)}"
            )

    def report(self, text: str) -> None:
        """Prints the line if none was printed for a while."""
        if time.monotonic() - self._noted > _EVERY:
            self._noted = time.monotonic()
            self._print(text)

    def _print(self, text: str) -> None:
        print(f"    {text}", file=self._stream, flush=True)


class BarDisplay:
    """Bars on a terminal that vanish when the work is done."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Draws a bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("    {task.description}"),
            BarColumn(24),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(label, total=total or None)
            yield lambda count: bars.advance(task, count)

    def report(self, text: str) -> None:
        """Writes the line over the one before, cut to what the terminal shows on one."""
        shown = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
        print(
            f"\r\x1b[K    \x1b[2m{shown[: _columns() - 5]}\x1b[0m",
            end="\r",
            file=sys.stderr,
            flush=True,
        )


def _columns() -> int:
    """How wide the terminal is that progress is shown on."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL
    except OSError:
        return _USUAL


_display: ContextVar[Display] = ContextVar("display", default=QuietDisplay())  # noqa: B039 - Quiet holds no state


@contextmanager
def use_display(display: Display) -> Iterator[None]:
    """Lets everything inside report to that display."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


def track(label: str, total: int = 0) -> AbstractContextManager[Advance]:
    """Reports bytes going by: call the yielded function with each count."""
    return _display.get().track(label, total)


def report(text: str) -> None:
    """Reports what is being done right now."""
    _display.get().report(text)


def format_size(count: float) -> str:
    """A number of bytes for people: `18.5 MB`."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def format_count(number: int, noun: str) -> str:
    """So many of a thing, for people: `1 blob`, `3 blobs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_seconds(duration: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min 05 s`."""
    if duration < 10:
        return f"{duration:.1f} s"
    return (
        f"{duration:.0f} s"
        if duration < _MINUTE
        else f"{duration // _MINUTE:.0f} min {duration % _MINUTE:02.0f} s"
    )
