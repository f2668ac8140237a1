"""Programs are run to their end, and their lines are reported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from deploy.clients.programs import run_program


def test_lines_of_both_outputs_are_reported_and_returned() -> None:
    """Bytes that are not text are replaced."""
    lines: list[str] = []
    script = r"printf 'one\n  two\n\377\n'; echo three >&2; exit 7"
    done = run_program(["sh", "-c", script], lines.append)
    assert done.exit_code == 7
    assert lines == ["one", "two", "\N{REPLACEMENT CHARACTER}", "three"]
    assert done.lines == ("one", "  two", "\N{REPLACEMENT CHARACTER}", "three")


def test_a_program_gets_its_input_and_its_environment() -> None:
    """Both replace those of this process."""
    with tempfile.TemporaryFile() as file:
        file.write(b"given\n")
        file.seek(0)
        script = 'cat; echo "$NAME"'
        environment = {"PATH": os.environ["PATH"], "NAME": "Ada"}
        done = run_program(
            ["sh", "-c", script], lambda _: None, stdin=file, environment=environment
        )
    assert done.lines == ("given", "Ada")


def test_a_program_ends_when_this_process_is_interrupted(tmp_path: Path) -> None:
    """A signal to this process alone does not reach the program."""
    number = tmp_path / "number"

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(["sh", "-c", f"echo $$ >{number}; echo line; exec sleep 60"], interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text(encoding="utf-8")), 0)
