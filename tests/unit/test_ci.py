"""The two CI systems, and the check of a clean checkout, run the lines that people run, and may do no more than they need."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# The order in which Azure's single file has them.
IN_ORDER = ("ci", "release", "model", "promote")
AZURE = ROOT / "azure-pipelines.yml"
CLUSTER = ROOT / "ci" / "cluster.sh"
KUBECONFIG = ROOT / "ci" / "kubeconfig.sh"
# Programs that write down how they were called, and answer as Docker and kind do where nothing was made yet.
DOCKER = """case "$1" in
  ps) printf '%s' "$RUNNING" ;;
  inspect) echo null ;;
  exec) if [ "$2" = -i ]; then cat >>"$CALLS"; fi ;;
esac"""
KIND = """case "$*" in
  "get nodes"*) echo twinship-control-plane ;;
  "get kubeconfig"*) echo "kind: Config" ;;
esac"""
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
    """A clean checkout is checked by the README's own command, strictly, and by nothing else; a cluster is all that it may start before."""
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    shown = re.findall(r"^\$ (\./run nox.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    begin, cluster, end = lines[:3], lines[3 : -len(shown)], lines[-len(shown) :]

    assert begin == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "export CI=true"]
    assert not any(word in line for line in cluster for word in ("./run", "pytest", "pip "))
    assert end == shown
    assert os.access(script, os.X_OK)


def _script(path: Path, folder: Path, programs: dict[str, str], **variables: str) -> tuple[str, list[str]]:
    """What a script of a checkout in that folder prints, and how it called those programs."""
    checkout, calls = folder / "checkout" / "ci", folder / "calls"
    checkout.mkdir(parents=True)
    (folder / "bin").mkdir()
    shutil.copy(path, checkout)
    for name, body in programs.items():
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"$CALLS"\n{body}\n', encoding="utf-8")
        program.chmod(0o755)
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "CALLS": str(calls), "RUNNER_TEMP": str(folder), **variables}
    done = subprocess.run([checkout / path.name], env=environment, capture_output=True, text=True, check=True)
    return done.stdout, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


@pytest.mark.parametrize("job", ["integration", "e2e"])
def test_real_parts_include_a_cluster(job: str) -> None:
    """In both systems, a job that needs real parts starts a cluster before its Nox line."""
    github = [step.get("run", "") for step in _loaded(ROOT / ".github" / "workflows" / "ci.yml")["jobs"][job]["steps"]]
    azure = next(found["steps"] for jobs in _under(_loaded(AZURE), "jobs") for found in jobs if found.get("job") == job)

    for steps in (github, [step.get("script", "") for step in azure]):
        assert "ci/cluster.sh" in steps[-2]
        assert steps[-1] == f"./run nox -s {job}"


@pytest.mark.parametrize(
    ("running", "registry"), [("twinship-registry 127.0.0.1:5000->5000/tcp\n", "twinship-registry"), ("", "kind-registry")]
)
def test_a_cluster_pulls_from_the_registry_of_releases(tmp_path: Path, running: str, registry: str) -> None:
    """The node of a new cluster is sent to the registry that is there, or to one that is started."""
    printed, calls = _script(CLUSTER, tmp_path, {"docker": DOCKER, "kind": KIND}, RUNNING=running)

    kubeconfig = tmp_path / "checkout" / ".twinship" / "kind.kubeconfig"
    assert printed == f"{kubeconfig}\n"
    assert kubeconfig.read_text(encoding="utf-8") == "kind: Config\n"
    assert kubeconfig.stat().st_mode & 0o077 == 0
    assert f'[host."http://{registry}:5000"]' in calls
    assert calls[-1] == f"docker network connect kind {registry}"
    assert any(call.startswith("docker run ") for call in calls) is not running.startswith("twinship")


def test_a_kubeconfig_of_the_ci_system_is_kept_for_the_job(tmp_path: Path) -> None:
    """A kubeconfig that a secret holds is written to a file that nobody else may read."""
    printed, _ = _script(KUBECONFIG, tmp_path, {}, KUBECONFIG_TEXT="kind: Config")

    kubeconfig = Path(printed.rstrip("\n"))
    assert kubeconfig == tmp_path / "kubeconfig"
    assert kubeconfig.read_text(encoding="utf-8") == "kind: Config\n"
    assert kubeconfig.stat().st_mode & 0o077 == 0


def test_clusters_of_azure_are_entered_as_the_one_who_is_logged_in(tmp_path: Path) -> None:
    """Access to each cluster goes into one kubeconfig, which asks `az` for its tokens."""
    printed, calls = _script(KUBECONFIG, tmp_path, {"az": "", "kubelogin": ""}, AKS_CLUSTERS="tests/one shops/two")

    file = printed.rstrip("\n")
    assert calls == [
        f"az aks get-credentials --only-show-errors --resource-group tests --name one --file {file}",
        f"az aks get-credentials --only-show-errors --resource-group shops --name two --file {file}",
        f"kubelogin convert-kubeconfig --login azurecli --kubeconfig {file}",
    ]


def test_without_a_cluster_there_is_no_kubeconfig(tmp_path: Path) -> None:
    """Where nothing names a cluster, no path is printed."""
    assert _script(KUBECONFIG, tmp_path, {}) == ("", [])
