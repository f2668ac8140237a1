"""Holding a canary: what is counted of both sides, and from when on."""

from __future__ import annotations

import pytest

from deploy.entrance import Entrance
from deploy.environments import Canary
from deploy.errors import CanaryAborted
from deploy.targets.canary import Hold
from deploy.targets.clock import Clock


class Sides:
    """Two sides that have answered before, and answer more every second; a clock that only they move.

    Args:
        before: how many answers the stable side has given, all of them failures.
        failing: the share of the canary's answers that fail.
    """

    def __init__(self, before: int = 0, failing: float = 0.0) -> None:
        self.now, self._before, self._failing = 0.0, before, failing
        self.clock = Clock(now=lambda: self.now, sleep=self._pass)

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def read(self, entrance: Entrance, _path: str) -> str:
        """The metrics of a replica."""
        answers = 10 * self.now
        failed, before = (answers * self._failing, 0) if entrance.url == "new" else (0.0, self._before)
        return (
            f'app_requests_total{{path="/score",status="200"}} {answers - failed}\n'
            f'app_requests_total{{path="/score",status="500"}} {failed + before}\n'
        )

    def hold(self, **settings: float) -> None:
        """Holds a canary of one replica beside a stable one."""
        Hold(
            Canary(seconds=30, **settings),
            canaries=lambda: {"new-1": Entrance("new")},
            stables=lambda: {"old-1": Entrance("old")},
            prove=lambda _: None,
            decided=lambda: None,
            read=self.read,
            clock=self.clock,
        ).run()


def test_a_canary_as_good_as_the_stable_side_is_held_to_the_end() -> None:
    """Both answer without failures, and the time decides."""
    sides = Sides()

    sides.hold()

    assert sides.now >= 30


def test_a_canary_that_fails_more_often_is_given_up() -> None:
    """A share of failures above what is allowed ends the hold early."""
    sides = Sides(failing=0.2)

    with pytest.raises(CanaryAborted, match=r"20\.0%"):
        sides.hold()

    assert sides.now < 30


def test_failures_of_the_stable_side_from_before_do_not_excuse_the_canary() -> None:
    """What a replica did before the hold does not weigh in."""
    with pytest.raises(CanaryAborted, match=r"the stable side 0\.0%"):
        Sides(before=1000, failing=0.2).hold()
