"""The two CI systems run the commands that people run, in the same jobs and the same order.

A job may do no more than it needs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ci import azure, github

ROOT = Path(__file__).parents[2]
# The commands of a script that this project compares between the two systems.
COMMAND = re.compile(r"\./run nox [^\n]+|ci/cluster\.sh")
# The keys under which the two systems keep scripts.
SCRIPTS = ("run", "script", "inlineScript")
# The order in which Azure's single file has the workflows.
ORDER = ("ci", "release", "model", "promote")
RELEASING = ("release", "model", "promote")
# What only one place of each system does to log in.
GITHUB_LOGIN = ("ci/kubeconfig.sh)",)
AZURE_LOGIN = ("AzureCLI@", "DownloadSecureFile@")
# What would log in to Azure for the suite: a program, or an action of Azure's.
OTHER_LOGIN = re.compile(r"\b(?:az|kubelogin) |\buses: azure/", re.IGNORECASE)
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$")

Steps = list[dict[str, Any]]

each_workflow = pytest.mark.parametrize("workflow", github.WORKFLOWS, ids=lambda path: path.stem)
each_file = pytest.mark.parametrize(
    "file",
    [*github.WORKFLOWS, *github.ACTIONS],
    ids=lambda path: path.relative_to(ROOT / ".github").as_posix(),
)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _values(content: Any, *keys: str) -> Iterator[Any]:
    """Yield everything that a document has under one of those keys, in its order."""
    if isinstance(content, dict):
        for name, item in content.items():
            if name in keys:
                yield item
            yield from _values(item, *keys)
    elif isinstance(content, list):
        for item in content:
            yield from _values(item, *keys)


def _commands(content: Any) -> list[str]:
    """Return the commands of all scripts of a document, in its order."""
    scripts = (script.replace("\\\n", " ") for script in _values(content, *SCRIPTS))
    found = [command for script in scripts for command in COMMAND.findall(script)]
    return [" ".join(command.split()) for command in found]


def _by_job(jobs: dict[str, Steps]) -> list[tuple[str, list[str]]]:
    """Return the jobs that have commands, each with its commands, in the order of the jobs."""
    found = ((name, _commands(steps)) for name, steps in jobs.items())
    return [(name, commands) for name, commands in found if commands]


def _github_jobs() -> dict[str, Steps]:
    """Return the steps of the jobs of all workflows."""
    jobs: dict[str, Steps] = {}
    for name in ORDER:
        jobs |= github.jobs(github.workflow(name))
    return jobs


def _nox_lines() -> list[str]:
    """Return the Nox commands of all workflows."""
    return [command for command in _commands(_github_jobs()) if command.startswith("./run nox")]


def _noxfile() -> ast.Module:
    return ast.parse(_text(ROOT / "noxfile.py"))


def _assigned(name: str) -> Any:
    """Return the value that the noxfile assigns to a name or an attribute."""
    nodes = [node for node in ast.walk(_noxfile()) if isinstance(node, ast.Assign)]
    value = next(node.value for node in nodes if ast.unparse(node.targets[0]) == name)
    return ast.literal_eval(value)


def _is_session(function: ast.FunctionDef) -> bool:
    return any("nox.session" in ast.unparse(item) for item in function.decorator_list)


def _sessions() -> set[str]:
    """Return the names of the sessions of the noxfile, without running it."""
    functions = [node for node in _noxfile().body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if _is_session(node)} | set(_assigned("STAGES"))


def test_every_workflow_is_compared() -> None:
    """The comparison with Azure Pipelines covers every workflow."""
    assert sorted(ORDER) == [path.stem for path in github.WORKFLOWS]


def test_both_systems_run_the_same_commands() -> None:
    """GitHub Actions and Azure Pipelines have the same jobs, and each runs the same commands."""
    jobs = _by_job(_github_jobs())

    assert jobs
    assert jobs == _by_job(azure.jobs(connection="azure"))


def test_checks_are_those_of_a_laptop() -> None:
    """The checks of a change are the sessions that `./run nox` runs, in their order."""
    jobs = github.jobs(github.workflow("ci"))
    lines = [commands[-1] for _, commands in _by_job(jobs)]

    assert lines == [f"./run nox -s {name}" for name in _assigned("nox.options.sessions")]


@pytest.mark.parametrize("line", dict.fromkeys(_nox_lines()))
def test_sessions_exist(line: str) -> None:
    """Every session that CI names is in the noxfile."""
    assert line.split()[3] in _sessions()


@pytest.mark.parametrize("name", RELEASING)
def test_only_main_is_released(name: str) -> None:
    """A person can start a workflow or a pipeline for any branch; its jobs are skipped then."""
    jobs = github.load(github.workflow(name))["jobs"].values()
    stage = azure.stage(name)

    assert all("github.ref == 'refs/heads/main'" in job["if"] for job in jobs)
    assert "eq(variables['Build.SourceBranch'], 'refs/heads/main')" in stage["condition"]


@pytest.mark.parametrize("name", ["release", "model"])
def test_code_is_released_after_its_checks(name: str) -> None:
    """Each system checks the same commit in the same run, and releases it if all checks passed."""
    jobs = github.load(github.workflow(name))["jobs"]
    stage = azure.stage(name)

    assert jobs["check"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs[name]["needs"] == "check"
    assert stage["dependsOn"] == "check"
    assert "eq(dependencies.check.result, 'Succeeded')" in stage["condition"]


@pytest.mark.parametrize("name", RELEASING)
def test_releases_of_an_environment_wait_for_each_other(name: str) -> None:
    """The group has the environment in its name; checks are no part of it, so they do not wait."""
    content = github.load(github.workflow(name))
    group = content["jobs"][name]["concurrency"]

    assert "concurrency" not in content
    assert (
        group["group"]
        .replace("inputs.to", "inputs.environment")
        .startswith("release-${{ inputs.environment ")
    )
    assert group["cancel-in-progress"] is False


@pytest.mark.parametrize("part", GITHUB_LOGIN)
def test_the_login_of_github_exists_once(part: str) -> None:
    """Only one file of GitHub Actions has a login, and it has it once."""
    files = [*github.WORKFLOWS, *github.ACTIONS]
    found = {file.parent.name: count for file in files if (count := _text(file).count(part))}

    assert found == {"login": 1}


def test_every_release_of_github_logs_in_alike() -> None:
    """The workflows that release give the login the same inputs, between checkout and release."""
    found = [github.load(github.workflow(name))["jobs"][name]["steps"] for name in RELEASING]
    logins = [steps[1] for steps in found]

    assert logins[0]["uses"] == "./.github/actions/login"
    assert all(step == logins[0] for step in logins)


@pytest.mark.parametrize("name", RELEASING)
def test_an_identity_is_all_that_github_needs_for_azure(name: str) -> None:
    """The job may have one, and three variables name it; no step logs in."""
    job = github.load(github.workflow(name))["jobs"][name]
    named = {key: value for key, value in job["env"].items() if key.endswith("_ID")}

    assert job["permissions"]["id-token"] == "write"
    assert named == {
        f"AZURE_{key}_ID": f"${{{{ vars.AZURE_{key}_ID }}}}"
        for key in ("CLIENT", "TENANT", "SUBSCRIPTION")
    }


def test_no_secret_is_for_azure() -> None:
    """The secrets are those of another registry and of a kubeconfig."""
    github_secrets = {
        name
        for file in (*github.WORKFLOWS, *github.ACTIONS)
        for name in re.findall(r"\bsecrets\.(\w+)", _text(file))
    }
    mapped = {value for env in _values(azure.pipeline(), "env") for value in env.values()}

    assert github_secrets == {"KUBECONFIG", "REGISTRY_PASSWORD"}
    assert mapped == {"$(REGISTRY_PASSWORD)", "$(System.AccessToken)"}


@pytest.mark.parametrize("name", RELEASING)
def test_each_step_of_azure_has_the_token_of_its_job(name: str) -> None:
    """Azure Pipelines gives it only to steps that map it; assertions are requested with it."""
    steps = azure.jobs()[name]
    running = [step for step in steps if str(step.get("script", "")).startswith("./run")]

    assert running
    assert {step["env"]["SYSTEM_ACCESSTOKEN"] for step in running} == {"$(System.AccessToken)"}


def test_no_program_of_azure_logs_in() -> None:
    """The suite does that itself."""
    folders = [ROOT / ".github", ROOT / "ci"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]

    assert [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (*files, azure.PIPELINE)
        for line in _text(path).splitlines()
        if OTHER_LOGIN.search(line)
    ] == []


@pytest.mark.parametrize("part", AZURE_LOGIN)
def test_the_login_of_azure_exists_once(part: str) -> None:
    """Only one file of Azure Pipelines has a login, and it has it once."""
    files = [azure.PIPELINE, *azure.TEMPLATES]
    found = {file.stem: count for file in files if (count := _text(file).count(part))}

    assert found == {"access": 1}


@pytest.mark.parametrize("name", RELEASING)
def test_azure_logs_in_as_its_parameters_say(name: str) -> None:
    """The login is between checkout and release, and each parameter adds its own steps."""
    job = azure.jobs()[name]
    with_both = azure.jobs(connection="azure", kubeconfig="clusters")[name]
    added = with_both[1 : 1 + len(with_both) - len(job)]

    assert with_both == [job[0], *added, *job[1:]]
    assert [step.get("task") for step in added] == ["AzureCLI@2", "DownloadSecureFile@1", None]
    assert added[0]["inputs"]["azureSubscription"] == "azure"
    assert added[1]["inputs"]["secureFile"] == "clusters"
    assert _commands(job)[0].startswith("./run nox")


@pytest.mark.parametrize("action", github.ACTIONS, ids=lambda path: path.parent.name)
def test_actions_are_kept_current(action: Path) -> None:
    """Dependabot renews the pinned actions in the actions of this project, too."""
    updates = github.load(ROOT / ".github" / "dependabot.yml")["updates"]

    assert f"/{action.parent.relative_to(ROOT)}" in updates[0]["directories"]


@pytest.mark.parametrize("job", ["integration", "e2e"])
def test_real_parts_include_a_cluster(job: str) -> None:
    """A job that needs real parts starts a cluster before its Nox command."""
    assert _commands(_github_jobs()[job]) == ["ci/cluster.sh", f"./run nox -s {job}"]


@each_workflow
def test_nothing_is_permitted_at_the_top(workflow: Path) -> None:
    """A workflow has no permission as a whole; each job names its own."""
    content = github.load(workflow)

    assert content["permissions"] == {}
    assert all("permissions" in job for job in content["jobs"].values())


@each_workflow
def test_only_releases_may_write(workflow: Path) -> None:
    """A job that checks a change can read the code and nothing else."""
    permissions = [job["permissions"] for job in github.load(workflow)["jobs"].values()]
    granted = {f"{name}: {value}" for job in permissions for name, value in job.items()}
    writes = {"id-token: write", "packages: write"} if workflow.stem in RELEASING else set()

    assert granted <= {"contents: read"} | writes


@each_file
def test_actions_are_pinned_by_commit(file: Path) -> None:
    """An action of another repository is named by a full commit; a comment gives its version."""
    uses = [line.strip().removeprefix("- ") for line in _text(file).splitlines() if "uses:" in line]

    # An action of this project may use none.
    assert uses or file in github.ACTIONS
    assert [line for line in uses if not PINNED.match(line) and "uses: ./" not in line] == []


@each_workflow
def test_every_job_ends(workflow: Path) -> None:
    """A job that hangs is stopped; a workflow that is called stops its own."""
    jobs = [job for job in github.load(workflow)["jobs"].values() if "uses" not in job]

    assert all(job["timeout-minutes"] <= 60 for job in jobs)


@each_workflow
def test_github_checkouts(workflow: Path) -> None:
    """A checkout comes first, has the whole history and leaves no token behind.

    The history is for the revision of a release; the actions of this project are in the checkout.
    """
    jobs = [steps for steps in github.jobs(workflow).values() if _commands(steps)]

    assert jobs
    assert all(steps[0]["uses"].startswith("actions/checkout@") for steps in jobs)
    expected = {"fetch-depth": 0, "persist-credentials": False}
    assert all(steps[0]["with"] == expected for steps in jobs)


def test_azure_checkouts() -> None:
    """The same holds in Azure Pipelines."""
    expected = {"checkout": "self", "fetchDepth": "0", "persistCredentials": "false"}

    assert all(steps[0] == expected for steps in azure.jobs().values())


@each_file
def test_no_expression_in_a_script(file: Path) -> None:
    """What people type reaches a script as a variable only, so that it never becomes code."""
    assert [script for script in _values(github.load(file), "run") if "${{" in script] == []


@pytest.mark.parametrize("file", [azure.PIPELINE, *azure.TEMPLATES], ids=lambda path: path.stem)
def test_no_expression_in_a_script_of_azure(file: Path) -> None:
    """The same holds in Azure Pipelines."""
    scripts = list(_values(azure.load(file), *SCRIPTS))

    assert scripts
    assert [script for script in scripts if "${{" in script] == []


def test_the_gate_waits_for_all() -> None:
    """Branch protection names one job, which needs all others and runs whatever their result is."""
    jobs = github.load(github.workflow("ci"))["jobs"]
    gate = jobs.pop("gate")

    assert gate["needs"] == list(jobs)
    assert gate["if"] == "always()"
