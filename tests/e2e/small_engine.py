"""A container engine of a test's own, on a small disk and a network that nobody else sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.application import ROOT
from deploy import parts
from deploy.clients.docker import DockerEngine
from deploy.settings import Settings
from tests.e2e.rights import lacking, myself, root, small_disk

_PATIENCE = 20.0


@dataclass(frozen=True)
class SmallEngine:
    """A running engine: its socket, the folder whose disk holds all of its data, and the number of its process."""

    socket: Path
    disk: Path
    pid: int

    @property
    def host(self) -> str:
        """What DOCKER_HOST must be to use it."""
        return f"unix://{self.socket}"

    @property
    def within(self) -> tuple[str, ...]:
        """What to put before a command to run it on the engine's network."""
        return (*root("nsenter", "-t", str(self.pid), "-n", "--"), *myself())

    def fill(self, left: int) -> None:
        """Takes all of the disk's space but so many bytes."""
        ballast = self.disk / "ballast"
        ballast.unlink(missing_ok=True)
        space = os.statvfs(self.disk)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - left))


@contextmanager
def small_engine(size: str) -> Iterator[SmallEngine]:
    """Starts an engine that holds the image of the proxy and the registry, and nothing else."""
    if shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        lacking("no dockerd is here", "`sudo apt-get install docker.io` brings it")
    # A folder with a short name: the paths of sockets have little room.
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    with small_disk(folder / "disk", size) as disk, (folder / "log").open("wb") as log:
        # Its state in memory is elsewhere, as on any machine: only what it keeps is on the small disk.
        words = f"--data-root {disk}/data --exec-root {folder}/exec --pidfile {folder}/pid -H unix://{folder}/socket -G {os.getgid()}"
        # The machine's own containerd is hidden from it: it would keep images there instead.
        alone = "ip link set lo up && { test ! -d /run/containerd || mount -t tmpfs none /run/containerd; }"
        command = root("unshare", "-n", "-m", "sh", "-c", f"{alone} && exec dockerd {words}")
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            running = SmallEngine(folder / "socket", disk, _ready(folder, process))
            _copy_parts(running)
            yield running
        finally:
            subprocess.run(root("kill", str(process.pid)), check=False)
            process.wait(60)
    subprocess.run(root("rm", "-rf", str(folder)), check=True)


def _ready(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Waits until the engine answers; gives the number of its process."""
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run(["docker", "-H", f"unix://{folder}/socket", "version"], capture_output=True, check=False).returncode != 0:
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
        assert time.monotonic() < deadline, "the engine did not come up"
        time.sleep(0.1)
    return int((folder / "pid").read_text(encoding="utf-8"))


def _copy_parts(running: SmallEngine) -> None:
    """Gives it the image of the proxy and the registry that this machine's engine has; on its own network it could not make one."""
    tag = parts.image(DockerEngine(), Settings.read(ROOT, {}).image)
    with subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE) as saved:
        subprocess.run(["docker", "-H", running.host, "load", "-q"], stdin=saved.stdout, capture_output=True, check=True)
