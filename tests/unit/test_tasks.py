"""The command line: its tasks, their help, their output and their exit codes."""

from __future__ import annotations

import inspect
import json
import logging
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import commands, tasks
from deploy.cli.program import Program
from deploy.errors import InternalError, ReleaseError
from tests.fakes.application import Application
from tests.fakes.deployers import Killed, is_held, mortal

ROOT = Path(__file__).parents[2]
HEAVY = {
    "azure",
    "docker",
    "kubernetes",
    "numpy",
    "obstore",
    "onnx",
    "pydantic",
    "requests",
    "rich",
    "starlette",
    "testcontainers",
}
NAMES = {
    "abort",
    "build",
    "deploy",
    "diff",
    "doctor",
    "down",
    "fetch",
    "history",
    "init",
    "logs",
    "model.list",
    "model.publish",
    "model.show",
    "promote",
    "promote-canary",
    "push",
    "release",
    "render",
    "rollback",
    "smoke",
    "status",
    "up",
    "verify",
}
LISTING = """
import sys
from invoke.main import program
try:
    program.run(["invoke", *sys.argv[1:]])
except SystemExit:
    pass
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""

# Values that no option expects: of the wrong kind, too long, relative, with strange letters.
HOSTILE = (
    "",
    " ",
    "two",
    "0",
    "-1",
    "9" * 20,
    "9" * 5000,
    "a" * 5000,
    "no/such/folder",
    "pipeline.toml",
    "/dev/null",
    "-",
    "--env",
    "@",
    "@..",
    "a@b@c",
    "é\n\t\x1b[31m",
    "\udcff",
    "%s{}$HOME",
)

Run = Callable[..., int]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Application:
    """Return the application that the tasks work on, with one published model."""
    application = Application(tmp_path)
    application.publish("1")
    monkeypatch.setattr(tasks, "_context", lambda env="": application.context(env or "local"))
    monkeypatch.setattr(tasks, "HERE", application.folder)
    return application


@pytest.fixture
def run(application: Application) -> Run:
    """Return a function that runs a command line as a shell would, and returns its exit code."""

    def run_command(*words: str) -> int:
        try:
            Program(namespace=tasks.namespace).run(["invoke", *words])
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run_command


def load_tasks() -> dict[str, Any]:
    """Return every task by its name, loaded again as Invoke removes the help of those it runs."""
    namespace = runpy.run_path(str(tasks.__file__))["namespace"]
    return {name: namespace[name] for name in namespace.task_names}


def test_every_task_exists() -> None:
    """The names are those in the documentation."""
    assert set(load_tasks()) == NAMES


def test_every_task_and_every_option_is_explained() -> None:
    """The explanations are in the list and in the help of each task."""
    for name, found in load_tasks().items():
        # A word of Python's own is written with a line after it.
        options = {
            option.rstrip("_")
            for option in inspect.signature(found.body).parameters
            if option != "_"
        }
        assert {option.replace("-", "_") for option in found.help} == options, name
        assert inspect.getdoc(found.body), name


def test_tasks_have_no_logic() -> None:
    """Each calls one command."""
    for name, found in load_tasks().items():
        body = inspect.getsource(inspect.unwrap(found.body)).split('"""', 2)[2].strip().splitlines()
        assert (body[0].strip(), body[1].strip(), len(body)) == (
            "from deploy.cli import commands",
            "",
            3,
        ), name
        called = body[2].strip().partition("(")[0]
        assert called.startswith("commands."), name
        assert hasattr(commands, called.removeprefix("commands.")), name


@pytest.mark.parametrize("words", [["--list"], ["--help", "release"], ["--help", "promote"]])
def test_listing_loads_nothing_heavy(words: list[str]) -> None:
    """`invoke --list` is instant because no client library is imported before a stage needs it."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listing, _, loaded = done.stdout.partition("loaded:")
    assert "release" in listing
    assert "deploy" in loaded.split()
    assert HEAVY & set(loaded.split()) == set()


def test_every_task_is_listed_with_its_first_sentence() -> None:
    """`invoke --list` is a table of contents."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING, "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    entries = re.findall(r"^  (\S+) +(.*(?:\n {4,}.*)*)", done.stdout, re.MULTILINE)
    assert {name: " ".join(text.split()) for name, text in entries} == {
        name: (inspect.getdoc(found.body) or "").splitlines()[0]
        for name, found in load_tasks().items()
    }


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("promote", ["--from=STRING", "--json", "--to=STRING"]),
        ("promote-canary", ["--env=STRING", "--json"]),
        ("abort", ["--env=STRING", "--json"]),
        ("render", ["--env=STRING", "--records=STRING"]),
    ],
)
def test_the_options_of_a_task_are_in_its_help(
    run: Run, task: str, options: list[str], capsys: Output
) -> None:
    """They have the names by which they are given."""
    assert run("--help", task) == 0
    printed = capsys.readouterr().out
    assert [
        word for word in printed.split() if word.startswith("--") and word != "[--options]"
    ] == options


def test_a_release_can_be_inspected(run: Run, capsys: Output) -> None:
    """Each command prints something."""
    assert run("release") == 0
    assert capsys.readouterr().out == "http://127.0.0.1:8080  three → 3, 99.1 (12 ms)\n"
    for words in (["verify"], ["status"], ["history"], ["release"], ["model.list"], ["model.show"]):
        assert run(*words) == 0
        assert capsys.readouterr().out


def test_stages_run_one_by_one_with_records(
    run: Run, application: Application, tmp_path: Path
) -> None:
    """CI runs them so; the folder is found from the application's."""
    records = str(tmp_path / "records")
    for stage in ("fetch", "build", "smoke", "push", "deploy"):
        assert run(stage, "--records", records) == 0
    assert (tmp_path / "records" / "rollout.json").is_file()
    assert run("verify") == 0


def test_a_release_is_promoted_from_environment_to_environment(run: Run, capsys: Output) -> None:
    """The image is the same each time."""
    assert run("release", "--env", "staging") == 0
    assert run("promote", "--from", "staging", "--to", "production") == 0
    assert run("promote", "--from", "production", "--to", "local") == 0
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "http://fake/services/classifier-staging:80",
        "http://fake/services/classifier-production:80",
        "http://127.0.0.1:8080",
    ]
    assert run("render", "--env", "production") == 0
    assert "image: far.example/live/classifier@sha256:" in capsys.readouterr().out


@pytest.fixture
def orphaned(
    run: Run, application: Application, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """Leave a canary on hold, whose deployer was killed."""
    for key, value in {
        "STRATEGY": "canary",
        "CANARY__METRICS": "",
        "CANARY__SECONDS": "600",
    }.items():
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__STAGING__{key}", value)
    assert run("release", "--env", "staging") == 0
    application.publish("2")
    with mortal(application, "staging", lambda _: is_held(application)), pytest.raises(Killed):
        run("release", "--env", "staging")
    capsys.readouterr()


@pytest.mark.usefixtures("orphaned")
@pytest.mark.parametrize(
    ("task", "outcome"), [("promote-canary", "succeeded"), ("abort", "undone")]
)
def test_a_decision_ends_a_canary(run: Run, task: str, outcome: str, capsys: Output) -> None:
    """Its deployer is gone."""
    assert run(task, "--env", "staging", "--json") == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == outcome


@pytest.mark.parametrize(
    "words",
    [
        ["doctor", "--json"],
        ["doctor", "--env", "staging", "--json"],
        ["promote", "--from", "local", "--to", "staging", "--json"],
        ["model.list", "--json"],
        ["model.show"],
        ["release", "--dry-run", "--json"],
        ["release", "--json"],
        ["verify", "--json"],
        ["history", "--json"],
        ["history", "--release", "1", "--json"],
        ["status", "--json"],
        ["diff", "1", "1", "--json"],
        ["rollback", "--to", "1", "--json"],
    ],
)
def test_standard_output_has_only_json(
    run: Run, application: Application, words: list[str], capsys: Output
) -> None:
    """The log of the stages goes to standard error."""
    assert run("release") == 0
    capsys.readouterr()
    assert run(*words) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert "{" not in printed.err


def test_the_log_goes_to_standard_error(run: Run, capsys: Output) -> None:
    """Each stage has a line."""
    assert run("release", "--json") == 0
    said = [
        line[2:].split()[0]
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("· ")
    ]
    assert [word for word in said if word in ("model", "code", "image", "smoke", "push", "serves")][
        :2
    ] == ["model", "code"]
    assert said[-1] == "serves"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["release", "--env", "nowhere"], 2, "no environment is named 'nowhere'"),
        (
            ["promote", "--from", "nowhere", "--to", "production"],
            2,
            "no environment is named 'nowhere'",
        ),
        (
            ["promote", "--from", "staging", "--to", "staging"],
            2,
            "cannot be promoted to where it serves",
        ),
        (
            ["promote", "--from", "staging", "--to", "production"],
            64,
            "nothing has been released here yet",
        ),
        (["promote-canary"], 2, "this needs an environment on a cluster"),
        (["promote-canary", "--env", "staging"], 64, "no canary is on hold"),
        (["abort", "--env", "staging"], 64, "no canary is on hold"),
        (["render"], 2, "this needs an environment on a cluster"),
        (["render", "--env", "staging"], 3, "there is no release to render"),
        (["render", "--env", "staging", "--records", "nowhere"], 3, "a stage's input is missing"),
        (["release", "--model", "imagenet"], 2, "serves 'digits', not 'imagenet'"),
        (["release", "--model", "@"], 2, "no version after the @"),
        (["fetch", "--records", "pipeline.toml"], 2, "records need a folder"),
        (["fetch", "--records", "pipeline.toml/x"], 2, "records need a folder"),
        (["smoke", "--records", "pipeline.toml"], 2, "records need a folder"),
        (["release", "--model", "@7"], 20, "the store has no digits 7"),
        (["release", "--env", "stagin"], 2, "did you mean 'staging'?"),
        (["rollback", "--only", "wheels"], 2, "--only takes model or code"),
        (["rollback", "--only", "modle"], 2, "did you mean 'model'?"),
        (["rollback"], 64, "nothing has been released here yet"),
        (["verify"], 64, "nothing has been released here yet"),
        (["smoke", "--records", "nowhere"], 3, "a stage's input is missing"),
        (["model.publish"], 2, "say what to publish"),
        (["model.publish", "--sample"], 26, "this application has no sample model"),
    ],
)
def test_errors_become_a_message_and_an_exit_code(
    run: Run, words: list[str], code: int, text: str, capsys: Output
) -> None:
    """The message is on standard error and says what to do next; standard output stays empty."""
    assert run(*words) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert text in printed.err
    assert " next: " in printed.err
    assert "Traceback" not in printed.err


def test_a_failed_release_exits_with_its_own_code(
    run: Run, application: Application, capsys: Output
) -> None:
    """A script can distinguish a wrong response from a crash."""
    application.play.wrong["http://127.0.0.1:8080"] = "expected 3, got 8"
    assert run("release") == 60
    assert "three: expected 3, got 8" in capsys.readouterr().err


def test_an_interruption_exits_as_shells_expect(
    run: Run, application: Application, capsys: Output
) -> None:
    """The user presses Ctrl-C during a release."""

    def interrupt() -> str:
        raise KeyboardInterrupt

    application.play.problem = interrupt
    assert run("release") == 130
    assert "interrupted" in capsys.readouterr().err


def _options() -> list[tuple[str, str]]:
    """Return each option that takes a value, after the name of its task."""
    return [
        (name, f"--{argument.names[0]}")
        for name, found in load_tasks().items()
        for argument in found.get_arguments()
        if argument.takes_value
    ]


def _exit_codes(kind: type[ReleaseError]) -> set[int]:
    """Return the exit codes of an error and of those derived from it."""
    return {kind.exit_code}.union(*map(_exit_codes, kind.__subclasses__()))


@pytest.mark.parametrize(("task", "option"), _options())
def test_no_value_of_an_option_ends_in_a_traceback(
    run: Run, application: Application, task: str, option: str, capsys: Output
) -> None:
    """Whatever a person or a script gives, the error says what to do next."""
    needed = {
        "promote": {"--from": "local", "--to": "staging"},
        "diff": {"--first": "1", "--second": "2"},
    }.get(task, {})
    others = [word for pair in needed.items() if pair[0] != option for word in pair]
    known = _exit_codes(ReleaseError) - {ReleaseError.exit_code, InternalError.exit_code}
    for value in HOSTILE:
        code = run(task, *others, f"{option}={value}")
        printed = capsys.readouterr().err
        assert code == 0 or code in known, (value, printed)
        assert " next: " in printed or code == 0, value


@pytest.mark.parametrize(
    ("to", "code"),
    [("two", 2), ("", 2), ("0", 2), ("-1", 2), ("1.5", 2), ("²", 2), ("9" * 20, 2), ("7", 64)],
)
def test_a_rollback_to_what_is_no_release_changes_nothing(
    run: Run, application: Application, to: str, code: int, capsys: Output
) -> None:
    """The error says where the ids are."""
    assert run("release") == 0
    before = application.state()
    assert run("rollback", f"--to={to}") == code
    assert application.state() == before


@pytest.mark.parametrize("words", [["--from", "staging"], ["--to", "production"], []])
def test_a_promotion_needs_both_environments(
    run: Run, application: Application, words: list[str], capsys: Output
) -> None:
    """Neither has a default."""
    assert run("promote", *words) == 2
    assert capsys.readouterr().out == ""
    assert application.cluster.requests == []


def test_a_machine_is_set_up_and_stopped(
    run: Run, application: Application, capsys: Output
) -> None:
    """The result says what was done."""
    assert run("up") == 0
    assert capsys.readouterr().out.startswith("ready: ")
    assert run("release") == 0
    capsys.readouterr()
    assert run("down", "--purge") == 0
    assert capsys.readouterr().out.startswith("removed: twinship-classifier-local-")
    assert application.engine.containers({}) == []


def test_tasks_leave_the_log_as_it_was(run: Run) -> None:
    """Any number of them can run in one process."""
    before = list(logging.getLogger("deploy").handlers)
    run("release")
    run("verify")
    assert logging.getLogger("deploy").handlers == before
