"""The operating system of this machine, where it is Debian or a derivative.

It installs packages, starts services, and makes a base file system. What needs root runs by `sudo`
unless this is root already; without a terminal, `sudo` never asks for a password.
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
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy import progress
from deploy.clients.environment import engine_variables
from deploy.errors import PartMissing
from deploy.platforms import architecture_of, format_platform

_SOURCES = Path("/etc/apt")
# Packages that newer releases of Debian have split off; older releases do not have them.
_SPLIT_OFF = {"docker.io": ("docker-cli",)}
_TAIL_LINES = 8
# As in Docker's own service; where this is not permitted, as many as are.
_MANY_FILES = 'ulimit -n 1048576 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"; exec "$@"'


def is_debian() -> bool:
    """Return whether Debian packages can be installed here."""
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return False
    return (
        bool(re.search(r"^ID(_LIKE)?=.*debian", release, re.MULTILINE))
        and shutil.which("apt-get") is not None
    )


def has_systemd() -> bool:
    """Return whether systemd starts the services."""
    return Path("/run/systemd/system").is_dir()


def root_prefix() -> list[str] | None:
    """Return the words before a command that run it as root, or None if that is impossible."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    check = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)  # noqa: S607 - sudo from the PATH
    if check.returncode == 0:
        return ["sudo", "-n"]
    return ["sudo"] if sys.stdin.isatty() else None


def install(package: str, program: str) -> None:
    """Install a package if its program is not on the PATH.

    Raises:
        PartMissing: this is not Debian, this user may not install, or the installation failed.
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
    apt_get = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    # A new machine has no package lists, or old ones.
    run([*apt_get, "update", "-q"], doing=f"reading package lists for {package}")
    packages = [package, *filter(_is_available, _SPLIT_OFF.get(package, ()))]
    run(
        [*apt_get, "install", "-y", "-q", "--no-install-recommends", *packages],
        doing=f"installing {package}",
    )


def _is_available(package: str) -> bool:
    """Return whether this release has a package."""
    command = ["apt-cache", "show", package]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - a fixed command


def find_program(program: str) -> str | None:
    """Return the path of a program; this includes the folders that only root has on its PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def run(command: list[str], doing: str) -> None:
    """Run a program and show its lines as they come.

    Args:
        command: the program and its arguments.
        doing: what it does, for people, such as `installing docker.io`.

    Raises:
        PartMissing: it failed; its last lines are in the detail.
    """
    lines: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(  # noqa: S603 - the commands are those of this module
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was requested above
        for line in process.stdout:
            lines.append(line.rstrip())
            progress.report(f"{doing}: {line.strip()}")
    if process.returncode != 0:
        detail = "\n".join(f"  {line}" for line in lines)
        raise PartMissing(
            f"{doing} failed",
            on=command[0],
            next="see the last lines; run the command yourself",
            detail=detail,
        )


def start_engine(log: Path, pid: Path, is_ready: Callable[[], bool], timeout: float) -> None:
    """Start the Docker daemon: as a service where there is systemd, or else as a process.

    Args:
        log: the log file of the process.
        pid: the file for its number, which `stop_engine` reads.
        is_ready: returns whether the engine can be used.
        timeout: seconds until it has to be ready.

    Raises:
        PartMissing: it did not start; the end of its log is in the detail.
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
        daemon = _start_daemon(root, log, pid)
    deadline = time.monotonic() + timeout
    while not is_ready():
        if time.monotonic() > deadline:
            raise PartMissing(
                "the container engine did not start",
                on="dockerd",
                next="see its log",
                detail=_last_lines(log),
            )
        progress.report("waiting for the container engine")
        time.sleep(0.2)
        if daemon and daemon.poll() is not None:
            # A daemon that was killed a moment ago can still block the next one.
            time.sleep(1)
            daemon = _start_daemon(root, log, pid)


def _start_daemon(root: list[str], log: Path, pid: Path) -> subprocess.Popen[bytes]:
    """Start a Docker daemon that outlives this process, and whose containers may open many files.

    Its containers inherit its limit of open files. Variables of the engine that a client uses would
    change what the daemon does.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - a fixed command
            [*root, "sh", "-c", _MANY_FILES, "sh", find_program("dockerd") or "dockerd"],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=engine_variables({}),
        )
    pid.write_text(str(process.pid), encoding="utf-8")
    return process


def stop_engine(pid: Path) -> bool:
    """Stop a daemon that `start_engine` started as a process; return False if there is none."""
    try:
        number = int(pid.read_text(encoding="utf-8"))
        pid.unlink()
        if "docker" not in Path(f"/proc/{number}/cmdline").read_text(encoding="utf-8"):
            return False
    except (OSError, ValueError):
        return False
    root = root_prefix()
    if root:
        subprocess.run([*root, "kill", str(number)], check=False, stdin=subprocess.DEVNULL)  # noqa: S603 - a fixed command
    else:
        os.kill(number, signal.SIGTERM)
    for _ in range(100):
        if _has_ended(number):
            break
        progress.report("waiting for the container engine to stop")
        time.sleep(0.1)
    return True


def _has_ended(number: int) -> bool:
    """Return whether a process has ended; without a parent that reaps it, it stays as a zombie."""
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return True
    return state.split()[:1] == ["Z"]


def join_engine_group() -> bool:
    """Add this user to the engine's group from the next login on.

    Returns:
        False if that is impossible.
    """
    root = root_prefix()
    user = _user()
    if root is None or user is None or os.geteuid() == 0:
        return False
    command = [*root, "usermod", "-aG", "docker", user]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - a fixed command


def has_joined_engine_group() -> bool:
    """Return whether this user has joined the engine's group after this process started."""
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
    """Replace this process by the same command, run as a member of the engine's group."""
    sys.stderr.flush()
    command = shlex.join([sys.executable, *sys.orig_argv[1:]])
    os.execvp("sg", ["sg", "docker", "-c", command])  # noqa: S606, S607 - the same command again


def _user() -> str | None:
    """Return this user's name, or None if the user database has none for the number."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def make_base_archive(suite: str, target: Path) -> None:
    """Write a small Debian file system as a tar file, from packages, as the slim images are made.

    Args:
        suite: the release's name, such as `trixie`.
        target: the tar file.

    Raises:
        PartMissing: the tool for it is missing, or failed.
    """
    install("mmdebstrap", "mmdebstrap")
    root = root_prefix() or []
    # The official slim variant leaves these out.
    excluded = ("man", "info", "locale", "groff", "lintian", "doc")
    options = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in excluded] + [
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


def platform() -> str:
    """Return the platform of the programs of this machine, if they run in a container."""
    return format_platform("linux", architecture_of(os.uname().machine))


def _mirrors(suite: str) -> Iterator[str]:
    """Yield the mirrors of this machine, for a release; without any, the tool uses its own."""
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


def _last_lines(log: Path) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in text.splitlines()[-_TAIL_LINES:])
