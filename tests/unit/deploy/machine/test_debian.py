"""The operating system: who may use the engine, and starting it."""

from __future__ import annotations

import grp
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.errors import EngineDenied
from deploy.machine import debian, host


@pytest.fixture(name="group")
def _group(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The engine's group, of which this process is no member."""
    group = SimpleNamespace(gr_gid=max(os.getgroups(), default=0) + 1000, gr_mem=[])
    monkeypatch.setattr(grp, "getgrnam", lambda name: group)
    monkeypatch.setattr(debian, "_user", lambda: "developer")
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    return group


def test_a_stranger_to_the_group_is_no_member(group: SimpleNamespace) -> None:
    """Another process would not help."""
    assert debian.has_joined_engine_group() is False


def test_one_who_was_made_a_member_lately_is_told_from_this_process(group: SimpleNamespace) -> None:
    """The database knows, this process is older."""
    group.gr_mem.append("developer")

    assert debian.has_joined_engine_group() is True


def test_a_process_of_the_group_need_not_start_again(group: SimpleNamespace) -> None:
    """It is denied for another reason, and starting again would never end."""
    group.gr_mem.append("developer")
    group.gr_gid = os.getgid()
    assert debian.has_joined_engine_group() is (os.getgid() not in os.getgroups())


def test_where_there_is_no_such_group_nobody_is_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an engine."""

    def missing(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", missing)

    assert debian.has_joined_engine_group() is False


@pytest.mark.parametrize("member", [True, False])
def test_a_late_member_starts_again_and_a_stranger_is_told(
    monkeypatch: pytest.MonkeyPatch, member: bool
) -> None:
    """The engine's refusal is only passed on where a new process would be refused as well."""
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
    """One that was killed a moment ago may still be in the way of the next."""
    daemon = tmp_path / "dockerd"
    daemon.write_text(
        f"#!/bin/sh\ncd {tmp_path}\nif [ -e first ]; then touch up; else touch first; exit 1; fi\n",
        encoding="utf-8",
    )
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(debian, "root_prefix", list)
    monkeypatch.setattr(debian, "has_systemd", lambda: False)

    debian.start_engine(tmp_path / "log", tmp_path / "pid", (tmp_path / "up").exists, within=20)

    assert (tmp_path / "pid").read_text(encoding="utf-8").isdecimal()


@pytest.mark.parametrize(
    ("known", "installed"), [(True, ["docker.io", "docker-cli"]), (False, ["docker.io"])]
)
def test_an_engine_comes_with_its_command_line_wherever_that_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
    installed: list[str],
) -> None:
    """Newer releases of Debian have it in a package of its own, which older ones do not know."""
    for name, code in (("apt-get", 0), ("apt-cache", 0 if known else 100)):
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/asked\nexit {code}\n', encoding="utf-8"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(debian, "root_prefix", list)
    monkeypatch.setattr(debian, "is_debian", lambda: True)
    debian.install("docker.io", "no-such-daemon")
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert asked[0] == "apt-get update -q"
    assert asked[-1] == f"apt-get install -y -q --no-install-recommends {' '.join(installed)}"


def test_a_process_that_nobody_has_taken_leave_of_has_ended() -> None:
    """As in a container whose first process does not look after those without a parent."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert debian._has_ended(process.pid)
        assert not debian._has_ended(os.getpid())
    assert debian._has_ended(process.pid)
