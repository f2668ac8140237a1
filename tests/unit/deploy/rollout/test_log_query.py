"""Which lines are found for a question about an environment's logs."""

from __future__ import annotations

import itertools
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from deploy.errors import ReleaseUnknown, SettingsInvalid
from deploy.records import Ending, Evidence, LogLine, Rollout
from deploy.rollout.log_query import LogQuery, find_lines
from deploy.rollout.target import ReplicaState, Target
from tests.fakes.clock import FakeTime
from tests.fakes.releases import START, release, rollout
from tests.fakes.target import MemoryTarget

A = release("a")
B = release("b")
CLOCK = FakeTime().clock


def undone(number: int, text: str) -> Rollout:
    """Return an attempt that was undone, with a line that was kept of it."""
    attempt = rollout(number, B).attempt
    line = LogLine(source="local-3", at=attempt.at, text=text)
    ending = Ending(outcome="undone", at=attempt.at, evidence=Evidence(log=(line,)))
    return Rollout(attempt=attempt, ending=ending)


@pytest.fixture
def target() -> MemoryTarget:
    """Return an environment with a release that serves between two that were undone."""
    target = MemoryTarget()
    target.add_history(undone(1, "first"), rollout(2, A), undone(3, "third"))
    target.write(A, "serving", at=START + timedelta(minutes=2))
    return target


def texts(target: MemoryTarget, query: LogQuery) -> list[tuple[str, str]]:
    """Return who wrote the lines that are found, and their texts."""
    return [(line.source, line.text) for line in find_lines(target, query, CLOCK)]


SERVING = [("replica-1", "serving"), ("replica-2", "serving")]
THIRD = ("local-3 of 3", "third")


def test_what_was_kept_of_later_attempts_is_among_the_lines(target: MemoryTarget) -> None:
    """That of attempts before the release which serves is of no interest."""
    assert texts(target, LogQuery()) == [*SERVING, THIRD]


def test_what_was_kept_since_a_time_is_among_the_lines(target: MemoryTarget) -> None:
    """Whatever serves."""
    assert texts(target, LogQuery(since=START)) == [("local-3 of 1", "first"), *SERVING, THIRD]
    assert texts(target, LogQuery(since=START + timedelta(minutes=3))) == [THIRD]


def test_the_lines_of_one_release_are_those_of_its_replicas(target: MemoryTarget) -> None:
    """Or those that were kept, if it has none any more."""
    target.add_replicas(B, ReplicaState.STARTING)
    target.write(B, "retry", at=START + timedelta(minutes=9))
    assert texts(target, LogQuery(release=2)) == SERVING
    assert texts(target, LogQuery(release=3)) == [
        THIRD,
        ("replica-3", "retry"),
        ("replica-4", "retry"),
    ]


def test_what_was_kept_is_not_followed(target: MemoryTarget) -> None:
    """Followed logs begin with their own last lines."""
    lines = find_lines(target, LogQuery(follow=True), CLOCK)
    assert [line.text for line in itertools.islice(lines, 2)] == ["serving", "serving"]
    target.write(A, "more", at=START + timedelta(minutes=8))
    assert [line.text for line in itertools.islice(lines, 2)] == ["more", "more"]


def test_a_release_that_never_was_is_an_error(target: MemoryTarget) -> None:
    """It is not mistaken for one without lines."""
    with pytest.raises(ReleaseUnknown, match="no release 7"):
        find_lines(target, LogQuery(release=7), CLOCK)


def test_a_target_without_logs_is_an_error() -> None:
    """They are no part of what every target has."""
    mute = cast("Target", SimpleNamespace(environment="local"))
    with pytest.raises(SettingsInvalid, match="cannot be read") as caught:
        find_lines(mute, LogQuery(), CLOCK)
    assert caught.value.on == "environment local"


def test_the_lock_does_not_matter(target: MemoryTarget) -> None:
    """A deployer may be at work."""
    with target.lock():
        assert texts(target, LogQuery(release=2)) == SERVING
