from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import meters

PYTHON = sys.executable


def test_a_command_is_measured_with_what_it_said(tmp_path: Path) -> None:
    """Output, the lines of standard error in their order, and the variables it was given."""
    code = "import os, sys; print(os.environ['WORD']); print('one', file=sys.stderr); print('two', file=sys.stderr)"
    ended = meters.measure((PYTHON, "-c", code), tmp_path, {"WORD": "said"})

    assert ended.out == "said\n"
    assert [line for _, line in ended.lines] == ["one", "two"]
    assert 0 < ended.lines[0][0] <= ended.lines[1][0] <= ended.cost.seconds
    assert ended.cost.cpu > 0


def test_a_commands_memory_is_its_own_and_not_its_parents(tmp_path: Path) -> None:
    """A large measuring process does not show in the figure; what the command takes does."""
    ballast = bytearray(os.urandom(1)) * 150_000_000
    small = meters.measure((PYTHON, "-c", "import time; time.sleep(0.1)"), tmp_path, {})
    large = meters.measure(
        (PYTHON, "-c", "import time; held = bytearray(b'x') * 100_000_000; time.sleep(0.1)"),
        tmp_path,
        {},
    )

    assert len(ballast) > small.cost.peak
    assert 100_000_000 < large.cost.peak < 150_000_000


def test_the_memory_of_children_counts(tmp_path: Path) -> None:
    """A process that has another do its work is not small."""
    inner = "import time; held = bytearray(b'x') * 80_000_000; time.sleep(0.1)"
    ended = meters.measure(
        (
            PYTHON,
            "-c",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])",
        ),
        tmp_path,
        {},
    )

    assert ended.cost.peak > 80_000_000


def test_bytes_read_and_written_are_counted(tmp_path: Path) -> None:
    """Files that a command reads and writes show in its figures."""
    (tmp_path / "in").write_bytes(bytes(3_000_000))
    code = "open('out', 'wb').write(open('in', 'rb').read())"
    ended = meters.measure((PYTHON, "-c", code), tmp_path, {})

    assert ended.cost.read is not None
    assert ended.cost.written is not None
    assert ended.cost.read > 3_000_000
    assert 3_000_000 <= ended.cost.written < 3_100_000


def test_a_command_that_fails_shows_its_end(tmp_path: Path) -> None:
    """Figures of a failure would mean nothing."""
    with pytest.raises(meters.CommandFailed, match=r"ended with 3\n(.|\n)*it broke"):
        meters.measure(
            (PYTHON, "-c", "import sys; print('it broke', file=sys.stderr); sys.exit(3)"),
            tmp_path,
            {},
        )


def test_processor_time_is_read_from_the_kernels_line() -> None:
    """User and system time, of the process and its ended children, whatever its name looks like."""
    line = "42 (a) b) (c) S 1 42 42 0 -1 4194560 1 2 3 4 100 50 30 20 20 0 9 0 12345 1 2"

    assert meters.processor_seconds(line, ticks=100) == 2.0


def test_what_was_read_of_a_file_is_seen(tmp_path: Path) -> None:
    """After the system was made to forget a file, only what is read of it comes back."""
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


def test_a_process_has_no_descendants_of_its_own_shape() -> None:
    """A fork that still runs its parent's program shares its memory and is not counted twice."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        assert pid not in meters.descendants(os.getpid())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
