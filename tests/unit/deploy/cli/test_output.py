"""What people see of a task, and what scripts read."""

from __future__ import annotations

import errno
import io
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.exceptions import Exit

from deploy import progress
from deploy.cli import output
from deploy.errors import DiskFull, GoldenMiss, ReleaseError
from deploy.interrupts import Terminated

PROJECT = Path(__file__).parents[4]
log = logging.getLogger("deploy.test")
ERROR = GoldenMiss(
    "the release missed 1 of 2 golden cases",
    on="http://door",
    next="mend the model",
    detail="  three: expected 3, got 8\n",
)


class Terminal(io.StringIO):
    """A stream that says that somebody looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal for colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def run(raised: BaseException | None = None) -> str:
    """A task that logs, and then ends in that error or gives a result."""

    @output.task_body
    def body() -> str:
        log.info("code   1234, nothing to build")
        log.warning("no git repository here")
        if raised:
            raise raised
        output.result("http://door  three → 3")
        return "done"

    return body()


def test_results_go_to_standard_output_and_all_else_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is piped is the result alone."""
    assert run() == "done"
    shown = capsys.readouterr()
    assert shown.out == "http://door  three → 3\n"
    assert shown.err == "· code   1234, nothing to build\n! no git repository here\n"


def test_an_error_is_told_with_all_it_says_and_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What happened, on what, the lines that show it, what to do next; no traceback, and nothing on standard output."""
    with pytest.raises(Exit) as caught:
        run(ERROR)
    assert caught.value.code == 60
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[2:] == [
        "error: the release missed 1 of 2 golden cases",
        "   on: http://door",
        "  three: expected 3, got 8",
        " next: mend the model   (exit code 60)",
    ]


def test_an_error_without_a_place_has_no_line_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor one for lines that show nothing."""
    output.complain(ReleaseError("it stopped", on="", next="run again"))
    assert capsys.readouterr().err == "error: it stopped\n next: run again   (exit code 1)\n"


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (BrokenPipeError(), 1)]
)
def test_interruptions_end_a_task_without_a_traceback(error: BaseException, code: int) -> None:
    """Whoever presses Ctrl-C, or stops reading, sees no Python."""
    with pytest.raises(Exit) as caught:
        run(error)
    assert caught.value.code == code


STOPPED = """
import signal, sys
from invoke.exceptions import Exit
from deploy.cli import output
from deploy.rollout.apply import apply
from tests.fakes.proof import PROOF, FakePlayer
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
def task():
    try:
        apply(B, target, PROOF, trigger="release", by="ada", play=FakePlayer())
    finally:
        print(target.serves(A), target.history()[-1].ending.why)

try:
    task()
except Exit as end:
    sys.exit(end.code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_told_to_stop_in_mid_rollout_puts_the_previous_release_back(
    number: signal.Signals, code: int
) -> None:
    """Whoever tells it: a person, a CI system, a service manager."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (out, process.returncode) == ("True interrupted\n", code)
    assert "run the same command again" in err


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything can be run again."""
    with pytest.raises(Exit):
        run(KeyboardInterrupt())
    assert "run the same command again" in capsys.readouterr().err


def test_a_file_that_the_system_refuses_is_told_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors of the operating system that no stage has foreseen are told like all others."""
    with pytest.raises(Exit) as caught:
        run(PermissionError(13, "Permission denied", "/etc/secret"))
    assert caught.value.code not in (0, 1)
    err = capsys.readouterr().err
    assert "Permission denied" in err
    assert "   on: /etc/secret" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_where_nobody_foresaw_it_is_told_as_such(
    capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """Its permissions are not what is wrong."""
    with pytest.raises(Exit) as caught:
        run(OSError(number, "full", "/var/file"))
    assert caught.value.code == DiskFull.exit_code
    err = capsys.readouterr().err
    assert "   on: /var/file" in err
    assert "free some space" in err


def test_a_mistake_of_the_program_is_not_hidden() -> None:
    """What is nobody's to mend but ours keeps its traceback."""
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_a_task_leaves_the_log_as_it_was() -> None:
    """However it ends, the next task's lines appear once."""
    logger = logging.getLogger("deploy")
    before = list(logger.handlers), logger.level, logger.propagate
    run()
    with pytest.raises(Exit):
        run(ERROR)
    assert (logger.handlers, logger.level, logger.propagate) == before


def test_json_is_one_document_as_people_write(capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of every language stay as they are."""
    output.as_json({"name": "Zoë", "cases": [1, None]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "Zoë", "cases": [1, None]}
    assert "Zoë" in out


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Without spaces at the end of lines, which copying would take along."""
    shown = output.table([["1*", "undone", ""], ["10", "succeeded", "x"]], ("id", "outcome", ""))
    assert shown.splitlines() == ["id  outcome", "1*  undone", "10  succeeded  x"]


def test_a_table_without_rows_is_its_header() -> None:
    """Nothing published is no error."""
    assert output.table([], ("model", "version")) == "model  version"


def test_colours_are_for_terminals(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for those who asked for none."""
    assert output.paint("!", "33", stream=terminal) == "\x1b[33m!\x1b[0m"
    assert output.paint("!", "33", stream=io.StringIO()) == "!"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("!", "33", stream=terminal) == "!"


def test_on_a_terminal_a_line_takes_the_place_of_a_note(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being done right now is overwritten by what was done."""
    monkeypatch.setattr("sys.stderr", terminal)

    @output.task_body
    def body() -> None:
        progress.report("waiting for /readyz")
        log.info("smoke  2 golden cases passed")
        output.complain(ERROR)

    body()
    shown = terminal.getvalue()
    assert "waiting for /readyz" in shown
    assert "\r\x1b[K\x1b[32;1m·\x1b[0m smoke  2 golden cases passed\n" in shown
    assert shown.index("\r\x1b[K\x1b[31;1merror:\x1b[0m") > shown.index("smoke")
