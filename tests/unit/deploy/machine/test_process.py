"""The identity of processes, and whether they still run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.machine.process import ProcessId, has_ended, machine_id


def test_the_current_process_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is displayed with its user, machine and number."""
    monkeypatch.setattr("deploy.machine.process.current_user", lambda: "ada")
    process_id = ProcessId.current()
    assert process_id.is_alive
    assert process_id.display == f"ada on {socket.gethostname()} (process {os.getpid()})"


def test_an_identity_can_be_parsed_again() -> None:
    """Labels and files hold it as text."""
    assert ProcessId.parse(str(ProcessId.current())) == ProcessId.current()


def test_a_process_that_ended_is_not_alive() -> None:
    """No process has its number."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not ProcessId("ada", socket.gethostname(), process.pid, "1").is_alive


def test_a_later_process_of_the_same_number_is_another() -> None:
    """The time of its start differs."""
    process_id = ProcessId.current()
    assert not ProcessId(
        process_id.user, process_id.host, process_id.pid, f"{process_id.started}0"
    ).is_alive


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that is not permitted does not show that it has ended."""

    def refuse(*_: int) -> None:
        raise PermissionError

    process_id = ProcessId.current()
    monkeypatch.setattr(os, "kill", refuse)
    assert process_id.is_alive
    assert not ProcessId(process_id.user, process_id.host, process_id.pid, "1").is_alive


def test_a_process_of_another_machine_is_taken_to_be_alive() -> None:
    """It cannot be checked from here."""
    assert ProcessId("ada", "another-machine", 4_000_000, "1").is_alive


@pytest.mark.parametrize(
    "text",
    ["", "ada", "ada/host/one/2", "a/b/c/d/e", "ada/host/-1/2", "ada/host/99999999999999999999/2"],
)
def test_other_text_is_not_alive(text: str) -> None:
    """A malformed label blocks no deployer."""
    text = text.replace("host", socket.gethostname())
    assert not ProcessId.parse(text).is_alive


def test_has_ended_is_known_of_this_machine_alone() -> None:
    """Another machine may have the same name, and a process with the same number."""
    alive = ProcessId.current()
    ended = ProcessId(alive.user, alive.host, alive.pid, f"{alive.started}0")
    assert has_ended(str(ended), machine_id())
    assert not has_ended(str(alive), machine_id())
    assert not has_ended(str(ended), "another machine")


def test_without_a_machine_id_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two empty identities do not mean the same machine."""
    monkeypatch.setattr("deploy.machine.process.machine_id", lambda: "")
    assert not has_ended(str(ProcessId("ada", socket.gethostname(), 0, "")), "")


def test_the_machine_id_is_the_same_for_all_processes() -> None:
    """It is not the host name, which other machines may share."""
    command = [
        sys.executable,
        "-c",
        "from deploy.machine.process import machine_id; print(machine_id())",
    ]
    root = Path(__file__).parents[4]
    assert (
        subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
        == f"{machine_id()}\n"
    )
    assert socket.gethostname() not in machine_id().split()
