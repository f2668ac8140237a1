"""The operating system: the engine's group, the start and stop of the engine, packages."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.errors import EngineDenied
from deploy.machine import debian, host
from tests.fakes.programs import write_program


@pytest.fixture(name="group")
def _group(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the engine's group, of which this process is no member."""
    group = SimpleNamespace(gr_gid=max(os.getgroups(), default=0) + 1000, gr_mem=[])
    monkeypatch.setattr(grp, "getgrnam", lambda name: group)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="developer"))
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    return group


def test_a_user_outside_the_group_has_not_joined_it(group: SimpleNamespace) -> None:
    """A new process would not help."""
    assert debian.has_joined_engine_group() is False


def test_a_user_who_joined_after_login_has_joined(group: SimpleNamespace) -> None:
    """The user database has it; this process is older."""
    group.gr_mem.append("developer")

    assert debian.has_joined_engine_group() is True


def test_a_process_of_the_group_need_not_restart(group: SimpleNamespace) -> None:
    """It is denied for another reason, and restarts would never end."""
    group.gr_mem.append("developer")
    group.gr_gid = os.getgid()
    assert debian.has_joined_engine_group() is (os.getgid() not in os.getgroups())


def test_without_the_group_no_user_has_joined_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no engine."""

    def missing(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", missing)

    assert debian.has_joined_engine_group() is False


@pytest.mark.parametrize("member", [True, False])
def test_only_a_new_member_restarts_when_access_is_denied(
    monkeypatch: pytest.MonkeyPatch, member: bool
) -> None:
    """For another user, a new process would be denied too."""
    started: list[str] = []

    def denied() -> None:
        raise EngineDenied("no", on="the socket", next="join")

    monkeypatch.setattr("deploy.clients.docker.client.DockerEngine", denied)
    monkeypatch.setattr(debian, "has_joined_engine_group", lambda: member)
    monkeypatch.setattr(debian, "restart_as_member", lambda: started.append("again"))

    with pytest.raises(EngineDenied):
        host.connect_engine()
    assert started == (["again"] if member else [])


def test_a_daemon_that_ends_at_once_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that was killed a moment ago may still block the next one."""
    write_program(
        tmp_path / "dockerd",
        f"cd {tmp_path}\nif [ -e first ]; then touch up; else touch first; exit 1; fi",
    )
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(debian, "root_prefix", list)
    monkeypatch.setattr(debian, "has_systemd", lambda: False)

    debian.start_engine(tmp_path / "log", tmp_path / "pid", (tmp_path / "up").exists, timeout=20)

    assert (tmp_path / "pid").read_text(encoding="utf-8").isdecimal()


@pytest.mark.parametrize(
    ("available", "packages"), [(True, ["docker.io", "docker-cli"]), (False, ["docker.io"])]
)
def test_an_engine_is_installed_with_its_command_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    available: bool,
    packages: list[str],
) -> None:
    """Newer releases of Debian have it in a package of its own, which older ones do not have."""
    for name, code in (("apt-get", 0), ("apt-cache", 0 if available else 100)):
        write_program(tmp_path / name, f'echo "{name} $*" >>{tmp_path}/asked\nexit {code}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(debian, "root_prefix", list)
    monkeypatch.setattr(debian, "is_debian", lambda: True)
    debian.install("docker.io", "no-such-daemon")
    calls = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert calls[0] == "apt-get update -q"
    assert calls[-1] == f"apt-get install -y -q --no-install-recommends {' '.join(packages)}"


def test_a_daemon_that_ends_as_a_zombie_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, the first process may not reap processes without a parent."""
    monkeypatch.setattr(debian, "root_prefix", list)
    program = "import time; print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, "docker"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        (tmp_path / "pid").write_text(str(process.pid), encoding="utf-8")
        start = time.monotonic()
        assert debian.stop_engine(tmp_path / "pid")
        assert time.monotonic() - start < 5
        assert Path(f"/proc/{process.pid}").exists()
    assert not debian.stop_engine(tmp_path / "pid")


def test_a_daemon_may_open_many_files_and_gets_no_variables_of_a_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit is 1048576, or the highest that is permitted; a variable could turn TLS on."""
    write_program(
        tmp_path / "dockerd",
        f"(ulimit -S -n; ulimit -H -n; env | grep -c ^DOCKER_) >{tmp_path}/found\n"
        f"touch {tmp_path}/up\nsleep 1",
    )
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setattr(debian, "root_prefix", list)
    monkeypatch.setattr(debian, "has_systemd", lambda: False)
    debian.start_engine(tmp_path / "log", tmp_path / "pid", (tmp_path / "up").exists, timeout=20)
    soft, hard, variables = (tmp_path / "found").read_text(encoding="utf-8").split()
    assert soft in ("1048576", hard)
    assert variables == "0"


def test_a_user_without_a_name_joins_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as a number that the user database does not know."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=1, gr_mem=["ada"]))
    monkeypatch.setattr(debian, "root_prefix", lambda: ["sudo", "-n"])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not debian.join_engine_group()
    assert not debian.has_joined_engine_group()
