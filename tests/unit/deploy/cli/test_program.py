"""The program that Invoke runs: mistakes in a command line become one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke import main
from invoke.collection import Collection
from invoke.context import Context
from invoke.program import Program as InvokeProgram
from invoke.tasks import task

from deploy.cli import output
from deploy.cli.program import Program, take_over

Output = pytest.CaptureFixture[str]
Run = Callable[..., int]


@pytest.fixture
def ran() -> list[str]:
    """Return the tasks that were run."""
    return []


@pytest.fixture
def namespace(ran: list[str]) -> Collection:
    """Return a few tasks, which record that they were run."""

    @task
    @output.task_body
    def release(_: Context, env: str = "", dry_run: bool = False) -> None:  # noqa: FBT002 - a flag
        ran.append(f"release {env}".strip())

    @task
    @output.task_body
    def promote(_: Context, from_: str, to: str) -> None:
        ran.append(f"promote {from_} {to}")

    @task(name="list")
    @output.task_body
    def list_(_: Context) -> None:
        ran.append("list")

    collection = Collection(release, promote)
    collection.add_collection(Collection("model", list_))
    return collection


@pytest.fixture
def run(namespace: Collection) -> Run:
    """Return a function that runs a command line as a shell would, and returns its exit code."""

    def run_command(*words: str) -> int:
        try:
            Program(namespace=namespace).run(["invoke", *words])
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run_command


@pytest.mark.parametrize(
    ("words", "what", "next_step"),
    [
        (["relase"], "there is no task 'relase'", "did you mean 'release'?"),
        (["list"], "there is no task 'list'", "did you mean 'model.list'?"),
        (["zzz"], "there is no task 'zzz'", "known here: model.list, promote, release"),
        ([""], "there is no task ''", "known here: model.list"),
        (["--help", "relase"], "there is no task 'relase'", "did you mean 'release'?"),
        (
            ["release", "--enviroment", "staging"],
            "`release` has no option '--enviroment'",
            "did you mean '--env'?",
        ),
        (
            ["release", "--dryrun"],
            "`release` has no option '--dryrun'",
            "did you mean '--dry-run'?",
        ),
        (["release", "-x"], "`release` has no option '-x'", "`invoke --help release`"),
        (["--enviroment", "x", "release"], "Invoke has no option '--enviroment'", "--help"),
        (["release", "promot"], "'promot' is neither a task nor an option", "'promote'?"),
        (["release", "--env", "a", "--env", "b"], "'b' is neither a task", "given once"),
        (["release", "--dry-run=yes"], "'yes' is neither a task", "explains its options"),
        (["release", "--env"], "--env has no value", "give one"),
        (["release", "--env", ""], "--env has no value", "a variable in its place may be empty"),
        (["release", "--env="], "--env has no value", "leave the option out"),
        (["promote"], "`promote` needs --from and --to", "`invoke --help promote`"),
        (["promote", "--from", "staging"], "`promote` needs --to", "`invoke --help promote`"),
        (
            ["promote", "--form", "staging", "--to", "production"],
            "`promote` has no option '--form'",
            "did you mean '--from'?",
        ),
        (["release", "--", "--env", "x"], "nothing may follow `--`: --env x", "only Nox"),
        (["release", "--list-depth", "two"], "takes a number", "`invoke --help`"),
        (["--list", "modle"], "there is no group of tasks 'modle'", "did you mean 'model'?"),
        (["--list", "--list-format", "jsn"], "there is no format 'jsn'", "did you mean 'json'?"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_name(
    run: Run, words: list[str], what: str, next_step: str, ran: list[str], capsys: Output
) -> None:
    """Nothing is run, and the exit code is that of a wrong setting."""
    assert run(*words) == 2
    printed = capsys.readouterr()
    assert what in printed.err
    assert next_step in printed.err.partition(" next: ")[2]
    assert "No idea" not in printed.err
    assert (printed.out, ran) == ("", [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["release"], ["release"]),
        (["release", "--env", "staging"], ["release staging"]),
        (["promote", "--from", "a", "--to", "b"], ["promote a b"]),
        (["model.list", "release"], ["list", "release"]),
        (["release", "--"], ["release"]),
        (["--echo", "-w", "-p", "-T", "5", "--hide", "both", "release"], ["release"]),
        (["release", "--echo", "--warn-only", "--pty", "--command-timeout", "5"], ["release"]),
    ],
)
def test_a_right_command_line_is_run(
    run: Run, words: list[str], expected: list[str], ran: list[str]
) -> None:
    """Options of Invoke about commands of a shell change nothing, as no task runs one."""
    assert run(*words) == 0
    assert ran == expected


@pytest.mark.parametrize("words", [["--dry", "release"], ["-R", "release"], ["release", "--dry"]])
def test_a_dry_run_of_invoke_runs_nothing(
    run: Run, words: list[str], ran: list[str], capsys: Output
) -> None:
    """Invoke skips commands of a shell only; the error names the option that plans a release."""
    assert run(*words) == 2
    assert "`invoke release --dry-run`" in capsys.readouterr().err
    assert ran == []


def test_a_dry_run_by_a_variable_runs_nothing(
    run: Run, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invoke reads its settings from the environment, too."""
    monkeypatch.setenv("INVOKE_RUN_DRY", "1")
    assert run("release") == 2
    assert ran == []


def test_a_dry_run_by_a_file_runs_nothing(run: Run, ran: list[str], tmp_path: Path) -> None:
    """And from files."""
    file = tmp_path / "invoke.yaml"
    file.write_text("run:\n  dry: true\n", encoding="utf-8")
    assert run("--config", str(file), "release") == 2
    assert ran == []


@pytest.fixture(params=["file", "suffix", "variable"])
def configuration(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return options that give Invoke a configuration that it cannot use."""
    if request.param == "variable":
        monkeypatch.setenv("INVOKE_RUN_WATCHERS", "x")
        return []
    file = tmp_path / ("invoke.yaml" if request.param == "file" else "invoke.txt")
    file.write_text("run: [", encoding="utf-8")
    return ["--config", str(file)]


def test_a_broken_configuration_of_invoke_is_an_error_for_people(
    run: Run, configuration: list[str], ran: list[str], capsys: Output
) -> None:
    """The suite needs none."""
    assert run(*configuration, "release") == 2
    assert "Invoke's own configuration cannot be used" in capsys.readouterr().err
    assert ran == []


def test_help_and_lists_are_printed(run: Run, ran: list[str], capsys: Output) -> None:
    """They are no errors."""
    for words in (["--list"], ["--list", "model"], ["--help", "release"], ["release", "--help"]):
        assert run(*words) == 0
        assert capsys.readouterr().out
    assert ran == []


def test_a_shell_can_complete_a_word(run: Run, ran: list[str], capsys: Output) -> None:
    """It gives what was typed, which is not run."""
    assert run("--complete", "--", "invoke", "rel") == 0
    assert "release" in capsys.readouterr().out.split()
    assert run("--complete", "--", "invoke", "release", "--") == 0
    assert "--dry-run" in capsys.readouterr().out.split()
    assert ran == []


@pytest.fixture
def _restored() -> Iterator[None]:
    kind = main.program.__class__
    yield
    main.program.__class__ = kind


@pytest.mark.usefixtures("_restored")
def test_every_way_to_start_invoke_runs_this_program() -> None:
    """Invoke has one program, which reads the tasks while it runs."""
    main.program.__class__ = InvokeProgram
    take_over()
    assert isinstance(main.program, Program)
