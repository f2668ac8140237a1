"""What all tests share."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Lets Ctrl-C reach what tests start: a shell has what it runs in the background ignore it, and all that is started from there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
