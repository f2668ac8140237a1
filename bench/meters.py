"""Measurements of commands and files: time, processor, memory and bytes, from Linux's /proc.

Source: proc(5), getrusage(2), mincore(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.figures import Cost
from bench.watching import Watcher

_PROC = Path("/proc")
_PAGE = mmap.PAGESIZE
_TICKS = os.sysconf("SC_CLK_TCK")
_INTERVAL = 0.02
_ENGINE = frozenset({"dockerd", "containerd"})


@dataclass(frozen=True)
class CommandResult:
    """A command that succeeded.

    Attributes:
        cost: what it used.
        out: its output.
        lines: the lines of its standard error, each with the seconds since its start.
    """

    cost: Cost
    out: str
    lines: tuple[tuple[float, str], ...]


class CommandFailed(Exception):
    """A command that was to be measured has failed; its last lines are in the message."""


def measure(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> CommandResult:
    """Run a command and measure its cost.

    Args:
        command: program and arguments.
        folder: the working directory.
        variables: environment variables in addition to this process's.

    Raises:
        CommandFailed: its exit code is not 0.
    """
    with tempfile.TemporaryFile("w+") as out:
        before = engine_cpu()
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - the benchmark's own commands
            command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None  # noqa: S101 - it was requested above
        with MemorySampler(process.pid) as sampler, process.stderr:
            lines = tuple((time.monotonic() - started, line.rstrip()) for line in process.stderr)
            # Its files in /proc can be read until it is reaped below.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = time.monotonic() - started
            after = engine_cpu()
        read, written = _io_bytes(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        output = out.read()
    if process.returncode:
        end = "\n".join([*output.splitlines()[-5:], *(line for _, line in lines[-15:])])
        raise CommandFailed(f"{' '.join(command)} ended with {process.returncode}\n{end}")
    cost = Cost(
        seconds=seconds,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=sampler.peak,
        read=read,
        written=written,
        engine_cpu=after - before if before is not None and after is not None else None,
        engine_peak=sampler.engine_peak,
    )
    return CommandResult(cost, output, lines)


class MemorySampler(Watcher):
    """A sampler of the memory of a process with all its children, and of the engine.

    It runs while a `with` block runs. getrusage does not serve: a child starts with its parent's
    peak.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(_INTERVAL)
        self._pid = pid
        self.peak = 0
        self.engine_peak: int | None = None

    @cached_property
    def _engine(self) -> list[int]:
        return engine_processes()

    def look(self) -> None:
        """Add up the memory of the process and its children, and that of the engine."""
        tree = [_peak(self._pid), *map(_resident, descendants(self._pid))]
        self.peak = max(self.peak, sum(tree))
        if self._engine:
            self.engine_peak = max(self.engine_peak or 0, sum(map(_resident, self._engine)))


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs.

    A child that still runs its parent's program, in its parent's memory, does not count yet.
    """
    result: list[int] = []
    with suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes()
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if (_PROC / str(child) / "cmdline").read_bytes() != words:
                    result += [child, *descendants(child)]
    return result


def engine_processes() -> list[int]:
    """Return the processes of a container engine on this machine; empty if there are none."""
    result = []
    for folder in _PROC.iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and (folder / "comm").read_text().strip() in _ENGINE:
                result.append(int(folder.name))
    return result


def engine_cpu() -> float | None:
    """Return the processor time of the engine's processes and their ended children so far.

    It is None if they are not visible.
    """
    result = engine_processes()
    return sum(map(_processor, result)) if result else None


def _processor(pid: int) -> float:
    with suppress(OSError):
        return processor_seconds((_PROC / str(pid) / "stat").read_text(), _TICKS)
    return 0.0


def processor_seconds(stat: str, ticks: int) -> float:
    """Return the processor time of a process and its ended children, from its `stat`."""
    # The name in parentheses may have blanks; the fields needed are the 14th to the 17th.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / ticks


def _peak(pid: int) -> int:
    """Return the maximum memory of a process since it started its current program."""
    return _kilobytes(pid, "VmHWM")


def _resident(pid: int) -> int:
    return _kilobytes(pid, "VmRSS")


def _kilobytes(pid: int, field: str) -> int:
    with suppress(OSError):
        result = re.search(
            rf"^{field}:\s+(\d+) kB$", (_PROC / str(pid) / "status").read_text(), re.MULTILINE
        )
        return int(result[1]) * 1024 if result else 0
    return 0


def _io_bytes(pid: int) -> tuple[int | None, int | None]:
    """Return the bytes that a process and its ended children read and wrote, if known."""
    with suppress(OSError):
        result = dict(
            re.findall(r"^([rw]char): (\d+)$", (_PROC / str(pid) / "io").read_text(), re.MULTILINE)
        )
        return int(result["rchar"]), int(result["wchar"])
    return None, None


def evict(path: Path) -> None:
    """Remove a file from the page cache, so that `resident` shows what is read next."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(path: Path) -> int:
    """Return how many bytes of a file are in the page cache: those read since `evict`, and more.

    The system reads a little ahead.
    """
    length = path.stat().st_size
    pages = -(-length // _PAGE)
    with (
        path.open("rb") as file,
        mmap.mmap(
            file.fileno(), length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        ) as mapped,
    ):
        seen = (ctypes.c_ubyte * pages)()
        view = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(length), seen
        )
        del view
    if failed:
        raise OSError(ctypes.get_errno(), "mincore", str(path))
    return sum(page & 1 for page in seen) * _PAGE
