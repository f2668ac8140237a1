"""Progress on displays: plain lines in logs, and bars on terminals."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import termios

import pytest

from deploy import progress
from deploy.progress import (
    BarDisplay,
    Display,
    LineDisplay,
    QuietDisplay,
    format_seconds,
    format_size,
)
from tests.fakes.display import RecordingDisplay


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (18_540, "18.5 kB"),
        (123_456, "123 kB"),
        (18_540_000, "18.5 MB"),
        (250_000_000, "250 MB"),
        (1_500_000_000, "1.5 GB"),
        (2_000_000_000_000, "2000.0 GB"),
    ],
)
def test_sizes_are_formatted_in_units_of_a_thousand(count: int, shown: str) -> None:
    """Small numbers have one decimal."""
    assert format_size(count) == shown


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.3, "12 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (185.2, "3 min 05 s"),
    ],
)
def test_durations_are_formatted_for_people(duration: float, shown: str) -> None:
    """Long durations are less exact."""
    assert format_seconds(duration) == shown


class FakeClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Use a fake clock for the lines."""
    clock = FakeClock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_bytes_are_printed_every_few_seconds_and_at_the_end(clock: FakeClock) -> None:
    """Small chunks do not fill the log."""
    stream = io.StringIO()
    with LineDisplay(stream).track("pushing", 100_000) as advance:
        for _ in range(10):
            clock.now += 1
            advance(10_000)
    assert stream.getvalue().splitlines() == [
        "    pushing: 60.0 kB of 100 kB",
        "    pushing: 100 kB in 10 s",
    ]


def test_work_of_unknown_size_is_printed_without_a_total(clock: FakeClock) -> None:
    """Only the done bytes are known."""
    stream = io.StringIO()
    with LineDisplay(stream).track("exporting", 0) as advance:
        clock.now += 6
        advance(5)
    assert stream.getvalue().splitlines() == ["    exporting: 5 B", "    exporting: 5 B in 6.0 s"]


def test_work_without_bytes_is_not_printed() -> None:
    """There is nothing to report."""
    stream = io.StringIO()
    with LineDisplay(stream).track("pushing", 0):
        pass
    assert stream.getvalue() == ""


def test_status_lines_are_printed_every_few_seconds(clock: FakeClock) -> None:
    """A wait of one second needs no line, a wait of one minute does."""
    stream = io.StringIO()
    lines = LineDisplay(stream)
    for _ in range(12):
        clock.now += 1
        lines.report(f"waiting at {clock.now:.0f}")
    assert stream.getvalue().splitlines() == ["    waiting at 1006", "    waiting at 1012"]


class FakeTerminal(io.StringIO):
    """A terminal of a certain width that records its output."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._keeper, self._terminal = pty.openpty()
        termios.tcsetwinsize(self._terminal, (24, columns))

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._terminal

    def close(self) -> None:
        """Close the file descriptors."""
        os.close(self._keeper)
        os.close(self._terminal)
        super().close()


@pytest.mark.parametrize("columns", [20, 60, 200])
def test_a_status_line_on_a_terminal_replaces_the_last_one(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """It is one line on any terminal, and has no control characters."""
    with contextlib.closing(FakeTerminal(columns)) as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with progress.use_display(BarDisplay()):
            progress.report("x" * 300)
            progress.report("two\tlines\x1b[2A of a build")
        shown = terminal.getvalue()
    assert shown.startswith("\r\x1b[K")
    assert shown.endswith("\r")
    assert "x" * (columns - 5) in shown
    assert "x" * (columns - 4) not in shown
    assert "two lines\\x1b[2A of a build"[: columns - 5] in shown


def test_a_status_line_fits_80_columns_if_the_width_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most terminals are as wide."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    BarDisplay().report("x" * 300)
    assert stream.getvalue().count("x") == 75


def test_a_label_of_a_bar_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a file can look like the markup of the library."""
    with contextlib.closing(FakeTerminal(200)) as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        with BarDisplay().track("fetching [link=https://evil.example]a[/link]", 10) as advance:
            advance(10)
        shown = terminal.getvalue()
    assert "fetching [link=https://evil.example]a[/link]" in shown


def test_a_bar_is_removed_and_not_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Standard output is for results."""
    with BarDisplay().track("pushing", 1000) as advance:
        advance(500)
    assert capsys.readouterr().out == ""


def test_stages_report_to_the_innermost_display() -> None:
    """Without a display nothing is shown."""
    outer = RecordingDisplay()
    inner = RecordingDisplay()
    with progress.use_display(outer):
        progress.report("one")
        with pytest.raises(KeyError), progress.use_display(inner):
            raise KeyError
        progress.report("two")
    progress.report("three")
    assert (outer.lines, inner.lines) == (["one", "two"], [])


@pytest.mark.parametrize("display", [QuietDisplay(), LineDisplay(io.StringIO()), BarDisplay()])
def test_every_display_accepts_counts(display: Display) -> None:
    """A stage need not know which display is used."""
    with progress.use_display(display), progress.track("pushing", 10) as advance:
        advance(10)
        advance(-10)
