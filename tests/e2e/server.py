"""The API server of a cluster on this machine, which a test stops for some seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.e2e.cluster import until

MARK = "--oidc-issuer-url="
"""The option of an API server that a test has started."""

_NODES = (
    "docker",
    "ps",
    "--filter",
    "label=io.x-k8s.kind.role=control-plane",
    "--format",
    "{{.Names}}",
)


class ApiServer(Protocol):
    """An API server that a test may restart."""

    def restart(self, seconds: float = 3.0) -> None:
        """Kill it, keep it down for some seconds, and make sure that it starts again."""


@dataclass(frozen=True)
class Process:
    """An API server that is a process of this machine, with its command to start it again.

    Args:
        process: the number of the process.
        command: its arguments.
        log: the path of its log.
    """

    process: int
    command: list[str]
    log: str

    def restart(self, seconds: float = 3.0) -> None:
        """Kill it, and start it again after some seconds."""
        os.kill(self.process, signal.SIGKILL)
        end = time.monotonic() + seconds
        until(lambda: time.monotonic() >= end, "the outage is over", within=2 * seconds)
        with Path(self.log).open("ab") as log:
            subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@dataclass(frozen=True)
class Pod:
    """An API server that is a pod in a node of kind, a container of this machine's engine."""

    node: str

    def restart(self, seconds: float = 3.0) -> None:
        """Kill it repeatedly for some seconds: the node's kubelet starts it again each time."""
        kill = ("docker", "exec", self.node, "pkill", "-KILL", "-x", "kube-apiserver")
        subprocess.run(kill, check=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            subprocess.run(kill, check=False)
            time.sleep(0.2)


def find_api_server() -> ApiServer | None:
    """Return the API server of this machine, if it has one that may be stopped."""
    nodes = _nodes()
    return Pod(nodes[0]) if nodes else find_process()


def find_process() -> Process | None:
    """Return the API server that is a process of this machine; not one that a test has started."""
    if _nodes():
        return None
    for folder in Path("/proc").iterdir():
        command = _command(folder) if folder.name.isdecimal() else []
        is_server = command and Path(command[0]).name == "kube-apiserver"
        if is_server and not any(part.startswith(MARK) for part in command):
            return Process(int(folder.name), command, str((folder / "fd" / "1").readlink()))
    return None


def _nodes() -> list[str]:
    """Return the control planes of kind."""
    return subprocess.run(_NODES, capture_output=True, text=True, check=True).stdout.split()


def _command(folder: Path) -> list[str]:
    try:
        return [part.decode() for part in (folder / "cmdline").read_bytes().split(b"\0") if part]
    except OSError:
        return []
