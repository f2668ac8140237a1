"""The output of tasks: results on standard output, everything else on standard error.

Whatever is printed may have text from outside, and is escaped here and in `deploy.progress`: no
stage has to do that. This module imports nothing heavy, so that `invoke --list` stays instant.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from deploy import interrupts, progress
from deploy.errors import FileRefused, ReleaseError, disk_full_error, is_disk_full
from deploy.text import escape, escape_json, escape_line

_P = ParamSpec("_P")
_R = TypeVar("_R")

_INTERRUPTED = 130
_TERMINATED = 143
_BOLD = "1"
_DIM = "2"
_RED = "31"
_GREEN = "32"
_YELLOW = "33"


def task_body(body: Callable[_P, _R]) -> Callable[_P, _R]:
    """Show progress while a task runs; turn an error into a message and an exit code."""

    @functools.wraps(body)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from invoke.exceptions import Exit

        with _show_progress():
            try:
                with interrupts.handle_sigterm():
                    return body(*args, **kwargs)
            except ReleaseError as error:
                print_error(error)
                raise Exit(code=error.exit_code) from None
            except KeyboardInterrupt as signal:
                _clear()
                print(
                    paint("interrupted; run the same command again to go on", _YELLOW),
                    file=sys.stderr,
                )
                raise Exit(
                    code=_TERMINATED if isinstance(signal, interrupts.Terminated) else _INTERRUPTED
                ) from None
            except BrokenPipeError:
                raise Exit(code=1) from None
            except OSError as error:
                refused = _explain(error)
                print_error(refused)
                raise Exit(code=refused.exit_code) from None

    return run


def _explain(error: OSError) -> ReleaseError:
    """Return the error of a refusal of the operating system that no stage handles."""
    on = str(error.filename or "this machine")
    if is_disk_full(error):
        return disk_full_error(on)
    return FileRefused(
        f"the operating system refused a file: {error.strerror or error}",
        on=on,
        next="see its owner and permissions, and whether the disk is writable; then run again",
    )


def print_error(error: ReleaseError) -> None:
    """Print what happened, on what, the lines that show it, and what to do next."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}{paint('error:', _RED, _BOLD)} {escape_line(error.what)}", file=sys.stderr)
    if error.on:
        print(f"   on: {escape_line(error.on)}", file=sys.stderr)
    if error.detail:
        print(escape(error.detail.rstrip()), file=sys.stderr)
    code = paint(f"(exit code {error.exit_code})", _DIM)
    print(
        f" {paint('next:', _BOLD)} {escape_line(error.next)}   {code}", file=sys.stderr, flush=True
    )


def result(text: str) -> None:
    """Print a result for people, which can be piped."""
    _clear()
    print(escape(text), flush=True)


def as_json(value: Any) -> None:  # noqa: ANN401 - JSON holds anything
    """Print a result for scripts: one JSON document."""
    _clear()
    print(escape_json(json.dumps(value, indent=2, ensure_ascii=False)), flush=True)


def as_yaml(document: str) -> None:
    """Print a YAML document for scripts, unchanged: a space more would change its values."""
    _clear()
    print(document, flush=True)


def table(rows: Iterable[Iterable[object]], header: Iterable[str]) -> None:
    """Print rows as a result for people, with columns as wide as their widest cell."""
    cells = [[escape_line(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    titles, *lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    _clear()
    print("\n".join((paint(titles, _DIM, stream=sys.stdout), *lines)), flush=True)


def paint(text: str, *codes: str, stream: Any = None) -> str:  # noqa: ANN401 - a text stream
    """Return a text in colour, if it goes to a terminal and `NO_COLOR` is not set.

    Args:
        text: the text.
        codes: the ANSI codes of its colour and weight.
        stream: where it is printed: standard error by default.
    """
    import os

    if not (stream or sys.stderr).isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m"


@contextmanager
def _show_progress() -> Iterator[None]:
    """Show the log and the progress of this package on standard error."""
    logger = logging.getLogger("deploy")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    level = logger.level
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    display = progress.BarDisplay() if sys.stderr.isatty() else progress.LineDisplay(sys.stderr)
    try:
        with progress.use_display(display):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _LineFormatter(logging.Formatter):
    """One line for each message; warnings have a mark of their own."""

    def format(self, record: logging.LogRecord) -> str:
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        message = escape(record.getMessage())
        if record.levelno >= logging.WARNING:
            return f"{clear}{paint('!', _YELLOW, _BOLD)} {message}"
        return f"{clear}{paint('·', _GREEN, _BOLD)} {message}"


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
