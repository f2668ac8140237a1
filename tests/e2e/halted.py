"""Tasks that are halted at a moment that a test waited for, however busy the machine is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.rights import root


@contextmanager
def halted(process: subprocess.Popen[str]) -> Iterator[None]:
    """Halt a task and all that it started while a `with` block lasts."""
    _signal(process, "STOP")
    try:
        yield
    finally:
        _signal(process, "CONT")


def _signal(process: subprocess.Popen[str], name: str) -> None:
    command = ("kill", f"-{name}", "--", f"-{process.pid}")
    # A signal to a command under sudo stops sudo as well, which only root can continue.
    as_root = isinstance(process.args, list) and process.args[0] == "sudo"
    subprocess.run(root(*command) if as_root else command, check=True)
