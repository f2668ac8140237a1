"""Holding a canary: what is counted of both sides and from when on, and what ends the hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deploy.clients.http import Endpoint
from deploy.clock import Clock
from deploy.errors import CanaryAborted, GoldenMiss
from deploy.settings.environments import Canary
from deploy.targets.kubernetes.canary import CanaryHold, ResponseCount, ResponseTotals
from deploy.targets.kubernetes.history import Decision


def metrics(good: float, failed: float = 0.0) -> str:
    """What a replica tells of so many answers."""
    return (
        f'app_requests_total{{path="/score",status="200"}} {good}\n'
        f'app_requests_total{{path="/score",status="400"}} 0\n'
        f'app_requests_total{{path="/score",status="500"}} {failed}\n'
    )


class Sides:
    """Two sides that have answered before, and answer more every second; a clock that only they move.

    Args:
        before: how many answers the stable side has given, all of them failures.
        failing: the share of the canary's answers that fail.
        rate: how many answers each gives in a second.

    Attributes:
        texts: what a replica tells, if not that.
        word: what somebody wants to become of the canary, and when that is said.
        proved: when golden cases were played.
    """

    def __init__(self, before: int = 0, failing: float = 0.0, rate: float = 10.0) -> None:
        self.now = 0.0
        self._before = before
        self._failing = failing
        self._rate = rate
        self.clock = Clock(now=lambda: self.now, sleep=self._pass)
        self.texts: dict[str, Callable[[], str]] = {}
        self.word: tuple[float, Any] | None = None
        self.proved: list[float] = []
        self.wrong_at = float("inf")
        self.new = ["new-1"]
        self.old = ["old-1"]

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def read(self, endpoint: Endpoint, _path: str) -> str:
        """The metrics of a replica."""
        if endpoint.url in self.texts:
            return self.texts[endpoint.url]()
        answers = self._rate * self.now
        failed, before = (
            (answers * self._failing, 0) if endpoint.url.startswith("new") else (0.0, self._before)
        )
        return metrics(answers - failed, failed + before)

    def _prove(self, _endpoint: Endpoint) -> None:
        self.proved.append(self.now)
        if self.now >= self.wrong_at:
            raise GoldenMiss("wrong", on="it", next="mend it")

    def _decided(self) -> Decision | None:
        said = self.word is not None and self.now >= self.word[0]
        return Decision(image="x", verb=self.word[1], by="grace") if said and self.word else None

    def hold(self, **settings: Any) -> None:
        """Holds a canary beside a stable side."""
        CanaryHold(
            Canary(**{"seconds": 30, **settings}),
            canary_endpoints=lambda: {name: Endpoint(name) for name in self.new},
            stable_endpoints=lambda: {name: Endpoint(name) for name in self.old},
            prove=self._prove,
            read_decision=self._decided,
            read_metrics=self.read,
            clock=self.clock,
        ).run()


# --- how it ends


def test_a_canary_as_good_as_the_stable_side_is_held_to_the_end() -> None:
    """Both answer without failures, and the time decides."""
    sides = Sides()
    sides.hold()
    assert 30 <= sides.now < 32


def test_a_canary_that_has_answered_enough_is_held_no_longer() -> None:
    """If a number was named; the time is the limit all the same."""
    enough = Sides()
    few = Sides(rate=1)
    enough.hold(requests=100)
    few.hold(requests=100)
    assert 10 <= enough.now < 12
    assert 30 <= few.now < 32


def test_a_canary_that_fails_more_often_is_given_up() -> None:
    """A share of failures above what is allowed ends the hold early."""
    sides = Sides(failing=0.2)
    with pytest.raises(
        CanaryAborted, match=r"failed 20\.0% of its requests, the stable side 0\.0%"
    ) as caught:
        sides.hold()
    assert sides.now < 30
    assert caught.value.on == "canary: 20 answers, 4 failed; stable: 20 answers, 0 failed"


@pytest.mark.parametrize("verb", ["promote", "abort"])
def test_a_word_ends_it_at_once(verb: str) -> None:
    """Whichever it is; who gave it up is named."""
    sides = Sides()
    sides.word = (7.0, verb)
    if verb == "promote":
        sides.hold(seconds=3600)
    else:
        with pytest.raises(CanaryAborted, match="grace gave the canary up"):
            sides.hold(seconds=3600)
    assert 7 <= sides.now < 9


def test_somebody_may_promote_what_fails() -> None:
    """They know why."""
    sides = Sides(failing=0.5)
    sides.word = (0.0, "promote")
    sides.hold()
    assert sides.now == 0


def test_golden_cases_are_played_again_and_again() -> None:
    """A miss ends it."""
    sides = Sides()
    sides.wrong_at = 25
    with pytest.raises(GoldenMiss):
        sides.hold(seconds=3600)
    assert [round(moment, -1) for moment in sides.proved] == [10, 20, 30]


# --- what is counted


def test_failures_of_the_stable_side_from_before_do_not_excuse_the_canary() -> None:
    """What a replica did before the hold does not weigh in."""
    with pytest.raises(CanaryAborted, match=r"the stable side 0\.0%"):
        Sides(before=1000, failing=0.2).hold()


def test_failures_of_the_stable_side_excuse_the_canary() -> None:
    """What fails on both is not the release's fault: it is compared."""
    sides = Sides(failing=0.2)
    sides.texts["old-1"] = lambda: metrics(8 * sides.now, 2 * sides.now)
    sides.hold()
    assert sides.now >= 30


@pytest.mark.parametrize("text", ["", "# nothing here\n", 'other_total{status="500"} 7\n'])
def test_a_stable_side_without_metrics_has_no_failures(text: str) -> None:
    """Then it is the limit alone that counts."""
    bad = Sides(failing=0.2)
    good = Sides(failing=0.005)
    for sides in (bad, good):
        sides.texts["old-1"] = lambda: text
    with pytest.raises(CanaryAborted, match=r"the stable side 0\.0%"):
        bad.hold()
    good.hold()
    assert good.now >= 30


NOTHING = [
    "",
    "<html>404</html>",
    "\0\0\0",
    "app_requests_total{",
    'app_requests_total{status="500"} many\n',
    metrics(0),
]


@pytest.mark.parametrize("text", NOTHING)
def test_a_canary_that_tells_nothing_is_held_by_time(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Golden cases are all that is known of it, and that is said once, with what to do about it."""
    sides = Sides()
    sides.texts["new-1"] = lambda: text
    sides.hold()
    assert sides.now >= 30
    assert sides.proved
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "the canary tells of no answers (counter app_requests_total with label status at /metrics)"
        in warning
    )
    assert "`metrics`, `counter` and `status`" in warning


def test_a_canary_that_tells_something_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """It has answered golden cases before it is held."""
    sides = Sides()
    sides.texts["new-1"] = lambda: metrics(2)
    sides.hold()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("text", NOTHING)
def test_a_canary_whose_answers_are_to_be_counted_has_to_tell_of_them(text: str) -> None:
    """Nobody knows otherwise whether there were any; it is told when the time is over, as it may tell of them late."""
    sides = Sides()
    late = Sides()
    sides.texts["new-1"] = lambda: text
    with pytest.raises(CanaryAborted, match="told of no answers") as caught:
        sides.hold(requests=10)
    assert sides.now >= 30
    assert "app_requests_total" in caught.value.on
    assert "`requests`" in caught.value.next
    late.texts["new-1"] = lambda: metrics(1) if 20 < late.now < 22 else text
    late.hold(requests=10)


def test_somebody_may_promote_a_canary_that_tells_nothing() -> None:
    """They know what they do."""
    sides = Sides()
    sides.texts["new-1"] = lambda: ""
    sides.word = (7.0, "promote")
    sides.hold(requests=10)
    assert sides.now < 9


def test_nobody_is_asked_for_metrics_that_are_switched_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An application may have none, and whoever says so needs no warning."""
    sides = Sides(failing=1.0)
    sides.texts |= dict.fromkeys(("new-1", "old-1"), lambda: pytest.fail("it was asked"))
    sides.hold(metrics="")
    assert sides.now >= 30
    assert not caplog.records


def test_a_few_failures_by_chance_do_not_count() -> None:
    """One of ten is no tenth of all."""
    sides = Sides(rate=0.3)
    sides.texts["new-1"] = lambda: metrics(9, 1 if sides.now > 5 else 0)
    sides.hold()
    assert sides.now >= 30


def test_failures_that_are_no_chance_count_though_there_are_few_answers() -> None:
    """Where little is asked, a canary must not pass because all that it answered was wrong."""
    sides = Sides(rate=0.4, failing=1.0)
    with pytest.raises(CanaryAborted, match=r"failed 100\.0%"):
        sides.hold()


def test_as_many_answers_as_the_settings_name_are_enough_to_compare() -> None:
    """Though they are few."""
    with pytest.raises(CanaryAborted):
        Sides(rate=4, failing=0.25).hold(requests=4)


# --- counters that begin anew


def test_a_counter_that_became_smaller_began_anew() -> None:
    """A replica was started again; what it had answered before is not lost, and not taken off."""
    tally = ResponseTotals()
    for answers, expected in ((100, 0), (150, 50), (20, 70), (30, 80)):
        assert tally.add({"old-1": ResponseCount(answers)}) == ResponseCount(expected)


def test_failures_that_became_fewer_show_it_too() -> None:
    """Though there are more answers by now."""
    tally = ResponseTotals()
    tally.add({"old-1": ResponseCount(100, 50)})
    assert tally.add({"old-1": ResponseCount(120, 1)}) == ResponseCount(120, 1)


def test_a_replica_that_came_later_counts_from_its_start() -> None:
    """And one that has gone keeps what it answered."""
    tally = ResponseTotals()
    tally.add({"old-1": ResponseCount(100, 10)})
    assert tally.add(
        {"old-1": ResponseCount(110, 10), "old-2": ResponseCount(7, 7)}
    ) == ResponseCount(17, 7)
    assert tally.add({"old-2": ResponseCount(8, 7)}) == ResponseCount(18, 7)


def test_a_replica_that_is_silent_at_first_counts_from_its_first_word() -> None:
    """It was there before, so all that it had done by then is from before; silence later changes nothing."""
    tally = ResponseTotals()
    tally.add({"old-1": None})
    assert tally.add({"old-1": ResponseCount(1000, 500)}) == ResponseCount()
    assert tally.add({"old-1": None}) == ResponseCount()
    assert tally.add({"old-1": ResponseCount(1010, 500)}) == ResponseCount(10, 0)


def test_a_side_that_had_no_replica_at_first_counts_all_that_come() -> None:
    """They were all started since."""
    tally = ResponseTotals()
    tally.add({})
    assert tally.add({"new-1": ResponseCount(7, 1)}) == ResponseCount(7, 1)


def test_nothing_answered_is_no_failure() -> None:
    """A share needs something to be a share of."""
    assert ResponseCount().failure_rate == 0
    assert ResponseCount(10, 5).failure_rate == 0.5
