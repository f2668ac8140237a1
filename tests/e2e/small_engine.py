"""A container engine of one test, with a small disk, a network and processes of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.application import ROOT
from deploy.clients.docker.client import DockerEngine
from deploy.machine import services
from deploy.settings.reading import Settings
from tests.e2e.rights import myself, root, small_disk
from tests.missing import lacking

_PATIENCE = 60.0
_GRACE = 60.0


class SmallEngine:
    """An engine that can be killed and started again.

    Args:
        folder: for its socket, its log and its temporary state.
        disk: the folder whose small disk holds its data.
        place: the process that keeps its namespaces: all that the engine starts ends with it.
    """

    def __init__(self, folder: Path, disk: Path, place: int) -> None:
        self.disk = disk
        self._folder = folder
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """The value of DOCKER_HOST for this engine."""
        return f"unix://{self._folder}/socket"

    @property
    def within(self) -> tuple[str, ...]:
        """The words by which a command runs on the engine's network."""
        return (*root("nsenter", "-t", str(self._place), "-n", "--"), *myself())

    def fill(self, left: int) -> None:
        """Fill the disk, except for a number of bytes."""
        ballast = self.disk / "ballast"
        ballast.unlink(missing_ok=True)
        space = os.statvfs(self.disk)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - left))

    def start(self) -> None:
        """Start the engine on its data, as a service manager would, and wait until it answers."""
        # Its temporary state is not on the small disk, as on any machine.
        places = (
            f"--data-root {self.disk}/data --exec-root {self._folder}/exec "
            f"--pidfile {self._folder}/pid -H {self.host}"
        )
        # systemd knows these processes by other numbers, so it cannot make groups of them.
        words = f"{places} -G {os.getgid()} --exec-opt native.cgroupdriver=cgroupfs".split()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._inside("dockerd", *words), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _PATIENCE
        while (
            subprocess.run(
                ["docker", "-H", self.host, "version"], capture_output=True, check=False
            ).returncode
            != 0
        ):
            assert self._process.poll() is None, self._said()
            assert time.monotonic() < deadline, f"the engine did not come up\n{self._said()}"
            time.sleep(0.1)

    def crash(self) -> None:
        """Kill the engine alone; its containers get no signal."""
        self._end("KILL")

    def stop(self) -> None:
        """Stop the engine with its containers; one that was killed is started first to do that."""
        if self._process is None:
            self.start()
        self._end("TERM")

    def _end(self, signal: str) -> None:
        assert self._process is not None, "the engine does not run"
        subprocess.run(
            self._inside("sh", "-c", f"kill -{signal} $(cat {self._folder}/pid)"), check=True
        )
        self._process.wait(_GRACE)
        self._process = None

    def _inside(self, *command: str) -> tuple[str, ...]:
        """Return a command as the administrator runs it in the engine's namespaces."""
        return root(
            "nsenter",
            "-t",
            str(self._place),
            "-n",
            "-m",
            f"--pid=/proc/{self._place}/ns/pid_for_children",
            "--",
            *command,
        )

    def _said(self) -> str:
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]


@contextmanager
def small_engine(size: str) -> Iterator[SmallEngine]:
    """Start an engine that has the image of the proxy and the registry, and no other.

    All that it started ends with it.
    """
    if shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        lacking("no dockerd is here", "`sudo apt-get install docker.io` brings it")
    # The folder has a short name, because the paths of sockets are limited.
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    try:
        with small_disk(folder / "disk", size) as disk, _place(folder) as place:
            engine = SmallEngine(folder, disk, place)
            engine.start()
            try:
                _copy_parts(engine)
                yield engine
            finally:
                engine.stop()
    finally:
        subprocess.run(root("rm", "-rf", str(folder)), check=True)


@contextmanager
def _place(folder: Path) -> Iterator[int]:
    """Make a network, a mount and a process namespace; yield the process that keeps them.

    All processes in the namespace end with that one.
    """
    # The machine's own containerd is hidden, because the engine would keep its images there.
    alone = (
        "ip link set lo up && { test ! -d /run/containerd || mount -t tmpfs none /run/containerd; }"
    )
    # The shell reaps processes whose parents have ended; without that they would count as alive.
    inside = f"{alone} && touch {folder}/ready && while sleep 60; do :; done"
    unshared = (
        "unshare",
        "-n",
        "-m",
        "-p",
        "-f",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        inside,
    )
    process = subprocess.Popen(
        root("sh", "-c", f'echo $$ >{folder}/place && exec "$@"', "sh", *unshared),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not (folder / "ready").exists():
            assert process.poll() is None, "the administrator may make no namespaces here"
            assert time.monotonic() < deadline, "the namespaces were not made"
            time.sleep(0.05)
        yield int((folder / "place").read_text(encoding="utf-8"))
    finally:
        with suppress(OSError, ValueError):
            subprocess.run(
                root("kill", "-9", (folder / "place").read_text(encoding="utf-8").strip()),
                check=False,
            )
        process.wait(_GRACE)


def _copy_parts(running: SmallEngine) -> None:
    """Copy the image of the proxy and the registry; without a network it cannot be built."""
    tag = services.ensure_services_image(DockerEngine(), Settings.read(ROOT, {}).image)
    with subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE) as saved:
        subprocess.run(
            ["docker", "-H", running.host, "load", "-q"],
            stdin=saved.stdout,
            capture_output=True,
            check=True,
        )
