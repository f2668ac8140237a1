"""Ctrl-C while something is brought to its end."""

from __future__ import annotations

import signal
import threading

import pytest

from deploy import interrupts, progress
from tests.fakes.display import Noted


def press() -> None:
    """What a terminal does when somebody presses Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def test_what_is_brought_to_its_end_is_not_interrupted() -> None:
    """Whoever pressed it is told what is waited for."""
    done: list[str] = []
    noted = Noted()
    with progress.shown_on(noted), interrupts.held("writing it down"):
        press()
        done.append("written")
    assert done == ["written"]
    assert noted.notes == ["writing it down; Ctrl-C again stops at once"]


def test_whoever_insists_is_obeyed() -> None:
    """A block that hangs can be left."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts.held("waiting"):  # noqa: PT012  one story
        press()
        press()
        done.append("never")
    assert not done


def test_afterwards_ctrl_c_is_what_it_was() -> None:
    """Also where nobody pressed it, and where the block failed."""
    before = signal.getsignal(signal.SIGINT)
    with interrupts.held("nothing"):
        pass
    with pytest.raises(ValueError, match="failed"), interrupts.held("failing"):
        raise ValueError("failed")
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_has_nothing_to_hold() -> None:
    """Only the main thread may say what a signal does."""
    done: list[str] = []

    def work() -> None:
        with interrupts.held("working"):
            done.append("worked")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["worked"]
