"""The scripts of CI: `.ci/run`, those of `ci/` that CI systems call, and those of the login."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ci import azure
from tests.fakes.programs import write_program

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "ci" / "cluster.sh"
KUBECONFIG = ROOT / "ci" / "kubeconfig.sh"
# The answers of Docker and kind where no cluster exists.
DOCKER = """case "$1" in
  ps) printf '%s' "$RUNNING" ;;
  inspect) echo null ;;
  exec) if [ "$2" = -i ]; then cat >>"$CALLS"; fi ;;
esac"""
KIND = """case "$*" in
  "get nodes"*) echo twinship-control-plane ;;
  "get kubeconfig"*) echo "kind: Config" ;;
esac"""


def _add_program(folder: Path, name: str, body: str) -> None:
    """Add a program that records its calls and then runs the body."""
    write_program(folder / name, f'echo "{name} $*" >>"$CALLS"\n{body}')


def _run(
    script: Path,
    folder: Path,
    programs: dict[str, str],
    **variables: str,
) -> tuple[str, list[str]]:
    """Run a script of `ci/` in a checkout; return its output and its calls of those programs."""
    copy = folder / "checkout" / "ci" / script.name
    copy.parent.mkdir(parents=True)
    shutil.copy(script, copy)
    (folder / "bin").mkdir()
    for name, body in programs.items():
        _add_program(folder / "bin", name, body)
    calls = folder / "calls"
    calls.touch()
    environment = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "CALLS": str(calls),
        "RUNNER_TEMP": str(folder),
        **variables,
    }
    done = subprocess.run([copy], env=environment, capture_output=True, text=True, check=True)
    return done.stdout, calls.read_text(encoding="utf-8").splitlines()


def _assert_is_private(kubeconfig: Path) -> None:
    """Assert that a kubeconfig has its content, and that only its owner may read it."""
    assert kubeconfig.read_text(encoding="utf-8") == "kind: Config\n"
    assert kubeconfig.stat().st_mode & 0o077 == 0


def test_clean_checkout() -> None:
    """A clean checkout is checked by exactly the README's own command.

    Before that, only a cluster may be started.
    """
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (\./run nox.*)$", readme, re.MULTILINE)
    cluster = lines[3 : -len(commands)]

    assert lines[:3] == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "export CI=true"]
    assert not any(word in line for line in cluster for word in ("./run", "pytest", "pip "))
    assert lines[-len(commands) :] == commands
    assert not re.search(r">\s*/(?!dev/null)", text), "a file outside the project is written"
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    ("running", "registry"),
    [
        ("twinship-registry 127.0.0.1:5000->5000/tcp\n", "twinship-registry"),
        ("", "kind-registry"),
    ],
)
def test_a_cluster_pulls_from_the_registry_of_releases(
    tmp_path: Path,
    running: str,
    registry: str,
) -> None:
    """The node of a new cluster pulls from the registry that runs, or from one that is started."""
    output, calls = _run(CLUSTER, tmp_path, {"docker": DOCKER, "kind": KIND}, RUNNING=running)

    kubeconfig = tmp_path / "checkout" / ".twinship" / "kind.kubeconfig"
    assert output == f"{kubeconfig}\n"
    _assert_is_private(kubeconfig)
    assert f'[host."http://{registry}:5000"]' in calls
    assert calls[-1] == f"docker network connect kind {registry}"
    assert any(call.startswith("docker run ") for call in calls) is not bool(running)


def test_a_kubeconfig_of_the_ci_system_is_kept_for_the_job(tmp_path: Path) -> None:
    """A kubeconfig from a secret is written to a file that only its owner may read."""
    output, _ = _run(KUBECONFIG, tmp_path, {}, KUBECONFIG_TEXT="kind: Config")

    assert output == f"{tmp_path / 'kubeconfig'}\n"
    _assert_is_private(tmp_path / "kubeconfig")


def test_without_a_cluster_there_is_no_kubeconfig(tmp_path: Path) -> None:
    """Where nothing names a cluster, no path is printed."""
    assert _run(KUBECONFIG, tmp_path, {}) == ("", [])


def test_later_steps_of_azure_know_the_service_connection(tmp_path: Path) -> None:
    """They request assertions for it; none of the three is a secret."""
    task = azure.jobs(connection="azure")["release"][1]
    names = [f"AZURESUBSCRIPTION_{name}_ID" for name in ("CLIENT", "TENANT", "SERVICE_CONNECTION")]
    done = subprocess.run(
        ["bash", "-c", task["inputs"]["inlineScript"]],
        env={"PATH": "/usr/bin:/bin", **{name: f"value of {name}" for name in names}},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert task["inputs"]["addSpnToEnvironment"] is True
    assert done.stdout.splitlines() == [
        f"##vso[task.setvariable variable={name}]value of {name}" for name in names
    ]
