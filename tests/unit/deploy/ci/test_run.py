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
    """Remove the variables of all CI systems."""
    for variable in (*VARIABLES, *GITHUB, *AZURE, *GITLAB):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LOGNAME", "ada")


@pytest.mark.parametrize("variable", VARIABLES)
def test_on_a_ci_runner_the_user_is_the_one_of_the_run(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A slash in the name does not break the text form of an identity."""
    monkeypatch.setenv(variable, "team/ada")
    assert current_user() == "team-ada"
    assert ProcessId.parse(str(ProcessId.current())) == ProcessId.current()


def test_outside_ci_the_user_is_that_of_the_operating_system() -> None:
    """It is the name of the login."""
    assert current_user() == "ada"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a number without a name."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert current_user() == "4000000000"


@pytest.mark.parametrize(("variables", "expected"), RUNS)
def test_a_ci_run_has_a_url(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """GitHub Actions, Azure Pipelines and GitLab have different variables."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert run_url() == expected


@pytest.mark.parametrize(("variables", "expected"), RUNS)
@pytest.mark.parametrize("login", ["ada:s3cret@", "s3cret@", "ada:s3c@ret@"])
def test_the_url_of_a_ci_run_has_no_login(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str, login: str
) -> None:
    """A server's URL may have one."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value.replace("https://", f"https://{login}"))
    assert run_url() == expected


def test_the_default_server_is_github_com(monkeypatch: pytest.MonkeyPatch) -> None:
    """GITHUB_SERVER_URL need not be set."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/classifier")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    assert run_url() == "https://github.com/team/classifier/actions/runs/7"


@pytest.mark.parametrize("variables", [{}, {"GITHUB_RUN_ID": "7"}, {"BUILD_BUILDID": "7"}])
def test_outside_ci_there_is_no_url(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Incomplete variables count as none."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert run_url() == ""
