"""Settings of all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let SIGINT reach what tests start.

    A shell makes background processes ignore it, and their children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
