"""Moments of a task: it has printed a line, or the engine has done something for it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bench.application import Application

BOUND = 120.0
# Seconds by which an event may be older than the arrival of the line that it follows.
_EARLY = 1.0
# Seconds for the events of a task that has ended to arrive.
_LATE = 2.0
# The action, the role of the container, and its application; of a throwaway container, its owner.
_FORMAT = (
    "{{.Action}} "
    '{{with index .Actor.Attributes "dev.twinship.trial"}}throwaway {{.}}{{end}}'
    '{{index .Actor.Attributes "dev.twinship.role"}} '
    '{{index .Actor.Attributes "dev.twinship.app"}}'
)


@dataclass(frozen=True)
class Moment:
    """A moment of a task; without a line and an event it is its start.

    Args:
        line: part of a line that the task prints.
        event: what the engine does after that: an action and the role of a container.
        times: how many times it does that.
    """

    line: str = ""
    event: str = ""
    times: int = 1


def start_until(
    moment: Moment, application: Application, *arguments: str, **variables: str
) -> subprocess.Popen[str]:
    """Start a task and return it at a moment.

    Raises:
        AssertionError: the task ended before.
    """
    since = time.time()
    task = application.start(*arguments, **variables)
    reached = True
    if moment.line:
        reached = any(moment.line in line for line in task.stderr or ())
        since = time.time() - _EARLY
    if moment.event and reached:
        reached = _has_happened(moment, application, task, since, variables)
    assert reached, f"{moment} did not come\n{''.join(task.communicate(timeout=BOUND))}"
    return task


def _has_happened(
    moment: Moment,
    application: Application,
    task: subprocess.Popen[str],
    since: float,
    variables: dict[str, str],
) -> bool:
    """Wait for the events of a moment; return whether they came before the task ended."""
    found = 0
    with _events(since, variables) as events:
        threading.Thread(target=_end_together, args=(task, events), daemon=True).start()
        for line in events.stdout or ():
            found += _is_of(line.split(), moment.event.split(), application, task)
            if found == moment.times:
                return True
    return False


def _is_of(
    words: list[str], event: list[str], application: Application, task: subprocess.Popen[str]
) -> bool:
    """Return whether an event of the engine is the one that is waited for, and of this task."""
    if words[:2] != event:
        return False
    if event[1] == "throwaway":
        # A task that is run by other programs has its engine for itself, and another number.
        return bool(application.under) or words[2].split("/")[2] == str(task.pid)
    return words[2:] == [application.name]


@contextmanager
def _events(since: float, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run the engine's own program that prints what happens to containers since a time."""
    command = ["docker", "events", "--since", f"{since:.6f}"]
    command += ["--filter", "type=container", "--format", _FORMAT]
    with subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _end_together(task: subprocess.Popen[str], events: subprocess.Popen[str]) -> None:
    """End the events when the task has ended, or takes too long."""
    with suppress(subprocess.TimeoutExpired):
        task.wait(BOUND)
    with suppress(subprocess.TimeoutExpired):
        events.wait(_LATE)
    events.terminate()
