"""The identity of a process: its user, machine and number, and whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.ci.run import current_user


@dataclass(frozen=True)
class ProcessId:
    """The identity of a process.

    Attributes:
        user: the user who runs it.
        host: the name of its machine.
        pid: its number.
        started: when it started, in clock ticks since boot; distinguishes it from a later process
            with the same number. Empty where the system does not say.
    """

    user: str
    host: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Self:
        """Return the identity of this process."""
        return cls(current_user(), socket.gethostname(), os.getpid(), _start_time(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the identity that `str` wrote; other text gives one that is not alive."""
        fields = text.split("/")
        if len(fields) != 4 or not fields[2].isdecimal():
            return cls("unknown", socket.gethostname(), 0, "")
        return cls(fields[0], fields[1], int(fields[2]), fields[3])

    def __str__(self) -> str:
        return f"{self.user}/{self.host}/{self.pid}/{self.started}"

    @property
    def display(self) -> str:
        """The identity for people."""
        return f"{self.user} on {self.host} (process {self.pid})"

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs; always true for one of another machine."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            pass
        except (ProcessLookupError, OverflowError):
            return False
        return self.pid > 0 and _start_time(self.pid) == self.started


def machine_id() -> str:
    """Return the identity of this machine since it booted, and of this container.

    Host names are not unique. The identity is empty where the system does not name it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def has_ended(process: str, machine: str) -> bool:
    """Return whether a process is known to have ended.

    Args:
        process: its identity, as `str` wrote it.
        machine: the `machine_id()` that was written with it. Nothing is known of a process of
            another machine, or of an unknown one.
    """
    return bool(machine) and machine == machine_id() and not ProcessId.parse(process).is_alive


def _start_time(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
