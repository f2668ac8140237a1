"""Programs of the operating system: run to their end, with each line of output reported."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Completed:
    """A program that has ended, with its exit code and the lines that it wrote to both outputs."""

    exit_code: int
    lines: tuple[str, ...]


def run_program(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    stdin: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program and report each line of its output.

    The program ends when this process is interrupted.

    Args:
        command: The program and its arguments.
        on_line: Receives each line as it arrives, without white space at its ends.
        stdin: Sent to the program's standard input; this process's own if None.
        environment: All of the program's variables; those of this process if None.
    """
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - the caller's own program
        list(command),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - stdout is a pipe
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                on_line(line.strip())
        except BaseException:
            # SIGTERM reaches this process alone, and the program may write nothing for minutes.
            process.terminate()
            raise
    return Completed(process.returncode, tuple(lines))
