"""The hold of a canary: what is compared and from when on, and what ends the hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deploy.clients.http import Endpoint
from deploy.clock import Clock
from deploy.errors import CanaryAborted, GoldenMiss
from deploy.settings.environments import Canary
from deploy.targets.kubernetes.canary import CanaryHold
from deploy.targets.kubernetes.history import Decision

CANARY = "canary-1"
STABLE = "stable-1"


def metrics(good: float, failed: float = 0.0) -> str:
    """Return metrics with those response counts."""
    return (
        f'app_requests_total{{path="/score",status="200"}} {good}\n'
        f'app_requests_total{{path="/score",status="400"}} 0\n'
        f'app_requests_total{{path="/score",status="500"}} {failed}\n'
    )


class Scenario:
    """A canary and a stable track that answer requests as time passes.

    Args:
        earlier_failures: how many failed responses the stable track has sent before the hold.
        failure_rate: the share of the canary's responses that fail.
        rate: how many responses each replica sends in a second.

    Attributes:
        metrics: functions that return other metrics, by the name of a replica.
        decision: the verb that a person decides for, and from when on.
        proved: when the golden cases were played.
        wrong_from: from when on a golden case is answered wrongly.
    """

    def __init__(
        self, earlier_failures: int = 0, failure_rate: float = 0.0, rate: float = 10.0
    ) -> None:
        self.now = 0.0
        self._earlier_failures = earlier_failures
        self._failure_rate = failure_rate
        self._rate = rate
        self.clock = Clock(now=lambda: self.now, sleep=self._sleep)
        self.metrics: dict[str, Callable[[], str]] = {}
        self.decision: tuple[float, Any] | None = None
        self.proved: list[float] = []
        self.wrong_from = float("inf")

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def read_metrics(self, endpoint: Endpoint, _path: str) -> str:
        """Return the metrics of a replica."""
        if endpoint.url in self.metrics:
            return self.metrics[endpoint.url]()
        responses = self._rate * self.now
        if endpoint.url == STABLE:
            return metrics(responses, self._earlier_failures)
        failures = responses * self._failure_rate
        return metrics(responses - failures, failures)

    def _prove(self, _endpoint: Endpoint) -> None:
        self.proved.append(self.now)
        if self.now >= self.wrong_from:
            raise GoldenMiss("wrong", on="it", next="fix it")

    def _read_decision(self) -> Decision | None:
        if self.decision is None or self.now < self.decision[0]:
            return None
        return Decision(image="x", verb=self.decision[1], by="grace")

    def hold(self, **settings: Any) -> None:
        """Hold the canary."""
        CanaryHold(
            Canary(**{"seconds": 30, **settings}),
            canary_endpoints=lambda: {CANARY: Endpoint(CANARY)},
            stable_endpoints=lambda: {STABLE: Endpoint(STABLE)},
            prove=self._prove,
            read_decision=self._read_decision,
            read_metrics=self.read_metrics,
            clock=self.clock,
        ).run()


# --- how it ends


def test_a_canary_as_good_as_the_stable_release_is_held_to_the_end() -> None:
    """Neither fails, so the time decides."""
    scenario = Scenario()
    scenario.hold()
    assert 30 <= scenario.now < 32


def test_a_canary_that_has_answered_enough_is_held_no_longer() -> None:
    """The settings may name a number of requests; the time is still the limit."""
    enough = Scenario()
    few = Scenario(rate=1)
    enough.hold(requests=100)
    few.hold(requests=100)
    assert 10 <= enough.now < 12
    assert 30 <= few.now < 32


def test_a_canary_that_fails_more_often_is_aborted() -> None:
    """A failure rate above the allowed one ends the hold early."""
    scenario = Scenario(failure_rate=0.2)
    with pytest.raises(
        CanaryAborted, match=r"failed 20\.0% of its requests, the stable release 0\.0%"
    ) as caught:
        scenario.hold()
    assert scenario.now < 30
    assert caught.value.on == "canary: 20 responses, 4 failed; stable: 20 responses, 0 failed"


@pytest.mark.parametrize("verb", ["promote", "abort"])
def test_a_decision_ends_the_hold_at_once(verb: str) -> None:
    """The error of an abort names the person."""
    scenario = Scenario()
    scenario.decision = (7.0, verb)
    if verb == "promote":
        scenario.hold(seconds=3600)
    else:
        with pytest.raises(CanaryAborted, match="grace aborted the canary"):
            scenario.hold(seconds=3600)
    assert 7 <= scenario.now < 9


def test_a_person_may_promote_a_failing_canary() -> None:
    """The decision comes before the comparison."""
    scenario = Scenario(failure_rate=0.5)
    scenario.decision = (0.0, "promote")
    scenario.hold()
    assert scenario.now == 0


def test_golden_cases_are_played_every_ten_seconds() -> None:
    """A miss ends the hold."""
    scenario = Scenario()
    scenario.wrong_from = 25
    with pytest.raises(GoldenMiss):
        scenario.hold(seconds=3600)
    assert [round(moment, -1) for moment in scenario.proved] == [10, 20, 30]


# --- what is counted


def test_earlier_failures_of_the_stable_release_do_not_count() -> None:
    """Only what happens during the hold is compared."""
    with pytest.raises(CanaryAborted, match=r"the stable release 0\.0%"):
        Scenario(earlier_failures=1000, failure_rate=0.2).hold()


def test_a_canary_may_fail_as_often_as_the_stable_release() -> None:
    """What fails on both is not caused by the release."""
    scenario = Scenario(failure_rate=0.2)
    scenario.metrics[STABLE] = lambda: metrics(8 * scenario.now, 2 * scenario.now)
    scenario.hold()
    assert scenario.now >= 30


@pytest.mark.parametrize("text", ["", "# nothing here\n", 'other_total{status="500"} 7\n'])
def test_a_stable_release_without_metrics_has_no_failures(text: str) -> None:
    """Then only the limit of the settings counts."""
    bad = Scenario(failure_rate=0.2)
    good = Scenario(failure_rate=0.005)
    for scenario in (bad, good):
        scenario.metrics[STABLE] = lambda: text
    with pytest.raises(CanaryAborted, match=r"the stable release 0\.0%"):
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
def test_a_canary_without_counts_is_held_by_time(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Only golden cases are known then; one warning says so and names the settings to change."""
    scenario = Scenario()
    scenario.metrics[CANARY] = lambda: text
    scenario.hold()
    assert scenario.now >= 30
    assert scenario.proved
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "the canary reports no responses (counter app_requests_total with label status at /metrics)"
        in warning
    )
    assert "`metrics`, `counter` and `status`" in warning


def test_no_warning_is_logged_for_a_canary_with_counts(caplog: pytest.LogCaptureFixture) -> None:
    """It has already answered golden cases before the hold."""
    scenario = Scenario()
    scenario.metrics[CANARY] = lambda: metrics(2)
    scenario.hold()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("text", NOTHING)
def test_a_canary_without_counts_is_aborted_if_requests_are_to_be_counted(text: str) -> None:
    """The error comes when the time is over, because counts may appear late."""
    scenario = Scenario()
    late = Scenario()
    scenario.metrics[CANARY] = lambda: text
    with pytest.raises(CanaryAborted, match="reports no responses") as caught:
        scenario.hold(requests=10)
    assert scenario.now >= 30
    assert "app_requests_total" in caught.value.on
    assert "`requests`" in caught.value.next
    late.metrics[CANARY] = lambda: metrics(1) if 20 < late.now < 22 else text
    late.hold(requests=10)


def test_a_person_may_promote_a_canary_without_counts() -> None:
    """The decision comes before the check of the counts."""
    scenario = Scenario()
    scenario.metrics[CANARY] = lambda: ""
    scenario.decision = (7.0, "promote")
    scenario.hold(requests=10)
    assert scenario.now < 9


def test_no_metrics_are_read_if_they_are_switched_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An application may have none; then there is no warning either."""
    scenario = Scenario(failure_rate=1.0)
    scenario.metrics |= dict.fromkeys((CANARY, STABLE), lambda: pytest.fail("metrics were read"))
    scenario.hold(metrics="")
    assert scenario.now >= 30
    assert not caplog.records


def test_a_few_failures_by_chance_do_not_count() -> None:
    """One failure of ten responses is not enough to abort."""
    scenario = Scenario(rate=0.3)
    scenario.metrics[CANARY] = lambda: metrics(9, 1 if scenario.now > 5 else 0)
    scenario.hold()
    assert scenario.now >= 30


def test_many_failures_count_even_if_there_are_few_responses() -> None:
    """A canary with few requests must not pass if all of them failed."""
    scenario = Scenario(rate=0.4, failure_rate=1.0)
    with pytest.raises(CanaryAborted, match=r"failed 100\.0%"):
        scenario.hold()


def test_the_number_of_requests_in_the_settings_is_enough_to_compare() -> None:
    """That number may be small."""
    with pytest.raises(CanaryAborted):
        Scenario(rate=4, failure_rate=0.25).hold(requests=4)
