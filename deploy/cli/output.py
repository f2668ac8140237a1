"""The output of tasks: results on standard output, everything else on standard error.

Whatever is printed may have text from outside, and is escaped here and in `deploy.progress`: no
stage has to do that. This module imports nothing heavy, so that `invoke --list` stays instant.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TextIO, TypeVar

from deploy import interrupts, progress
from deploy.errors import (
    FileRefused,
    ReleaseError,
    SettingsInvalid,
    disk_full_error,
    is_disk_full,
)
from deploy.text import escape, escape_json, escape_line

if TYPE_CHECKING:
    from invoke.context import Context

_program = "invoke"

_P = ParamSpec("_P")
_R = TypeVar("_R")

_TASK = re.compile(r"`invoke (?=[\w-])")
_INTERRUPTED = 130
_TERMINATED = 143
_BOLD = "1"
_DIM = "2"
_RED = "31"
_GREEN = "32"
_YELLOW = "33"


def use_program(name: str) -> None:
    """Let messages call the tasks of this program, in place of Invoke's."""
    global _program  # noqa: PLW0603 - a process is started by one program
    _program = name


def task_body(
    body: Callable[Concatenate[Context, _P], _R],
) -> Callable[Concatenate[Context, _P], _R]:
    """Show progress while a task runs; turn an error into a message and an exit code."""

    @functools.wraps(body)
    def run(context: Context, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _show_progress(), exit_codes(), interrupts.handle_sigterm():
            _refuse_dry_run(context)
            return body(context, *args, **kwargs)

    return run


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn whatever stops a `with` block into a message on standard error and an exit code."""
    from invoke.exceptions import Exit

    try:
        yield
    except Exit:
        raise
    except BrokenPipeError:
        _forget_closed_output()
        raise Exit(code=1) from None
    except KeyboardInterrupt as signal:
        _print(paint("interrupted; run the same command again to go on", _YELLOW), sys.stderr)
        is_terminated = isinstance(signal, interrupts.Terminated)
        raise Exit(code=_TERMINATED if is_terminated else _INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - a user gets a sentence, whatever it is
        explained = _explain(error)
        print_error(explained)
        raise Exit(code=explained.exit_code) from None


def _explain(error: Exception) -> ReleaseError:
    """Return an error for people in place of any error."""
    if isinstance(error, ReleaseError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return _explain_refusal(error)
    from deploy.cli.traces import explain_fault

    return explain_fault(error)


def _explain_refusal(error: OSError) -> ReleaseError:
    """Return the error of a refusal of the operating system that no stage handles."""
    on = str(error.filename or "this machine")
    if is_disk_full(error):
        return disk_full_error(on)
    return FileRefused(
        f"the operating system refused a file: {error.strerror or error}",
        on=on,
        next="see its owner and permissions, and whether the disk is writable; then run again",
    )


def _refuse_dry_run(context: Context) -> None:
    """Raise if Invoke was told not to run anything, by an option, a variable or a file.

    Invoke itself skips only commands of a shell, and no task here runs one.

    Raises:
        SettingsInvalid: it was.
    """
    if context.config.run.dry:
        raise SettingsInvalid(
            "Invoke's own dry run is not supported, so nothing was run",
            on="--dry, INVOKE_RUN_DRY or `run.dry` in a configuration file of Invoke",
            next="`invoke release --dry-run` prints what a release would do; without --dry it runs",
        )


def _forget_closed_output() -> None:
    """Let Python write what is left at its end to nowhere, as the reader of the output has gone."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def print_error(error: ReleaseError) -> None:
    """Print what happened, on what, the lines that show it, and what to do next."""
    code = paint(f"(exit code {error.exit_code})", _DIM)
    lines = (
        f"{paint('error:', _RED, _BOLD)} {escape_line(_name_commands(error.what))}",
        f"   on: {escape_line(error.on)}" if error.on else "",
        escape(error.detail.rstrip()),
        f" {paint('next:', _BOLD)} {escape_line(_name_commands(error.next))}   {code}",
    )
    _print("\n".join(line for line in lines if line), sys.stderr)


def result(text: str) -> None:
    """Print a result for people, which can be piped."""
    _print(escape(_name_commands(text)), sys.stdout)


def _name_commands(text: str) -> str:
    """Return a text in which tasks are called as this process was started."""
    return _TASK.sub(f"`{_program} ", text)


def as_json(value: Any) -> None:  # noqa: ANN401 - JSON holds anything
    """Print a result for scripts: one JSON document."""
    _print(escape_json(json.dumps(value, indent=2, ensure_ascii=False)), sys.stdout)


def as_json_line(value: Any) -> None:  # noqa: ANN401 - JSON holds anything
    """Print one of many results for scripts: a JSON document on one line."""
    _print(escape_json(json.dumps(value, ensure_ascii=False)), sys.stdout)


def log_line(source: str, colour: str, text: str) -> None:
    """Print a line of a log after the name of its source, in colour on a terminal."""
    prefix = paint(escape_line(source), colour, stream=sys.stdout)
    _print(f"{prefix}  {escape_line(text)}", sys.stdout)


def as_yaml(document: str) -> None:
    """Print a YAML document for scripts, unchanged: a space more would change its values."""
    _print(document, sys.stdout)


def table(rows: Iterable[Iterable[object]], header: Iterable[str]) -> None:
    """Print rows as a result for people, with columns as wide as their widest cell."""
    cells = [[escape_line(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    titles, *lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    _print("\n".join((paint(titles, _DIM, stream=sys.stdout), *lines)), sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    """Print a text in place of a progress note; escape letters that the encoding lacks."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def paint(text: str, *codes: str, stream: Any = None) -> str:  # noqa: ANN401 - a text stream
    """Return a text in colour, if it goes to a terminal and `NO_COLOR` is not set.

    Args:
        text: the text.
        codes: the ANSI codes of its colour and weight.
        stream: where it is printed: standard error by default.
    """
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
        message = escape(_name_commands(record.getMessage()))
        if record.levelno >= logging.WARNING:
            return f"{clear}{paint('!', _YELLOW, _BOLD)} {message}"
        return f"{clear}{paint('·', _GREEN, _BOLD)} {message}"
