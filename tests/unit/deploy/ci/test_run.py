"""The user and the CI run that a release names."""

from __future__ import annotations

import os

import pytest

from deploy.ci.run import current_user, run_url
from deploy.machine.process import ProcessId

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
    assert run_url() == expected


@pytest.mark.parametrize(("told", "expected"), RUNS)
@pytest.mark.parametrize("login", ["ada:s3cret@", "s3cret@", "ada:s3c@ret@"])
def test_the_address_of_a_ci_run_holds_no_login(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], expected: str, login: str
) -> None:
    """A server that is named with one is remembered without it."""
    for variable, value in told.items():
        monkeypatch.setenv(variable, value.replace("https://", f"https://{login}"))
    assert run_url() == expected


def test_the_usual_server_need_not_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is GitHub's own."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/classifier")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    assert run_url() == "https://github.com/team/classifier/actions/runs/7"


@pytest.mark.parametrize("told", [{}, {"GITHUB_RUN_ID": "7"}, {"BUILD_BUILDID": "7"}])
def test_elsewhere_there_is_no_ci_run(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str]
) -> None:
    """Half an address is none."""
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    assert run_url() == ""
