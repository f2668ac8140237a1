"""Who holds something, and whether they still live."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.machine.process import ProcessId, ci_run_url, current_user, has_ended, machine_id

VARIABLES = ("GITHUB_ACTOR", "BUILD_REQUESTEDFOR", "GITLAB_USER_LOGIN")
GITHUB = {
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "team/classifier",
    "GITHUB_RUN_ID": "7",
}
AZURE = {
    "SYSTEM_COLLECTIONURI": "https://dev.azure.example/team/",
    "SYSTEM_TEAMPROJECT": "The shop",
    "BUILD_BUILDID": "7",
}
GITLAB = {"CI_PIPELINE_URL": "https://gitlab.example/team/classifier/-/pipelines/7"}
RUNS = [
    (GITHUB, "https://github.example/team/classifier/actions/runs/7"),
    (AZURE, "https://dev.azure.example/team/The%20shop/_build/results?buildId=7"),
    (GITLAB, "https://gitlab.example/team/classifier/-/pipelines/7"),
]


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away what a CI system says."""
    for variable in (*VARIABLES, *GITHUB, *AZURE, *GITLAB):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LOGNAME", "ada")


def test_the_process_that_asks_is_alive() -> None:
    """And is shown with its person, machine and number."""
    owner = ProcessId.current()
    assert owner.alive
    assert owner.display == f"ada on {socket.gethostname()} (process {os.getpid()})"


def test_an_owner_is_read_back_as_it_was_written() -> None:
    """So that a label or a file can hold it."""
    assert ProcessId.parse(str(ProcessId.current())) == ProcessId.current()


def test_a_process_that_ended_is_not_alive() -> None:
    """Nobody has its number."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not ProcessId("ada", socket.gethostname(), process.pid, "1").alive


def test_a_later_process_of_the_same_number_is_another() -> None:
    """The moment of its start tells them apart."""
    owner = ProcessId.current()
    assert not ProcessId(owner.person, owner.host, owner.process, f"{owner.started}0").alive


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be allowed to signal it is no proof of its death."""

    def refuse(*_: int) -> None:
        raise PermissionError

    owner = ProcessId.current()
    monkeypatch.setattr(os, "kill", refuse)
    assert owner.alive
    assert not ProcessId(owner.person, owner.host, owner.process, "1").alive


def test_a_process_of_another_machine_is_taken_to_be_alive() -> None:
    """It cannot be looked at from here."""
    assert ProcessId("ada", "another-machine", 4_000_000, "1").alive


@pytest.mark.parametrize(
    "text",
    ["", "ada", "ada/host/one/2", "a/b/c/d/e", "ada/host/-1/2", "ada/host/99999999999999999999/2"],
)
def test_what_is_no_owner_cannot_be_alive(text: str) -> None:
    """A label that somebody else wrote stops nobody, if it says nothing of another machine."""
    text = text.replace("host", socket.gethostname())
    assert not ProcessId.parse(text).alive


@pytest.mark.parametrize("variable", VARIABLES)
def test_on_a_ci_runner_it_is_who_asked_for_the_run(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The runner's own user says nothing; a name with a slash does not break what is written."""
    monkeypatch.setenv(variable, "team/ada")
    assert current_user() == "team-ada"
    assert ProcessId.parse(str(ProcessId.current())) == ProcessId.current()


def test_elsewhere_it_is_the_user() -> None:
    """The name of the login."""
    assert current_user() == "ada"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number of its own."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert current_user() == "4000000000"


@pytest.mark.parametrize(("told", "expected"), RUNS)
def test_a_ci_run_is_known_by_its_address(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], expected: str
) -> None:
    """On GitHub Actions, Azure Pipelines and GitLab, each in its own words."""
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    assert ci_run_url() == expected


@pytest.mark.parametrize(("told", "expected"), RUNS)
@pytest.mark.parametrize("login", ["ada:s3cret@", "s3cret@", "ada:s3c@ret@"])
def test_the_address_of_a_ci_run_holds_no_login(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], expected: str, login: str
) -> None:
    """A server that is named with one is remembered without it."""
    for variable, value in told.items():
        monkeypatch.setenv(variable, value.replace("https://", f"https://{login}"))
    assert ci_run_url() == expected


def test_the_usual_server_need_not_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is GitHub's own."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/classifier")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    assert ci_run_url() == "https://github.com/team/classifier/actions/runs/7"


@pytest.mark.parametrize("told", [{}, {"GITHUB_RUN_ID": "7"}, {"BUILD_BUILDID": "7"}])
def test_elsewhere_there_is_no_ci_run(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str]
) -> None:
    """Half an address is none."""
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    assert ci_run_url() == ""


def test_that_a_process_ended_is_known_of_this_machine_alone() -> None:
    """Another one may have the same name, and a process of that number."""
    alive = ProcessId.current()
    dead = ProcessId(alive.person, alive.host, alive.process, f"{alive.started}0")
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
