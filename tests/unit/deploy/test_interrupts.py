"""Ctrl-C and SIGTERM while a step is completed."""

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
def test_a_deferred_signal_does_not_interrupt(
    number: signal.Signals, error: type[BaseException], name: str
) -> None:
    """A status line says what is completed first."""
    done: list[str] = []
    display = RecordingDisplay()
    with progress.use_display(display), interrupts.defer_signals("writing the record"):
        signal.raise_signal(number)
        done.append("written")
    assert done == ["written"]
    assert display.lines == [f"writing the record; {name} again stops at once"]


@each_signal
def test_the_same_signal_again_interrupts(
    number: signal.Signals, error: type[BaseException], name: str
) -> None:
    """A step that hangs can be stopped."""
    done: list[str] = []
    with pytest.raises(error) as caught, interrupts.defer_signals("waiting"):  # noqa: PT012 - one story
        signal.raise_signal(number)
        signal.raise_signal(number)
        done.append("never")
    assert not done
    assert caught.type is error


def test_one_signal_of_each_kind_is_one_request() -> None:
    """A CI runner may send both; one of them again interrupts."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts.defer_signals("waiting"):  # noqa: PT012 - one story
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("waited")
        signal.raise_signal(signal.SIGINT)
        done.append("never")
    assert done == ["waited"]


def test_sigterm_ends_a_block_by_an_exception() -> None:
    """The block can clean up."""
    done: list[str] = []
    with pytest.raises(Terminated), interrupts.handle_sigterm():  # noqa: PT012 - one story
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            done.append("put right")
    assert done == ["put right"]


def test_both_signals_have_their_previous_handlers_afterwards() -> None:
    """This holds without a signal, and after an error too."""
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


def test_another_thread_changes_no_handlers() -> None:
    """Only the main thread can set signal handlers."""
    done: list[str] = []

    def work() -> None:
        with interrupts.handle_sigterm(), interrupts.defer_signals("working"):
            done.append("worked")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["worked"]
