"""The hold of a canary: a few replicas of the new release get a share of the requests.

Their failure rate is compared with that of the stable track. Both are counted from the start of
the hold, so that what a replica did before does not matter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deploy import progress
from deploy.clients.http import Endpoint
from deploy.clock import REAL, Clock
from deploy.errors import CanaryAborted
from deploy.settings.environments import Canary
from deploy.targets.kubernetes.history import Decision
from deploy.targets.kubernetes.response_counts import (
    ReadMetrics,
    ResponseCount,
    ResponseTotals,
    parse_metrics,
    read_metrics,
)

log = logging.getLogger(__name__)

_POLL = 1.0
_PROVE_INTERVAL = 10.0
# Fewer responses say little, unless so many of them failed that it cannot be chance.
_MIN_RESPONSES = 20
_CERTAIN_FAILURES = 5
_SET_NAMES = "name its own by `metrics`, `counter` and `status` of the canary"


@dataclass
class CanaryHold:
    """A canary on hold.

    Args:
        settings: how long it is held, and what is compared.
        canary_endpoints: returns the endpoints of the canary's replicas by name; raises
            RolloutFailed if one of them died.
        stable_endpoints: returns the endpoints of the stable track's replicas by name.
        prove: plays the golden cases.
        read_decision: returns the decision of a person, if there is one.
        read_metrics: returns the metrics of a replica.
        clock: the clock by which the hold waits.
    """

    settings: Canary
    canary_endpoints: Callable[[], dict[str, Endpoint]]
    stable_endpoints: Callable[[], dict[str, Endpoint]]
    prove: Callable[[Endpoint], None]
    read_decision: Callable[[], Decision | None]
    read_metrics: ReadMetrics = read_metrics
    clock: Clock = REAL
    _canary_totals: ResponseTotals = field(default_factory=ResponseTotals)
    _stable_totals: ResponseTotals = field(default_factory=ResponseTotals)
    _was_polled: bool = False
    _has_counts: bool = False

    def run(self) -> None:
        """Hold the canary until the settings are met, or a person promotes it.

        Raises:
            CanaryAborted: it fails more often than the stable track, it has no response counts
                where the settings need them, or a person aborted it.
            GoldenMiss: it answers a golden case wrongly.
        """
        started = self.clock.now()
        proved = started
        while True:
            endpoints = self.canary_endpoints()
            canary, stable = self._poll(endpoints)
            decision = self.read_decision()
            if decision:
                self._apply_decision(decision, canary)
                return
            self._compare(canary, stable)
            elapsed = self.clock.now() - started
            if self._is_over(elapsed, canary):
                self._require_counts()
                duration = progress.format_seconds(elapsed)
                log.info("canary held for %s: %s; stable: %s", duration, canary, stable)
                return
            self._report(elapsed, canary, stable)
            if self.clock.now() - proved >= _PROVE_INTERVAL:
                self.prove(next(iter(endpoints.values())))
                proved = self.clock.now()
            self.clock.sleep(_POLL)

    def _poll(self, endpoints: Mapping[str, Endpoint]) -> tuple[ResponseCount, ResponseCount]:
        """Read the counts of all replicas; return the totals of the canary and the stable track."""
        counts = self._read_counts(endpoints)
        self._warn_without_counts(counts)
        canary = self._canary_totals.add(counts)
        stable = self._stable_totals.add(self._read_counts(self.stable_endpoints()))
        return canary, stable

    def _read_counts(self, endpoints: Mapping[str, Endpoint]) -> dict[str, ResponseCount | None]:
        """Return the response count of each replica since its start."""
        texts = {
            name: self.read_metrics(endpoint, self.settings.metrics)
            if self.settings.metrics
            else ""
            for name, endpoint in endpoints.items()
        }
        return {
            name: parse_metrics(text, self.settings.counter, self.settings.status) if text else None
            for name, text in texts.items()
        }

    def _warn_without_counts(self, counts: Mapping[str, ResponseCount | None]) -> None:
        """Warn at the first poll if nothing can be compared.

        The canary has already answered golden cases, so it would have counts by now.
        """
        if any(count and count.responses for count in counts.values()):
            self._has_counts = True
        if self.settings.metrics and not self._has_counts and not self._was_polled:
            log.warning(
                "the canary reports no responses (%s), so its failures are not compared; "
                "%s, or an empty `metrics` if it has none",
                self._counter,
                _SET_NAMES,
            )
        self._was_polled = True

    @property
    def _counter(self) -> str:
        return (
            f"counter {self.settings.counter} with label {self.settings.status} "
            f"at {self.settings.metrics}"
        )

    def _is_over(self, elapsed: float, canary: ResponseCount) -> bool:
        """Return whether the canary was held for long enough, or has answered enough."""
        if elapsed >= self.settings.seconds:
            return True
        return bool(self.settings.requests) and canary.responses >= self.settings.requests

    def _report(self, elapsed: float, canary: ResponseCount, stable: ResponseCount) -> None:
        now = progress.format_seconds(elapsed)
        limit = progress.format_seconds(self.settings.seconds)
        progress.report(f"canary {now} of {limit}: {canary}; stable: {stable}")

    def _require_counts(self) -> None:
        if self.settings.requests and not self._has_counts:
            raise CanaryAborted(
                "the canary reports no responses, which `requests` counts",
                on=self._counter,
                next=f"{_SET_NAMES}, or leave out `requests`",
            )

    def _compare(self, canary: ResponseCount, stable: ResponseCount) -> None:
        enough = min(_MIN_RESPONSES, self.settings.requests or _MIN_RESPONSES)
        is_significant = canary.failures >= _CERTAIN_FAILURES or canary.responses >= enough
        if is_significant and canary.failure_rate > stable.failure_rate + self.settings.errors:
            raise CanaryAborted(
                f"the canary failed {canary.failure_rate:.1%} of its requests, "
                f"the stable release {stable.failure_rate:.1%}",
                on=f"canary: {canary}; stable: {stable}",
                next="the previous release serves again; the logs of the application show why",
            )

    def _apply_decision(self, decision: Decision, canary: ResponseCount) -> None:
        if decision.verb == "abort":
            raise CanaryAborted(
                f"{decision.by} aborted the canary",
                on=str(canary),
                next="the previous release serves again",
            )
        log.info("canary promoted by %s: %s", decision.by, canary)
