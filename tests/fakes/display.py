"""Displays that record what is reported to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deploy.progress import Advance, QuietDisplay


class RecordingDisplay(QuietDisplay):
    """A display that records status lines.

    Attributes:
        notes: the lines, in order.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def report(self, text: str) -> None:
        """Record a line."""
        self.lines.append(text)


class CountingDisplay(QuietDisplay):
    """A display that adds up the bytes of each piece of work.

    Attributes:
        counts: the announced total and the counted bytes, by label.
    """

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Add up the counts."""
        self.counts[label] = (total, 0)

        def advance(count: int) -> None:
            self.counts[label] = (total, self.counts[label][1] + count)

        yield advance
