"""Ctrl-C and SIGTERM while something is brought to its end."""

from __future__ import annotations

import signal
import threading

import pytest

from deploy import interrupts, progress
from deploy.interrupts import Terminated
from tests.fakes.display import RecordingDisplay

BOTH = [(signal.SIGINT, KeyboardInterrupt, "Ctrl-C"), (signal.SIGTERM, Terminated, "SIGTERM")]

each_signal = pytest.mark.parametrize(("number", "error", "name"), BOTH)


@each_signal
def test_what_is_brought_to_its_end_is_not_interrupted(
    number: signal.Signals, error: type[BaseException], name: str
) -> None:
    """Whoever asked for it is told what is waited for."""
    done: list[str] = []
    noted = RecordingDisplay()
    with progress.use_display(noted), interrupts.defer_signals("writing it down"):
        signal.raise_signal(number)
        done.append("written")
    assert done == ["written"]
    assert noted.lines == [f"writing it down; {name} again stops at once"]


@each_signal
def test_whoever_insists_is_obeyed(
    number: signal.Signals, error: type[BaseException], name: str
) -> None:
    """A block that hangs can be left."""
    done: list[str] = []
    with pytest.raises(error) as caught, interrupts.defer_signals("waiting"):  # noqa: PT012 - one story
        signal.raise_signal(number)
        signal.raise_signal(number)
        done.append("never")
    assert not done
    assert caught.type is error


def test_both_signals_together_are_one_request() -> None:
    """A runner that sends one after the other does not insist; whoever sends one of them again does."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts.defer_signals("waiting"):  # noqa: PT012 - one story
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("waited")
        signal.raise_signal(signal.SIGINT)
        done.append("never")
    assert done == ["waited"]


def test_sigterm_ends_a_block_that_hears_it() -> None:
    """With an exception, on whose way out all is put right."""
    done: list[str] = []
    with pytest.raises(Terminated), interrupts.handle_sigterm():  # noqa: PT012 - one story
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            done.append("put right")
    assert done == ["put right"]


def test_afterwards_both_signals_are_what_they_were() -> None:
    """Also where nobody sent one, and where the block failed."""
    before = [signal.getsignal(number) for number, *_ in BOTH]
    with interrupts.handle_sigterm(), interrupts.defer_signals("nothing"):
        pass
    with (
        pytest.raises(ValueError, match="failed"),
        interrupts.handle_sigterm(),
        interrupts.defer_signals("failing"),
    ):
        raise ValueError("failed")
    assert [signal.getsignal(number) for number, *_ in BOTH] == before


def test_another_thread_has_nothing_to_hold() -> None:
    """Only the main thread may say what a signal does."""
    done: list[str] = []

    def work() -> None:
        with interrupts.handle_sigterm(), interrupts.defer_signals("working"):
            done.append("worked")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["worked"]
