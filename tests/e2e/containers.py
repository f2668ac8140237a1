"""Containers as their engine sees them: since when they run, what of, what they have said, and the most memory they took."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from bench.application import free_port

# Numbers and peaks of the processes that serve; what a look at them starts is not among them.
_LOOK = r'for each in /proc/[0-9]*; do tr "\0" " " < $each/cmdline; echo; echo ${each#/proc/}; grep VmHWM $each/status; done'
_SERVING = re.compile(r"^\S*(?:python|haproxy)\S* .*\n(\d+)\nVmHWM:\s+(\d+) kB$", re.MULTILINE)
# How the suite starts replicas, as far as it matters to a process.
_LIKE_A_REPLICA = (
    "--read-only",
    "--tmpfs",
    "/tmp:rw,noexec,nosuid,size=64m",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)


def docker(*arguments: str) -> str:
    """What a command of the engine prints."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Life:
    """A container's life so far: the same life is one without a restart, of it or of a process in it."""

    started: str
    restarts: int
    processes: frozenset[int]


@dataclass(frozen=True)
class Watched:
    """A container of an application, by its name."""

    name: str

    def life(self) -> Life:
        """Its life so far."""
        state = json.loads(docker("inspect", self.name))[0]
        return Life(state["State"]["StartedAt"], state["RestartCount"], frozenset(self._peaks()))

    def peak(self) -> int:
        """The most memory that any one process of it has had, in bytes."""
        return max(self._peaks().values())

    def faults(self) -> list[str]:
        """What it has said of faults of its own."""
        done = subprocess.run(
            ["docker", "logs", self.name], capture_output=True, text=True, check=True
        )
        words = ("Traceback", "unforeseen", "[ERROR]", "[CRITICAL]", "[ALERT]")
        return [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if any(word in line for word in words)
        ]

    def _peaks(self) -> dict[int, int]:
        found = _SERVING.findall(docker("exec", self.name, "sh", "-c", _LOOK))
        return {int(process): 1024 * int(kilobytes) for process, kilobytes in found}


@contextmanager
def alone(image: str) -> Iterator[tuple[Watched, int]]:
    """A replica with no proxy before it, and the port where it answers."""
    name = f"e2e-alone-{uuid4().hex[:8]}"
    port = free_port()
    docker(
        "run",
        "--detach",
        "--name",
        name,
        "--publish",
        f"127.0.0.1:{port}:8080",
        *_LIKE_A_REPLICA,
        image,
    )
    try:
        yield Watched(name), port
    finally:
        docker("rm", "--force", name)
