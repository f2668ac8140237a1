"""The API server of a cluster whose parts are processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ApiServer:
    """A process, with all that is needed to start it again.

    Args:
        process: its number.
        command: its arguments.
        log: where it writes to.
    """

    process: int
    command: list[str]
    log: str

    @classmethod
    def found(cls) -> ApiServer | None:
        """The API server of this machine, if it has one that may be stopped."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and (command := _command(folder)) and Path(command[0]).name == "kube-apiserver":
                return cls(int(folder.name), command, str((folder / "fd" / "1").readlink()))
        return None

    def restart(self, away: float = 3.0) -> None:
        """Kills it, leaves it away for some seconds, and starts it again."""
        os.kill(self.process, signal.SIGKILL)
        time.sleep(away)
        with Path(self.log).open("ab") as log:
            subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _command(folder: Path) -> list[str]:
    try:
        return [part.decode() for part in (folder / "cmdline").read_bytes().split(b"\0") if part]
    except OSError:
        return []
