from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import meters

PYTHON = sys.executable


def test_a_command_is_measured_with_its_output(tmp_path: Path) -> None:
    """This is its output, the lines of standard error in order, and it has its variables."""
    code = (
        "import os, sys; print(os.environ['WORD']); "
        "print('one', file=sys.stderr); print('two', file=sys.stderr)"
    )
    result = meters.measure((PYTHON, "-c", code), tmp_path, {"WORD": "output"})

    assert result.out == "output\n"
    assert [line for _, line in result.lines] == ["one", "two"]
    assert 0 < result.lines[0][0] <= result.lines[1][0] <= result.cost.seconds
    assert result.cost.cpu > 0


def test_a_commands_memory_is_its_own_and_not_its_parents(tmp_path: Path) -> None:
    """A large parent does not show in the figure; the memory of the command does."""
    ballast = bytearray(os.urandom(1)) * 150_000_000
    small = meters.measure((PYTHON, "-c", "import time; time.sleep(0.1)"), tmp_path, {})
    large = meters.measure(
        (PYTHON, "-c", "import time; data = bytearray(b'x') * 100_000_000; time.sleep(0.1)"),
        tmp_path,
        {},
    )

    assert len(ballast) > small.cost.peak
    assert 100_000_000 < large.cost.peak < 150_000_000


def test_the_memory_of_children_counts(tmp_path: Path) -> None:
    """A process that starts another for its work is not small."""
    inner = "import time; data = bytearray(b'x') * 80_000_000; time.sleep(0.1)"
    result = meters.measure(
        (
            PYTHON,
            "-c",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])",
        ),
        tmp_path,
        {},
    )

    assert result.cost.peak > 80_000_000


def test_bytes_read_and_written_are_counted(tmp_path: Path) -> None:
    """Files that a command reads and writes count."""
    (tmp_path / "in").write_bytes(bytes(3_000_000))
    code = "open('out', 'wb').write(open('in', 'rb').read())"
    result = meters.measure((PYTHON, "-c", code), tmp_path, {})

    assert result.cost.read is not None
    assert result.cost.written is not None
    assert result.cost.read > 3_000_000
    assert 3_000_000 <= result.cost.written < 3_100_000


def test_a_command_that_fails_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    """Figures of a failure have no meaning."""
    with pytest.raises(meters.CommandFailed, match=r"ended with 3\n(.|\n)*it broke"):
        meters.measure(
            (PYTHON, "-c", "import sys; print('it broke', file=sys.stderr); sys.exit(3)"),
            tmp_path,
            {},
        )


def test_processor_time_is_read_from_the_kernels_line() -> None:
    """It is user and system time, with ended children, whatever the name of the process."""
    line = "42 (a) b) (c) S 1 42 42 0 -1 4194560 1 2 3 4 100 50 30 20 20 0 9 0 12345 1 2"

    assert meters.processor_seconds(line, ticks=100) == 2.0


def test_the_bytes_that_were_read_of_a_file_are_observed(tmp_path: Path) -> None:
    """After an eviction, only what is read comes back to the page cache."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True
    ).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        pytest.skip("files live in memory here: set TMPDIR to a folder on a disk")
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8_000_000))
    meters.evict(path)
    before = meters.resident(path)
    with path.open("rb") as file:
        file.read(100_000)
    after = meters.resident(path)

    assert before == 0
    assert 100_000 <= after < 4_000_000
    path.read_bytes()
    assert meters.resident(path) >= 8_000_000


def test_a_fork_that_runs_its_parents_program_does_not_count() -> None:
    """It shares its parent's memory."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        assert pid not in meters.descendants(os.getpid())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
