"""The two CI systems, and the check of a clean checkout, run the lines that people run, and may do no more than they need."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# The order in which Azure's single file has them.
IN_ORDER = ("ci", "release", "model")
AZURE = ROOT / "azure-pipelines.yml"
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$")

each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)


def _loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _under(value: Any, key: str) -> Iterator[Any]:
    """Everything that a document holds under a key, in its order."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            yield from _under(item, key)
    elif isinstance(value, list):
        yield from chain.from_iterable(_under(item, key) for item in value)


def _nox_lines(path: Path, key: str) -> list[str]:
    """The Nox lines of a file's steps, in its order."""
    return [script for script in _under(_loaded(path), key) if isinstance(script, str) and script.startswith("./run nox")]


def _github_lines() -> list[str]:
    return [line for name in IN_ORDER for line in _nox_lines(ROOT / ".github" / "workflows" / f"{name}.yml", "run")]


def _noxfile() -> ast.Module:
    return ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))


def _assigned(name: str) -> Any:
    """What the noxfile assigns to a name, or to an attribute."""
    assignments = [node for node in ast.walk(_noxfile()) if isinstance(node, ast.Assign)]
    return next(ast.literal_eval(node.value) for node in assignments if ast.unparse(node.targets[0]) == name)


def _sessions() -> set[str]:
    """The sessions of the noxfile, read without running it."""
    functions = [node for node in _noxfile().body if isinstance(node, ast.FunctionDef)]
    decorated = {node.name for node in functions if any("nox.session" in ast.unparse(item) for item in node.decorator_list)}
    return decorated | set(_assigned("STAGES"))


def test_every_workflow_is_compared() -> None:
    """No workflow escapes the comparison with Azure Pipelines."""
    assert sorted(IN_ORDER) == [path.stem for path in WORKFLOWS]


def test_both_systems_run_the_same_lines() -> None:
    """GitHub Actions and Azure Pipelines run the same Nox lines in the same order."""
    lines = _github_lines()

    assert lines
    assert lines == _nox_lines(AZURE, "script")


def test_checks_are_those_of_a_laptop() -> None:
    """The checks of a change are the sessions that `./run nox` runs, in their order."""
    checks = _nox_lines(ROOT / ".github" / "workflows" / "ci.yml", "run")

    assert checks == [f"./run nox -s {name}" for name in _assigned("nox.options.sessions")]


@pytest.mark.parametrize("line", dict.fromkeys(_github_lines()))
def test_sessions_exist(line: str) -> None:
    """Every session that CI names is one of the noxfile."""
    assert line.split()[3] in _sessions()


@each_workflow
def test_nothing_is_permitted_at_the_top(workflow: Path) -> None:
    """A workflow permits nothing, and each job says itself what it may."""
    loaded = _loaded(workflow)

    assert loaded["permissions"] == {}
    assert all("permissions" in job for job in loaded["jobs"].values())


@each_workflow
def test_only_releases_may_write(workflow: Path) -> None:
    """A job that checks a change can read the code and nothing else."""
    granted = {f"{name}: {value}" for job in _loaded(workflow)["jobs"].values() for name, value in job["permissions"].items()}

    assert granted <= {"contents: read"} | ({"id-token: write", "packages: write"} if workflow.stem != "ci" else set())


@each_workflow
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    """An action is named by a whole commit, and its version is said beside it."""
    used = [line.strip().removeprefix("- ") for line in workflow.read_text(encoding="utf-8").splitlines() if "uses:" in line]

    assert used
    assert [line for line in used if not PINNED.match(line)] == []


@each_workflow
def test_every_job_ends(workflow: Path) -> None:
    """A job that hangs is stopped."""
    assert all(job["timeout-minutes"] <= 60 for job in _loaded(workflow)["jobs"].values())


@each_workflow
def test_github_checkouts(workflow: Path) -> None:
    """A checkout has the whole history, for the revision of a release, and leaves no token behind."""
    steps = [step for steps in _under(_loaded(workflow), "steps") for step in steps if "actions/checkout@" in step.get("uses", "")]

    assert steps
    assert all(step["with"] == {"fetch-depth": 0, "persist-credentials": False} for step in steps)


def test_azure_checkouts() -> None:
    """The same holds in Azure Pipelines."""
    steps = [step for steps in _under(_loaded(AZURE), "steps") for step in steps if "checkout" in step]

    assert steps
    assert all((step["fetchDepth"], step["persistCredentials"]) == ("0", "false") for step in steps)


@each_workflow
def test_no_expression_in_a_script(workflow: Path) -> None:
    """What people type reaches a script as a variable only, so that it cannot become a part of it."""
    assert [script for script in _under(_loaded(workflow), "run") if "${{" in script] == []


def test_the_gate_waits_for_all() -> None:
    """Branch protection names one job, which needs all others and runs whatever became of them."""
    jobs = _loaded(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    gate = jobs.pop("gate")

    assert gate["needs"] == list(jobs)
    assert gate["if"] == "always()"


def test_clean_checkout() -> None:
    """A clean checkout is checked by the README's own command, strictly, and by nothing else."""
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    shown = re.findall(r"^\$ (\./run nox.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "export CI=true", *shown]
    assert os.access(script, os.X_OK)
