"""Who is at work: a person, a machine and a process, so that others can be told, and what the dead left can be cleared."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.ci.run import current_user


@dataclass(frozen=True)
class ProcessId:
    """A process. `started` tells it from a later one of the same number (clock ticks since boot, where the system says)."""

    user: str
    host: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Self:
        """The process that asks."""
        return cls(current_user(), socket.gethostname(), os.getpid(), _started(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` wrote; something else gives an owner that cannot be alive."""
        fields = text.split("/")
        if len(fields) != 4 or not fields[2].isdecimal():
            return cls("unknown", socket.gethostname(), 0, "")
        return cls(fields[0], fields[1], int(fields[2]), fields[3])

    def __str__(self) -> str:
        return f"{self.user}/{self.host}/{self.pid}/{self.started}"

    @property
    def display(self) -> str:
        """For people."""
        return f"{self.user} on {self.host} (process {self.pid})"

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs; one of another machine is taken to be."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            pass
        except (ProcessLookupError, OverflowError):
            return False
        return self.pid > 0 and _started(self.pid) == self.started


def machine_id() -> str:
    """What tells this machine, as long as it runs, and this container from all others, whatever they are called; empty where unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def has_ended(owner: str, on: str) -> bool:
    """Whether a process is known to have ended.

    Args:
        owner: what it wrote down of itself.
        on: the `machine()` that it wrote beside it; a name may be that of several machines, so of others, or of none, nothing is known.
    """
    return bool(on) and on == machine_id() and not ProcessId.parse(owner).is_alive


def _started(process: int) -> str:
    try:
        return (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError):
        return ""
