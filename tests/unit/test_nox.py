"""Tests of the noxfile: what a session runs, and how Nox ends a stage."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.cli import sessions
from tests.fakes.programs import write_program

ROOT = Path(__file__).parents[2]
# The project's own sessions, without an environment to install.
NOXFILE = """
import runpy
import sys

found = runpy.run_path({path!r})
found["stage"].__globals__["install"] = lambda *_: None
"""
# A task that takes longer to end than Nox waits by default.
INVOKE = """
import signal, sys, time

def end(number, _):
    time.sleep(1)
    print("put back", flush=True)
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
print("waiting", flush=True)
signal.pause()
"""


@pytest.fixture(scope="module", name="noxfile")
def _noxfile() -> dict[str, Any]:
    """Load the noxfile once: Nox knows every session that was ever loaded, by its name."""
    return runpy.run_path(str(ROOT / "noxfile.py"))


@pytest.fixture(name="command")
def _command(noxfile: dict[str, Any]) -> Callable[..., tuple[str, ...]]:
    """Return what makes the command of a session with arguments, and one option that measures."""

    def command(name: str, *arguments: str) -> tuple[str, ...]:
        session: Any = SimpleNamespace(name=name, posargs=list(arguments))
        made: tuple[str, ...] = noxfile["pytest_command"](session, "--measured")
        return made

    return command


def test_applications_get_the_same_stages(noxfile: dict[str, Any]) -> None:
    """The noxfile of the project imports nothing of it, so that Nox can read it anywhere."""
    assert noxfile["STAGES"] == sessions.STAGES


@pytest.mark.parametrize("name", ["unit", "integration", "e2e"])
def test_a_session_runs_its_folder_in_several_processes(
    command: Callable[..., tuple[str, ...]], name: str
) -> None:
    """Without arguments all tests run, and what measures them is switched on."""
    program, processes, *rest = command(name)
    assert program == "pytest"
    assert processes.startswith("--numprocesses=")
    assert rest[-2:] == ["--measured", f"tests/{name}"]


@pytest.mark.parametrize(
    "path",
    [
        "tests/unit/test_nox.py",
        "./tests/unit/test_nox.py",
        "tests/unit/test_nox.py::test_a_path_replaces_the_folder",
        "tests/unit/deploy",
        str(ROOT / "tests/unit/test_nox.py"),
    ],
)
def test_a_path_replaces_the_folder(command: Callable[..., tuple[str, ...]], path: str) -> None:
    """`nox -s unit -- FILE` runs that file and nothing else, in one process, unmeasured."""
    assert command("unit", path, "-x") == ("pytest", path, "-x")


@pytest.mark.parametrize("words", [("-k", "tests"), ("-k", "deploy"), ("-x",)])
def test_other_arguments_select_from_the_folder(
    command: Callable[..., tuple[str, ...]], words: tuple[str, ...]
) -> None:
    """An expression is no path, even if a folder has that name; a selection is not measured."""
    made = command("unit", *words)
    assert made[-len(words) - 1 :] == ("tests/unit", *words)
    assert "--measured" not in made


@pytest.mark.parametrize("words", [(), ("-k", "rollback"), ("tests/conftest.py",)])
def test_a_leak_is_an_error_in_unit_only(
    command: Callable[..., tuple[str, ...]], noxfile: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Whatever the arguments are: elsewhere it may be that of another test."""
    for name in ("integration", "e2e"):
        assert set(noxfile["LEAKS"]) <= set(command(name, *words))
    assert not set(noxfile["LEAKS"]) & set(command("unit", *words))


@pytest.mark.parametrize("name", ["integration", "e2e"])
def test_a_part_of_the_tests_runs_on_a_second_engine(
    noxfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its tests exist; without a second engine the reason and the cure are shown."""
    ran: list[tuple[str, str]] = []
    shown: list[str] = []

    def run(program: str, *words: str, env: dict[str, str] | None = None, **_: Any) -> None:
        ran.append((program, (env or {}).get("DOCKER_HOST", words[-1])))

    session: Any = SimpleNamespace(name=name, run=run, warn=shown.append)
    monkeypatch.delenv("TWINSHIP_TEST_ENGINE", raising=False)
    noxfile["run_on_second_engine"](session)
    assert ran == []
    assert "TWINSHIP_TEST_ENGINE" in shown[0]
    monkeypatch.setenv("TWINSHIP_TEST_ENGINE", "unix:///second.sock")
    noxfile["run_on_second_engine"](session)
    assert ran == [("sh", "unix:///second.sock"), ("pytest", "unix:///second.sock")]
    assert all((ROOT / path).exists() for path in noxfile["SECOND_ENGINE"][name])


def test_the_server_of_s3_has_a_lock_of_its_own() -> None:
    """It has what is asked for, by hash, and is in no other."""
    asked = {
        line
        for line in (ROOT / "locks" / "moto.in").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    locks = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "locks").glob("*.txt")}
    own = locks.pop("moto")
    found = {line.partition(" ")[0] for line in own.splitlines() if line.endswith("\\")}
    assert {line.replace("[s3]", "") for line in asked} <= found
    assert "--hash=sha256:" in own
    assert [name for name, text in locks.items() if "moto==" in text] == []


def test_azurite_is_installed_once(
    noxfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By npm; without it the reason is shown, and another version is replaced."""
    ran: list[tuple[str, ...]] = []
    shown: list[str] = []
    package = tmp_path / "lib" / "node_modules" / "azurite" / "package.json"

    def run(*words: str, **_: Any) -> None:
        ran.append(words)
        package.parent.mkdir(parents=True, exist_ok=True)
        package.write_text(json.dumps({"version": noxfile["AZURITE"]}), encoding="utf-8")

    virtual = SimpleNamespace(location=str(tmp_path))
    session: Any = SimpleNamespace(virtualenv=virtual, run=run, warn=shown.append)
    monkeypatch.setenv("PATH", str(tmp_path))
    noxfile["install_azurite"](session)
    assert (ran, len(shown)) == ([], 1)
    write_program(tmp_path / "npm", "exit 1")
    for _ in range(2):
        noxfile["install_azurite"](session)
    assert len(ran) == 1
    package.write_text('{"version": "1.0.0"}', encoding="utf-8")
    noxfile["install_azurite"](session)
    assert ran[1][-1] == f"azurite@{noxfile['AZURITE']}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_ends_by_itself_when_only_nox_gets_the_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    """CI systems signal Nox alone; Nox waits until the stage has restored what it changed."""
    (tmp_path / "noxfile.py").write_text(
        NOXFILE.format(path=str(ROOT / "noxfile.py")), encoding="utf-8"
    )
    write_program(tmp_path / "invoke", INVOKE, sys.executable)
    with subprocess.Popen(
        [sys.executable, "-m", "nox", "--no-venv", "-s", "deploy"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert "waiting\n" in process.stdout
        process.send_signal(number)
        try:
            assert "put back" in process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 130
