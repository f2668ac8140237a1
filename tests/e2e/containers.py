"""Containers of an application: their start, processes, logged errors and peak memory."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from bench.application import free_port

# Prints the command, the number and the peak memory of each process.
_LIST_PROCESSES = (
    r'for each in /proc/[0-9]*; do tr "\0" " " < $each/cmdline; echo; echo ${each#/proc/}; '
    "grep VmHWM $each/status; done"
)
# Only the processes that serve; the list has those of the command as well.
_SERVING = re.compile(r"^\S*(?:python|haproxy)\S* .*\n(\d+)\nVmHWM:\s+(\d+) kB$", re.MULTILINE)
# The options of replicas that restrict their processes.
_REPLICA_OPTIONS = (
    "--read-only",
    "--tmpfs",
    "/tmp:rw,noexec,nosuid,size=64m",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)


def docker(*arguments: str) -> str:
    """Return the output of a command of the engine."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class RunState:
    """The start, restarts and processes of a container; a restart of any process changes it."""

    started: str
    restarts: int
    processes: frozenset[int]


@dataclass(frozen=True)
class Container:
    """A container of an application, by its name."""

    name: str

    def run_state(self) -> RunState:
        """Return its start, restarts and processes."""
        state = json.loads(docker("inspect", self.name))[0]
        return RunState(
            state["State"]["StartedAt"], state["RestartCount"], frozenset(self._peaks())
        )

    def get(self, path: str) -> Any:
        """Return its JSON response to a GET request at its own address, without the proxy."""
        networks = json.loads(docker("inspect", self.name))[0]["NetworkSettings"]["Networks"]
        (address,) = (network["IPAddress"] for network in networks.values())
        with urllib.request.urlopen(f"http://{address}:8080{path}", timeout=10) as response:
            return json.load(response)

    def peak_memory(self) -> int:
        """Return the peak memory of its largest process, in bytes."""
        return max(self._peaks().values())

    def logged_faults(self) -> list[str]:
        """Return the lines of its log about its own errors."""
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
        found = _SERVING.findall(docker("exec", self.name, "sh", "-c", _LIST_PROCESSES))
        return {int(process): 1024 * int(kilobytes) for process, kilobytes in found}


@contextmanager
def run_replica(image: str) -> Iterator[tuple[Container, int]]:
    """Run a replica without a proxy; yield it and the port at which it responds."""
    name = f"e2e-alone-{uuid4().hex[:8]}"
    port = free_port()
    docker(
        "run",
        "--detach",
        "--name",
        name,
        "--publish",
        f"127.0.0.1:{port}:8080",
        *_REPLICA_OPTIONS,
        image,
    )
    try:
        yield Container(name), port
    finally:
        docker("rm", "--force", name)
