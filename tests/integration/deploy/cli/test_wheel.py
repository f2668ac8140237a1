"""The suite as a wheel, installed without its repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cli.tasks import namespace
from tests.missing import lacking

ROOT = Path(__file__).parents[4]
DOCKERFILE = "ARG BASE\nFROM $BASE\nCOPY service.py made-by-a-build /srv/\nEXPOSE 9000\n"
STAGES = ["fetch", "build", "smoke", "push", "deploy"]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", name="program")
def _program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install a wheel of this tree from a folder that serves as the index; return its command."""
    if shutil.which("uv") is None:
        lacking("uv is not installed", "run the tests by `./run nox -s integration`")
    index = tmp_path_factory.mktemp("index")
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(index))
    run("uv", "venv", "--quiet", "--allow-existing", str(environment))
    install = ("uv", "pip", "install", "--quiet", "--python", str(environment))
    run(*install, "--require-hashes", "-r", "locks/deploy.txt")
    run(*install, "--no-deps", "--no-index", "--find-links", str(index), "twinship")
    return environment / "bin" / "twinship"


@pytest.fixture(name="application")
def _application(tmp_path: Path) -> Path:
    """Return a repository that has the second application and nothing of the suite."""
    folder = tmp_path / "application"
    shutil.copytree(ROOT / "examples" / "digits", folder)
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "one")):
        run("git", "-c", "user.name=a", "-c", "user.email=a@example.com", *command, folder=folder)
    return folder


def run(*command: str, folder: Path = ROOT, code: int = 0, home: str = "") -> str:
    """Run a command that ends with a code; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | ({"TWINSHIP_HOME": home} if home else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_command_has_all_tasks(program: Path, tmp_path: Path) -> None:
    """They are those of Invoke."""
    found = json.loads(run(str(program), "--list", "--list-format=json", folder=tmp_path))
    names = [task["name"] for task in found["tasks"]]
    names += [
        f"{group['name']}.{task['name']}"
        for group in found["collections"]
        for task in group["tasks"]
    ]
    assert sorted(names) == sorted(namespace.task_names)


def test_the_command_works_on_the_folder_that_it_runs_in(program: Path, application: Path) -> None:
    """It publishes the model of that folder, and plans the release of its code."""
    home = str(application.parent / "home")
    published = run(
        str(program), "model.publish", "--directory", "model", folder=application, home=home
    )
    assert published.startswith("digits@1 sha256:")
    plan = json.loads(
        run(str(program), "release", "--dry-run", "--json", folder=application, home=home)
    )
    assert [step["stage"] for step in plan if step["runs"]] == STAGES


def test_a_repository_gets_what_it_needs(program: Path, application: Path) -> None:
    """Then a release can be planned, also by the file of tasks that it got."""
    for name in ("pipeline.toml", "model/model.toml"):
        (application / name).unlink()
    (application / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    printed = run(str(program), "init", folder=application)
    assert {"wrote pipeline.toml", "kept  Dockerfile"} & set(printed.splitlines()) == {
        "wrote pipeline.toml"
    }
    home = str(application.parent / "home")
    run(str(program), "model.publish", "--directory", "model", folder=application, home=home)
    invoke = str(program.parent / "invoke")
    plan = json.loads(run(invoke, "release", "--dry-run", "--json", folder=application, home=home))
    assert [step["stage"] for step in plan if step["runs"]] == STAGES
    assert run("git", "status", "--short", folder=application).find(".twinship") == -1
    sessions = run(str(program.parent / "nox"), "--list", folder=application)
    assert all(f" {name} ->" in sessions for name in STAGES)


def test_errors_name_the_command(program: Path, tmp_path: Path) -> None:
    """A person types what an error says."""
    assert "next: run in the folder" in run(str(program), "status", folder=tmp_path, code=2)
    assert "`twinship --list`" in run(str(program), "relase", folder=tmp_path, code=2)


def test_the_files_that_are_no_modules_are_installed(program: Path, tmp_path: Path) -> None:
    """They are the objects of a cluster, the image of the proxy, and the template for Azure."""
    code = (
        "from importlib import resources; from deploy.targets.kubernetes import templates; "
        "templates.read_templates(templates.DEFAULT_FOLDER); "
        "print(*(file.name for name in ('machine', 'azure')"
        " for file in resources.files(f'deploy.{name}').iterdir() if file.suffix != '.py'))"
    )
    printed = run(str(program.parent / "python"), "-c", code, folder=tmp_path)
    assert {"Dockerfile", "registry.yml", "main.bicep"} <= set(printed.split())
