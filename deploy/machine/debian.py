"""The operating system of this machine, where it is Debian or one of its family: packages, services, a base file system.

Everything that needs the administrator goes through `sudo` unless this is root already; it never asks for a password
where nobody could type one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy import progress
from deploy.errors import PartMissing

_SOURCES = Path("/etc/apt")
# What newer releases of Debian have in packages of their own; older ones do not know those.
_SPLIT_OFF = {"docker.io": ("docker-cli",)}
_TAIL = 8


def is_debian() -> bool:
    """Whether packages of Debian's kind can be installed here."""
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return False
    return (
        bool(re.search(r"^ID(_LIKE)?=.*debian", release, re.MULTILINE))
        and shutil.which("apt-get") is not None
    )


def has_systemd() -> bool:
    """Whether services are started by systemd."""
    return Path("/run/systemd/system").is_dir()


def root_prefix() -> list[str] | None:
    """What to put before a command to run it as root: nothing, `sudo`, or None if neither will do."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    quiet = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0  # noqa: S607
    return ["sudo", "-n"] if quiet else ["sudo"] if sys.stdin.isatty() else None


def install(package: str, program: str) -> None:
    """Installs a package if its program is not on the PATH.

    Raises:
        PartMissing: this is no Debian, nobody may install here, or the installation failed.
    """
    if find_program(program):
        return
    root = root_prefix()
    if not is_debian() or root is None:
        cure = (
            f"sudo apt-get install {package}"
            if is_debian()
            else f"install {program} with your system's package manager"
        )
        raise PartMissing(
            f"{program} is not installed, and cannot be installed from here",
            on="this machine",
            next=cure,
        )
    environment = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    # A machine that was never updated has no package lists, or old ones.
    run([*environment, "update", "-q"], doing=f"reading package lists for {package}")
    wanted = [package, *filter(_is_known, _SPLIT_OFF.get(package, ()))]
    run(
        [*environment, "install", "-y", "-q", "--no-install-recommends", *wanted],
        doing=f"installing {package}",
    )


def _is_known(package: str) -> bool:
    """Whether this release has a package."""
    return (
        subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).returncode  # noqa: S603, S607
        == 0
    )


def find_program(program: str) -> str | None:
    """Where a program is, also in the folders that only root has on its PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def run(command: list[str], doing: str) -> None:
    """Runs a program, showing its lines as they come.

    Raises:
        PartMissing: it failed; its last lines are in the detail.
    """
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for line in process.stdout:
            lines = [*lines[-_TAIL:], line.rstrip()]
            progress.report(f"{doing}: {line.strip()}")
    if process.returncode != 0:
        detail = "\n".join(f"  {line}" for line in lines[-_TAIL:])
        raise PartMissing(
            f"{doing} failed",
            on=command[0],
            next="see the last lines; run the command by hand",
            detail=detail,
        )


def start_engine(log: Path, pid: Path, answers: Callable[[], bool], within: float) -> None:
    """Starts the Docker daemon: as a service where there is systemd, else as a process of its own.

    Args:
        log: where a process of its own writes.
        pid: where its number is kept, for `stop_engine`.
        answers: whether the engine can be used.
        within: seconds until it must.

    Raises:
        PartMissing: it did not come up; the end of its log is in the detail.
    """
    root = root_prefix()
    if root is None:
        raise PartMissing(
            "the container engine is not running",
            on="this machine",
            next="start it as root: `sudo systemctl start docker`",
        )
    daemon = None
    if has_systemd():
        run([*root, "systemctl", "enable", "--now", "docker"], doing="starting docker")
    else:
        daemon = _daemon(root, log, pid)
    deadline = time.monotonic() + within
    while not answers():
        if time.monotonic() > deadline:
            raise PartMissing(
                "the container engine did not come up",
                on="dockerd",
                next="see its log",
                detail=_tail(log),
            )
        progress.report("waiting for the container engine")
        time.sleep(0.2)
        if daemon and daemon.poll() is not None:
            # One that was killed a moment ago can still be in the way of the next.
            time.sleep(1)
            daemon = _daemon(root, log, pid)


def _daemon(root: list[str], log: Path, pid: Path) -> subprocess.Popen[bytes]:
    """A Docker daemon that outlives this process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603
            [*root, find_program("dockerd") or "dockerd"],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    pid.write_text(str(process.pid), encoding="utf-8")
    return process


def stop_engine(pid: Path) -> bool:
    """Stops a daemon that `start_engine` started as a process of its own; False if there is none."""
    try:
        number = int(pid.read_text(encoding="utf-8"))
        pid.unlink()
        if "docker" not in Path(f"/proc/{number}/cmdline").read_text(encoding="utf-8"):
            return False
    except (OSError, ValueError):
        return False
    root = root_prefix()
    if root:
        subprocess.run([*root, "kill", str(number)], check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    else:
        os.kill(number, signal.SIGTERM)
    for _ in range(100):
        if _has_ended(number):
            break
        progress.report("waiting for the container engine to stop")
        time.sleep(0.1)
    return True


def _has_ended(number: int) -> bool:
    """Whether a process has; where nobody takes leave of those whose parents are gone, it stays as a zombie."""
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return True
    return state.split()[:1] == ["Z"]


def join_engine_group() -> bool:
    """Lets this user use the engine from the next login on; False if that cannot be arranged."""
    root = root_prefix()
    if root is None or os.geteuid() == 0:
        return False
    done = subprocess.run(  # noqa: S603
        [*root, "usermod", "-aG", "docker", _user()], capture_output=True, check=False
    )
    return done.returncode == 0


def has_joined_engine_group() -> bool:
    """Whether this user is in the engine's group by now, though this process, being older, is not."""
    import grp

    try:
        group = grp.getgrnam("docker")
    except KeyError:
        return False
    return (
        _user() in group.gr_mem
        and group.gr_gid not in os.getgroups()
        and shutil.which("sg") is not None
    )


def restart_as_member() -> None:
    """Replaces this process by the same command, run as a member of the engine's group."""
    sys.stderr.flush()
    os.execvp("sg", ["sg", "docker", "-c", shlex.join([sys.executable, *sys.orig_argv[1:]])])  # noqa: S606, S607 - the same command again


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def make_base_archive(suite: str, target: Path) -> None:
    """Writes a small Debian file system as a tar, from packages, as the official slim images are made.

    Args:
        suite: the release's name, such as `trixie`.
        target: the tar.

    Raises:
        PartMissing: the tool for it is missing, or failed.
    """
    install("mmdebstrap", "mmdebstrap")
    root = root_prefix() or []
    # What the official slim variant leaves out.
    left_out = ("man", "info", "locale", "groff", "lintian", "doc")
    options = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in left_out] + [
        "--dpkgopt=path-include=/usr/share/doc/*/copyright"
    ]
    command = [
        *root,
        "mmdebstrap",
        "--variant=minbase",
        "--format=tar",
        *options,
        suite,
        str(target),
        *_mirrors(suite),
    ]
    run(command, doing=f"making a base image from Debian {suite}'s packages")


def _mirrors(suite: str) -> Iterator[str]:
    """The mirrors that this machine uses itself, for another release; none means the tool's own default."""
    addresses = {address.rstrip("/") for address in _addresses()}
    main = sorted(address for address in addresses if address.endswith("/debian"))
    security = sorted(address for address in addresses if address.endswith("/debian-security"))
    if main:
        yield f"deb {main[0]} {suite} main"
        yield f"deb {main[0]} {suite}-updates main"
        yield from (f"deb {address} {suite}-security main" for address in security[:1])


def _addresses() -> Iterator[str]:
    for path in (
        _SOURCES / "sources.list",
        *_SOURCES.glob("sources.list.d/*.list"),
        *_SOURCES.glob("sources.list.d/*.sources"),
    ):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        yield from re.findall(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", text, re.MULTILINE)


def _tail(log: Path) -> str:
    try:
        return "\n".join(
            f"  {line}"
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        )
    except OSError:
        return ""
