"""Meters for commands and files: time, processor, memory and bytes, read from Linux's /proc.

Source: proc(5), getrusage(2), mincore(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.figures import Cost

_PROC = Path("/proc")
_PAGE = mmap.PAGESIZE
_TICKS = os.sysconf("SC_CLK_TCK")
_EVERY = 0.02
_ENGINE = frozenset({"dockerd", "containerd"})


@dataclass(frozen=True)
class Ended:
    """A command that ended well: its cost, its output, and each line of its standard error with the time it came."""

    cost: Cost
    out: str
    lines: tuple[tuple[float, str], ...]


class CommandFailed(Exception):
    """A command that was to be measured ended with an error; its last lines are in the text."""


def measured(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Ended:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        folder: where.
        variables: what the environment has more than this process's.

    Raises:
        CommandFailed: it ended with another code than 0.
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
        assert process.stderr is not None  # noqa: S101 - it was asked for
        with Sampler(process.pid) as sampler, process.stderr:
            lines = tuple((time.monotonic() - started, line.rstrip()) for line in process.stderr)
            # Looked at while it can still be seen, taken leave of afterwards.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = time.monotonic() - started
            after = engine_cpu()
        read, written = _moved(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read()
    if process.returncode:
        end = "\n".join([*said.splitlines()[-5:], *(line for _, line in lines[-15:])])
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
    return Ended(cost, said, lines)


class Sampler:
    """Watches the memory of a process with all its children, and of the engine, until the `with` block is left.

    getrusage cannot be asked for it: a child starts with its parent's peak.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0
        self.engine_peak: int | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        engine = engine_processes()
        while not self._stop.is_set():
            tree = [_peak(self._pid), *map(_resident, descendants(self._pid))]
            self.peak = max(self.peak, sum(tree))
            if engine:
                self.engine_peak = max(self.engine_peak or 0, sum(map(_resident, engine)))
            self._stop.wait(_EVERY)


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs; one that runs its parent's program still, in its parent's memory, does not count yet."""
    found: list[int] = []
    with suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes()
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if (_PROC / str(child) / "cmdline").read_bytes() != words:
                    found += [child, *descendants(child)]
    return found


def engine_processes() -> list[int]:
    """The processes of a container engine of this machine; none where it runs elsewhere."""
    found = []
    for folder in _PROC.iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and (folder / "comm").read_text().strip() in _ENGINE:
                found.append(int(folder.name))
    return found


def engine_cpu() -> float | None:
    """The processor time that the engine's processes and their ended children have had so far, if they can be seen."""
    found = engine_processes()
    return sum(map(_processor, found)) if found else None


def _processor(pid: int) -> float:
    with suppress(OSError):
        return processor_seconds((_PROC / str(pid) / "stat").read_text(), _TICKS)
    return 0.0


def processor_seconds(stat: str, ticks: int) -> float:
    """Processor time of a process and its ended children, by the text of its `stat`."""
    # The name in parentheses may hold blanks; the fields that are wanted are the 14th to the 17th.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / ticks


def _peak(pid: int) -> int:
    """The most memory that a process has had since it runs its present program."""
    return _kilobytes(pid, "VmHWM")


def _resident(pid: int) -> int:
    return _kilobytes(pid, "VmRSS")


def _kilobytes(pid: int, field: str) -> int:
    with suppress(OSError):
        found = re.search(
            rf"^{field}:\s+(\d+) kB$", (_PROC / str(pid) / "status").read_text(), re.MULTILINE
        )
        return int(found[1]) * 1024 if found else 0
    return 0


def _moved(pid: int) -> tuple[int | None, int | None]:
    """Bytes that a process and its ended children read and wrote; None where the system does not tell."""
    with suppress(OSError):
        found = dict(
            re.findall(r"^([rw]char): (\d+)$", (_PROC / str(pid) / "io").read_text(), re.MULTILINE)
        )
        return int(found["rchar"]), int(found["wchar"])
    return None, None


def evict(path: Path) -> None:
    """Lets the system forget a file's bytes, so that `resident` shows who reads them next."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(path: Path) -> int:
    """How many bytes of a file the system has in memory: what was read of it since `evict`, and a little read ahead."""
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
