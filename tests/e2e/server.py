"""The API server of a cluster of this machine, to be taken away for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_NODES = (
    "docker",
    "ps",
    "--filter",
    "label=io.x-k8s.kind.role=control-plane",
    "--format",
    "{{.Names}}",
)


class ApiServer(Protocol):
    """What can be done to it."""

    def restart(self, away: float = 3.0) -> None:
        """Kills it, leaves it away for some seconds, and sees that it is started again."""


@dataclass(frozen=True)
class Process:
    """One that is a process of this machine, with all that is needed to start it again.

    Args:
        process: its number.
        command: its arguments.
        log: where it writes to.
    """

    process: int
    command: list[str]
    log: str

    def restart(self, away: float = 3.0) -> None:
        """Kills it and starts another in its place."""
        os.kill(self.process, signal.SIGKILL)
        time.sleep(away)
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
    """One that runs as a pod in a node of kind, a container of this machine's engine."""

    node: str

    def restart(self, away: float = 3.0) -> None:
        """Kills it, and again for as long as it shall be away: the node's kubelet starts it each time."""
        killing = ("docker", "exec", self.node, "pkill", "-KILL", "-x", "kube-apiserver")
        subprocess.run(killing, check=True)
        until = time.monotonic() + away
        while time.monotonic() < until:
            subprocess.run(killing, check=False)
            time.sleep(0.2)


def found() -> ApiServer | None:
    """The API server of this machine, if it has one that may be stopped."""
    nodes = subprocess.run(_NODES, capture_output=True, text=True, check=True).stdout.split()
    if nodes:
        return Pod(nodes[0])
    for folder in Path("/proc").iterdir():
        if (
            folder.name.isdecimal()
            and (command := _command(folder))
            and Path(command[0]).name == "kube-apiserver"
        ):
            return Process(int(folder.name), command, str((folder / "fd" / "1").readlink()))
    return None


def _command(folder: Path) -> list[str]:
    try:
        return [part.decode() for part in (folder / "cmdline").read_bytes().split(b"\0") if part]
    except OSError:
        return []
