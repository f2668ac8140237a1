"""The logs of several replicas: merged, followed, and kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from deploy.clients.log_lines import TimedLine
from deploy.errors import EngineUnavailable
from deploy.rollout.logs import LogSource, Window, follow_logs, merge_logs, read_last_lines
from deploy.rollout.target import ReplicaState
from tests.fakes.clock import FakeTime
from tests.fakes.releases import release
from tests.fakes.target import MemoryTarget

START = datetime(2026, 1, 1, tzinfo=UTC)
Logs = dict[str, list[TimedLine]]


def at(seconds: float) -> datetime:
    """Return a time."""
    return START + timedelta(seconds=seconds)


def find_sources(logs: Logs) -> list[LogSource]:
    """Return the logs by their names; like an engine, each takes whole seconds only."""

    def read(name: str, window: Window) -> Iterator[TimedLine]:
        lines = logs[name] if window.lines is None else logs[name][-window.lines :]
        first = window.since and window.since.replace(microsecond=0)
        return (line for line in lines if first is None or line[0] >= first)

    return [LogSource(name, "", partial(read, name)) for name in logs]


def texts(lines: Iterator[object], count: int) -> list[str]:
    """Return the texts of the next lines."""
    return [getattr(line, "text", "") for line in itertools.islice(lines, count)]


def test_lines_of_several_logs_are_in_order_of_time() -> None:
    """Each has the name of its log."""
    logs: Logs = {"one": [(at(1), "a"), (at(3), "c")], "two": [(at(2), "b"), (at(4), "d")]}
    found = list(merge_logs(find_sources(logs), Window()))
    assert [(line.source, line.text) for line in found] == [
        ("one", "a"),
        ("two", "b"),
        ("one", "c"),
        ("two", "d"),
    ]


def test_lines_of_one_moment_stay_in_their_order() -> None:
    """Those of a clock that is not as fine, for example."""
    logs: Logs = {"one": [(at(1), "b"), (at(1), "a")]}
    assert [line.text for line in merge_logs(find_sources(logs), Window())] == ["b", "a"]


@pytest.fixture
def time() -> FakeTime:
    """Return the time of the test, which ends when nothing new comes."""
    time = FakeTime()
    pass_time = time.clock.sleep

    def sleep(seconds: float) -> None:
        assert time.seconds < 20, "no new line comes"
        pass_time(seconds)

    time.clock = replace(time.clock, sleep=sleep)
    return time


def test_each_line_of_a_followed_log_comes_once(time: FakeTime) -> None:
    """Also if the log gives lines of the same second again, and several have one time."""
    logs: Logs = {"one": [(at(1.2), "a"), (at(1.2), "b")]}
    lines = follow_logs(lambda: find_sources(logs), Window(lines=100), time.clock)
    assert texts(lines, 2) == ["a", "b"]
    logs["one"] += [(at(1.2), "c"), (at(1.4), "d")]
    assert texts(lines, 2) == ["c", "d"]
    logs["one"] += [(at(1.4), "e")]
    assert texts(lines, 1) == ["e"]
    assert time.seconds == 2


def test_a_followed_log_begins_with_the_lines_that_were_asked_for(time: FakeTime) -> None:
    """After them it goes on with all."""
    logs: Logs = {"one": [(at(number), str(number)) for number in range(5)]}
    lines = follow_logs(lambda: find_sources(logs), Window(lines=1), time.clock)
    assert texts(lines, 1) == ["4"]
    logs["one"] += [(at(number), str(number)) for number in (5, 6, 7)]
    assert texts(lines, 3) == ["5", "6", "7"]


def test_lines_before_the_first_time_never_come(time: FakeTime) -> None:
    """Nothing was written since, so the log is asked from the same time again."""
    logs: Logs = {"one": [(at(1), "old")], "two": []}
    lines = follow_logs(lambda: find_sources(logs), Window(since=at(5)), time.clock)
    logs["two"] += [(at(6), "new")]
    assert texts(lines, 1) == ["new"]
    logs["one"] += [(at(7), "later")]
    assert texts(lines, 1) == ["later"]


def test_a_replica_that_starts_later_is_followed_from_its_first_line(time: FakeTime) -> None:
    """A rollout goes on meanwhile; one that is gone ends nothing."""
    logs: Logs = {"one": [(at(1), "a")]}
    lines = follow_logs(lambda: find_sources(logs), Window(lines=1), time.clock)
    assert texts(lines, 1) == ["a"]
    logs.clear()
    logs["two"] = [(at(2), "b"), (at(3), "c")]
    assert texts(lines, 2) == ["b", "c"]


# --- what is kept


@pytest.fixture
def target() -> MemoryTarget:
    """Return an environment with replicas of two releases."""
    target = MemoryTarget()
    target.add_replicas(release("a"), ReplicaState.SERVING)
    target.add_replicas(release("b"), ReplicaState.STARTING)
    return target


def test_the_last_lines_of_the_replicas_of_one_release_are_kept(target: MemoryTarget) -> None:
    """They are few, and say which replica wrote them."""
    target.write(release("a"), "serving", at=START)
    target.write(release("b"), *map(str, range(100)), at=START)
    lines = read_last_lines(target, release("b").image.digest)
    assert [(line.source, line.text) for line in lines] == [
        ("replica-4", str(number)) for number in range(80, 100)
    ]


def test_kept_lines_are_short_and_have_no_control_characters(target: MemoryTarget) -> None:
    """Clients choose some of what is in them."""
    target.write(release("b"), "\x1b[2J##vso[task.complete]", "x" * 1000, at=START)
    texts = [line.text for line in read_last_lines(target, release("b").image.digest)]
    assert texts[:2] == ["\\x1b[2J# #vso[task.complete]", f"{'x' * 300}..."]


def test_logs_that_cannot_be_read_are_not_kept(
    target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An undo does not fail because of them."""

    def fail() -> tuple[LogSource, ...]:
        raise EngineUnavailable("the engine stopped answering", on="it", next="start it")

    monkeypatch.setattr(target, "log_sources", fail)
    assert read_last_lines(target, release("b").image.digest) == ()


def test_a_target_without_logs_has_no_lines() -> None:
    """They are no part of what every target has."""
    absent: Callable[[], None] = lambda: None  # noqa: E731 - any object will do
    assert read_last_lines(absent, release("b").image.digest) == ()
