"""Who holds something, and whether they still live."""

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
    owner = ProcessId.current()
    assert owner.is_alive
    assert owner.display == f"ada on {socket.gethostname()} (process {os.getpid()})"


def test_an_owner_is_read_back_as_it_was_written() -> None:
    """So that a label or a file can hold it."""
    assert ProcessId.parse(str(ProcessId.current())) == ProcessId.current()


def test_a_process_that_ended_is_not_alive() -> None:
    """Nobody has its number."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not ProcessId("ada", socket.gethostname(), process.pid, "1").is_alive


def test_a_later_process_of_the_same_number_is_another() -> None:
    """The moment of its start tells them apart."""
    owner = ProcessId.current()
    assert not ProcessId(owner.user, owner.host, owner.pid, f"{owner.started}0").is_alive


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be allowed to signal it is no proof of its death."""

    def refuse(*_: int) -> None:
        raise PermissionError

    owner = ProcessId.current()
    monkeypatch.setattr(os, "kill", refuse)
    assert owner.is_alive
    assert not ProcessId(owner.user, owner.host, owner.pid, "1").is_alive


def test_a_process_of_another_machine_is_taken_to_be_alive() -> None:
    """It cannot be looked at from here."""
    assert ProcessId("ada", "another-machine", 4_000_000, "1").is_alive


@pytest.mark.parametrize(
    "text",
    ["", "ada", "ada/host/one/2", "a/b/c/d/e", "ada/host/-1/2", "ada/host/99999999999999999999/2"],
)
def test_what_is_no_owner_cannot_be_alive(text: str) -> None:
    """A label that somebody else wrote stops nobody, if it says nothing of another machine."""
    text = text.replace("host", socket.gethostname())
    assert not ProcessId.parse(text).is_alive


def test_that_a_process_ended_is_known_of_this_machine_alone() -> None:
    """Another one may have the same name, and a process of that number."""
    alive = ProcessId.current()
    dead = ProcessId(alive.user, alive.host, alive.pid, f"{alive.started}0")
    assert has_ended(str(dead), machine_id())
    assert not has_ended(str(alive), machine_id())
    assert not has_ended(str(dead), "another machine")


def test_where_machines_cannot_be_told_apart_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody is the same as nobody."""
    monkeypatch.setattr("deploy.machine.process.machine_id", lambda: "")
    assert not has_ended(str(ProcessId("ada", socket.gethostname(), 0, "")), "")


def test_a_machine_is_known_by_more_than_its_name() -> None:
    """By the same for every process of it; other machines and containers of that name were started otherwise."""
    asked = [
        sys.executable,
        "-c",
        "from deploy.machine.process import machine_id; print(machine_id())",
    ]
    root = Path(__file__).parents[4]
    assert (
        subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True).stdout
        == f"{machine_id()}\n"
    )
    assert socket.gethostname() not in machine_id().split()
