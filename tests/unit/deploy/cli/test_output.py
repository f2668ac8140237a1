"""The output of tasks, for people and for scripts."""

from __future__ import annotations

import errno
import io
import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from deploy import progress
from deploy.cli import output
from deploy.errors import DiskFull, GoldenMiss, InternalError, ReleaseError, SettingsInvalid
from deploy.interrupts import Terminated

PROJECT = Path(__file__).parents[4]
log = logging.getLogger("deploy.test")
ERROR = GoldenMiss(
    "the release missed 1 of 2 golden cases",
    on="http://shop.example",
    next="fix the model",
    detail="  three: expected 3, got 8\n",
)


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal that shows colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def run_task(raised: BaseException | None = None) -> str:
    """Run a task that logs, and then raises that error or prints a result."""

    @output.task_body
    def body(_: Context) -> str:
        log.info("code   1234, nothing to build")
        log.warning("no git repository here")
        if raised:
            raise raised
        output.result("http://shop.example  three → 3")
        return "done"

    return body(Context())


def test_results_go_to_standard_output_and_all_else_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A pipe gets only the result."""
    assert run_task() == "done"
    shown = capsys.readouterr()
    assert shown.out == "http://shop.example  three → 3\n"
    assert shown.err == "· code   1234, nothing to build\n! no git repository here\n"


def test_an_error_is_printed_with_all_its_parts_and_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is no traceback, and nothing on standard output."""
    with pytest.raises(Exit) as caught:
        run_task(ERROR)
    assert caught.value.code == 60
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[2:] == [
        "error: the release missed 1 of 2 golden cases",
        "   on: http://shop.example",
        "  three: expected 3, got 8",
        " next: fix the model   (exit code 60)",
    ]


def test_an_error_without_a_subject_has_no_line_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty detail has no line either."""
    output.print_error(ReleaseError("it stopped", on="", next="run again"))
    assert capsys.readouterr().err == "error: it stopped\n next: run again   (exit code 1)\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_interruptions_end_a_task_without_a_traceback(error: BaseException, code: int) -> None:
    """This holds for Ctrl-C and SIGTERM."""
    with pytest.raises(Exit) as caught:
        run_task(error)
    assert caught.value.code == code


STOPPED = """
import signal, sys
from invoke.context import Context
from invoke.exceptions import Exit
from deploy.cli import output
from deploy.rollout.apply import apply
from tests.fakes.golden import GOLDEN_SET, FakePlayer
from tests.fakes.releases import release, rollout
from tests.fakes.target import MemoryTarget

class Waiting(MemoryTarget):
    def serve(self, release, prove):
        super().serve(release, prove)
        print("waiting", flush=True)
        signal.pause()

A, B = release("a"), release("b")
target = Waiting()
target.add_history(rollout(1, A))

@output.task_body
def task(_):
    try:
        apply(B, target, GOLDEN_SET, trigger="release", by="ada", play=FakePlayer())
    finally:
        print(target.serves(A), target.history()[-1].ending.why)

try:
    task(Context())
except Exit as end:
    sys.exit(end.code)
"""


def start(script: str) -> subprocess.Popen[str]:
    """Run a script of Python in a process of its own, whose streams can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_rollout_undoes_it(number: signal.Signals, code: int) -> None:
    """A person, a CI system or a service manager may send it."""
    with start(STOPPED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (out, process.returncode) == ("True interrupted\n", code)
    assert "run the same command again" in err


def test_messages_call_tasks_as_the_process_was_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person can type what a message says; the name of Invoke itself stays."""
    monkeypatch.setattr(output, "_program", "invoke")
    output.use_program("twinship")

    output.result("advice: `invoke rollback --only model`")
    next_step = "`invoke up`, then `invoke x`"
    output.print_error(SettingsInvalid("Invoke cannot", on="it", next=next_step))

    printed = capsys.readouterr()
    assert printed.out == "advice: `twinship rollback --only model`\n"
    assert "Invoke cannot" in printed.err
    assert "`twinship up`, then `twinship x`" in printed.err


def test_an_interruption_says_how_to_continue(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command can be run again."""
    with pytest.raises(Exit):
        run_task(KeyboardInterrupt())
    assert "run the same command again" in capsys.readouterr().err


def test_a_refused_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors of the operating system that no stage handles are printed like all others."""
    with pytest.raises(Exit) as caught:
        run_task(PermissionError(13, "Permission denied", "/etc/secret"))
    assert caught.value.code not in (0, 1)
    err = capsys.readouterr().err
    assert "Permission denied" in err
    assert "   on: /etc/secret" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_as_such(capsys: pytest.CaptureFixture[str], number: int) -> None:
    """The error is not about permissions."""
    with pytest.raises(Exit) as caught:
        run_task(OSError(number, "full", "/var/file"))
    assert caught.value.code == DiskFull.exit_code
    err = capsys.readouterr().err
    assert "   on: /var/file" in err
    assert "free some space" in err


def test_a_fault_of_the_program_is_one_sentence_and_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The file has the trace."""
    with pytest.raises(Exit) as caught:
        run_task(ZeroDivisionError("division by zero"))
    assert caught.value.code == InternalError.exit_code
    err = capsys.readouterr().err
    assert "error: this program has a fault: ZeroDivisionError" in err
    assert "Traceback" not in err
    (path,) = re.findall(r"^   on: (.*)$", err, re.MULTILINE)
    assert "ZeroDivisionError: division by zero" in Path(path).read_text(encoding="utf-8")


def test_an_error_of_a_library_is_not_taken_for_one_of_the_system() -> None:
    """Some libraries derive theirs from OSError, without a number."""
    with pytest.raises(Exit) as caught:
        run_task(OSError("no response"))
    assert caught.value.code == InternalError.exit_code


def test_a_closed_pipe_is_not_written_to_again() -> None:
    """Python itself writes what is left at its end, and would complain."""
    script = (
        "import sys\n"
        "from invoke.context import Context\n"
        "from invoke.exceptions import Exit\n"
        "from deploy.cli import output\n"
        "@output.task_body\n"
        "def body(_):\n"
        "    for _ in range(10000):\n"
        "        output.result('x' * 1000)\n"
        "try:\n"
        "    body(Context())\n"
        "except Exit as end:\n"
        "    sys.exit(end.code)\n"
    )
    with start(script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (said, process.returncode) == ("", 1)


def test_letters_that_an_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of a task is not lost in a terminal of another encoding."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    output.result("three → 3")
    stream.seek(0)
    assert stream.read() == "three \\u2192 3\n"


def test_a_task_leaves_the_log_as_it_was() -> None:
    """The lines of the next task appear once."""
    logger = logging.getLogger("deploy")
    before = list(logger.handlers), logger.level, logger.propagate
    run_task()
    with pytest.raises(Exit):
        run_task(ERROR)
    assert (logger.handlers, logger.level, logger.propagate) == before


def test_json_is_one_document_without_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of every language stay as they are."""
    output.as_json({"name": "Zoë", "cases": [1, None]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "Zoë", "cases": [1, None]}
    assert "Zoë" in out


HOSTILE = "\x1b[2J\x1b]52;c;eA==\x07\r\u202e ##vso[task.setvariable variable=A]b\n::add-mask::x"
ESCAPED = (
    "\\x1b[2J\\x1b]52;c;eA==\\x07\\r\\u202e # #vso[task.setvariable variable=A]b",
    ": :add-mask::x",
)


def test_text_from_outside_is_escaped_wherever_it_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names, logs and messages of models, registries and servers reach a log of a CI system."""

    @output.task_body
    def body(_: Context) -> None:
        log.warning("%s", HOSTILE)
        output.result(HOSTILE)
        output.table([[HOSTILE]], ("name",))
        raise ReleaseError(HOSTILE, on=HOSTILE, next=HOSTILE, detail=f"{HOSTILE}\n")

    with pytest.raises(Exit):
        body(Context())
    shown = capsys.readouterr()
    line = "\\n".join((ESCAPED[0], "::add-mask::x"))
    assert shown.out.splitlines() == [*ESCAPED, "name", line]
    assert shown.err.splitlines() == [
        f"! {ESCAPED[0]}",
        ESCAPED[1],
        f"error: {line}",
        f"   on: {line}",
        *ESCAPED,
        f" next: {line}   (exit code 1)",
    ]


def test_the_progress_of_work_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """File names and lines of other programs are text from outside, too."""
    stream = io.StringIO()
    display = progress.LineDisplay(stream)
    with progress.use_display(display), progress.track(HOSTILE, 3) as advance:
        advance(3)
    assert stream.getvalue().startswith(f"    {ESCAPED[0]}")
    assert len(stream.getvalue().splitlines()) == 1


def test_json_of_text_from_outside_is_harmless_and_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A script gets the text that the server sent, and a terminal does not."""
    output.as_json({"answer": HOSTILE, "half": "\ud800"})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"answer": HOSTILE, "half": "\ud800"}
    assert "\x1b" not in shown
    assert "##vso" not in shown


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines have no spaces at their end."""
    output.table([["1*", "undone", ""], ["10", "succeeded", "x"]], ("id", "outcome", ""))
    shown = capsys.readouterr().out
    assert shown.splitlines() == ["id  outcome", "1*  undone", "10  succeeded  x"]


def test_a_table_without_rows_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    """A list can be empty."""
    output.table([], ("model", "version"))
    assert capsys.readouterr().out == "model  version\n"


def test_colours_are_for_terminals(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be switched off."""
    assert output.paint("!", "33", stream=terminal) == "\x1b[33m!\x1b[0m"
    assert output.paint("!", "33", stream=io.StringIO()) == "!"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("!", "33", stream=terminal) == "!"


def test_a_line_on_a_terminal_replaces_a_progress_note(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note is about work that is done then."""
    monkeypatch.setattr("sys.stderr", terminal)

    @output.task_body
    def body(_: Context) -> None:
        progress.report("waiting for /readyz")
        log.info("smoke  2 golden cases passed")
        output.print_error(ERROR)

    body(Context())
    shown = terminal.getvalue()
    assert "waiting for /readyz" in shown
    assert "\r\x1b[K\x1b[32;1m·\x1b[0m smoke  2 golden cases passed\n" in shown
    assert shown.index("\r\x1b[K\x1b[31;1merror:\x1b[0m") > shown.index("smoke")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_source_of_a_log_line_has_a_colour_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal, *, is_terminal: bool
) -> None:
    """In a pipe there is none; what the line says has none in either."""
    stream = terminal if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    output.log_line("local-3", "36", "read \x1b[31mred\nmore")
    source = "\x1b[36mlocal-3\x1b[0m" if is_terminal else "local-3"
    assert stream.getvalue() == f"{source}  read \\x1b[31mred\\nmore\n"
