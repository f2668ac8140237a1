"""The progress of long work: stages report it, and a display shows it to the user."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TextIO

from deploy.text import escape_line

Advance = Callable[[int], None]

_MINUTE = 60
_INTERVAL = 5.0
_DEFAULT_COLUMNS = 80


class Display(Protocol):
    """A display of work that is being done."""

    def track(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show how many bytes are done; `total` is their number, or 0 if it is unknown."""

    def report(self, text: str) -> None:
        """Show a status line; the next one may overwrite it."""


class QuietDisplay:
    """A display that shows nothing."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Ignore the counts."""
        yield lambda _: None

    def report(self, text: str) -> None:
        """Ignore the line."""


class LineDisplay:
    """A display of plain lines, for logs: one every few seconds, and one at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._reported = time.monotonic()

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Print how many bytes are done every few seconds, and at the end how long it took."""
        started = time.monotonic()
        printed = started
        done = 0

        def advance(count: int) -> None:
            nonlocal done, printed
            done += count
            if time.monotonic() - printed > _INTERVAL:
                printed = time.monotonic()
                self._print(
                    f"{label}: {format_size(done)}{f' of {format_size(total)}' if total else ''}"
                )

        yield advance
        if done:
            self._print(
                f"{label}: {format_size(done)} in {format_seconds(time.monotonic() - started)}"
            )

    def report(self, text: str) -> None:
        """Print the line, unless another was printed a few seconds ago."""
        if time.monotonic() - self._reported > _INTERVAL:
            self._reported = time.monotonic()
            self._print(text)

    def _print(self, text: str) -> None:
        print(f"    {text}", file=self._stream, flush=True)


class BarDisplay:
    """A display of bars on a terminal, which are removed when the work is done."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Draw a bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("    {task.description}", markup=False),
            BarColumn(24),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(label, total=total or None)
            yield lambda count: bars.advance(task, count)

    def report(self, text: str) -> None:
        """Overwrite the previous line, and cut this one to the width of the terminal."""
        line = " ".join(text.split())[: _columns() - 5]
        print(
            f"\r\x1b[K    \x1b[2m{line}\x1b[0m",
            end="\r",
            file=sys.stderr,
            flush=True,
        )


def _columns() -> int:
    """Return the width of the terminal."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _DEFAULT_COLUMNS
    except OSError:
        return _DEFAULT_COLUMNS


_display: ContextVar[Display] = ContextVar("display", default=QuietDisplay())  # noqa: B039 - Quiet holds no state


@contextmanager
def use_display(display: Display) -> Iterator[None]:
    """Report to that display in a `with` block."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


def track(label: str, total: int = 0) -> AbstractContextManager[Advance]:
    """Report bytes: the caller calls the yielded function with the size of each part.

    The label may have text from outside.
    """
    return _display.get().track(escape_line(label), total)


def report(text: str) -> None:
    """Report a status line, which may have text from outside."""
    _display.get().report(escape_line(text))


def format_size(count: float) -> str:
    """Return a number of bytes as text: `18.5 MB`."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def format_count(number: int, noun: str) -> str:
    """Return a number of things as text: `1 blob`, `3 blobs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_seconds(duration: float) -> str:
    """Return a duration as text: `0.4 s`, `12 s`, `3 min 05 s`."""
    if duration < 10:
        return f"{duration:.1f} s"
    return (
        f"{duration:.0f} s"
        if duration < _MINUTE
        else f"{duration // _MINUTE:.0f} min {duration % _MINUTE:02.0f} s"
    )
