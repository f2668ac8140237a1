"""A display that remembers what it was told."""

from __future__ import annotations

from deploy.progress import Quiet


class Noted(Quiet):
    """Keeps the lines about what is being done.

    Attributes:
        notes: those lines, in order.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    def report(self, text: str) -> None:
        """Keeps it."""
        self.notes.append(text)
