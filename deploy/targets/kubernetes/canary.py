"""Holding a canary: a few replicas of the new release answer some of the requests, and are compared with those that serve.

Both sides count their own answers, in the text format of Prometheus; a side's share of failures is counted from the start of the
hold, so that what a replica did before does not weigh in. A counter that has become smaller began anew, as everywhere in Prometheus.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deploy import progress
from deploy.clients.http import Endpoint, HttpClient, NoResponse, Request
from deploy.clock import REAL, Clock
from deploy.errors import CanaryAborted
from deploy.settings.environments import Canary
from deploy.targets.kubernetes.history import Decision

log = logging.getLogger(__name__)

ReadMetrics = Callable[[Endpoint, str], str]
_POLL = 1.0
_PROVED_EVERY = 10.0
# Fewer answers say little, unless so many of them failed that it is no chance.
_FEWEST = 20
_TOO_MANY = 5
_READ_WITHIN = 5.0
_NAME_THEM = "name its own by `metrics`, `counter` and `status` of the canary"
_MOST_BYTES = 4 << 20
_SAMPLE = re.compile(
    r'^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\{(?P<labels>(?:[^"{}\n]|"(?:[^"\\\n]|\\.)*")*)\}[ \t]+(?P<value>\S+)',
    re.MULTILINE,
)


@dataclass(frozen=True)
class ResponseCount:
    """Answers, and how many of them had a status of 5xx."""

    responses: float = 0.0
    failures: float = 0.0

    def __add__(self, other: ResponseCount) -> ResponseCount:
        return ResponseCount(self.responses + other.responses, self.failures + other.failures)

    def since(self, before: ResponseCount) -> ResponseCount:
        """What has come since an earlier count; all of it, if the replica began anew."""
        grown = ResponseCount(self.responses - before.responses, self.failures - before.failures)
        return self if min(grown.responses, grown.failures) < 0 else grown

    @property
    def failure_rate(self) -> float:
        """The share of failures; none where nothing was answered."""
        return self.failures / self.responses if self.responses > 0 else 0.0

    def __str__(self) -> str:
        return f"{self.responses:.0f} answers, {self.failures:.0f} failed"


def read_metrics(endpoint: Endpoint, path: str, clock: Clock = REAL) -> str:
    """A replica's metrics; empty if it does not give any now.

    Raises:
        ClusterError: this account may not ask for them.
    """
    # Without those of now the hold goes on: nobody is waited for.
    question = Request(path, _READ_WITHIN, _MOST_BYTES, follow_redirects=True, retry_gateway=False)
    try:
        with HttpClient(endpoint, clock.now) as visit:
            reply = visit.send(question)
    except NoResponse:
        return ""
    return _lines(reply.content) if reply.status < 400 else ""


def _lines(content: bytes) -> str:
    """The whole lines of an answer, which may have been cut off."""
    whole = content if len(content) < _MOST_BYTES else content[: content.rfind(b"\n") + 1]
    return whole.decode("utf-8", "replace")


def parse_metrics(text: str, counter: str, status: str) -> ResponseCount:
    """The answers that metrics tell of.

    Args:
        text: in the text format.
        counter: the name of the counter of answers.
        status: the label of it that has the status.
    """
    label = re.compile(rf'(?:^|,)\s*{re.escape(status)}="([1-5](?:\d\d|xx))"', re.IGNORECASE)
    found = ResponseCount()
    for sample in _SAMPLE.finditer(text):
        code = label.search(sample["labels"]) if sample["name"] == counter else None
        if code:
            value = _number(sample["value"])
            found += ResponseCount(value, value if code[1].startswith("5") else 0.0)
    return found


@dataclass
class ResponseTotals:
    """What the replicas of one side have answered since the hold began."""

    total: ResponseCount = ResponseCount()
    _last: dict[str, ResponseCount] = field(default_factory=dict)
    _first: frozenset[str] | None = None

    def add(self, counts: Mapping[str, ResponseCount | None]) -> ResponseCount:
        """Counts on; a replica that came later counts from its own start.

        Args:
            counts: what each replica that is there says of its whole life; None for one that says nothing now.
        """
        self._first = frozenset(counts) if self._first is None else self._first
        for name, now in counts.items():
            if now is not None:
                self.total += now.since(
                    self._last.get(name, now if name in self._first else ResponseCount())
                )
                self._last[name] = now
        return self.total


@dataclass
class CanaryHold:
    """A canary that is under way.

    Args:
        settings: how long, and what is compared.
        canaries: gives the endpoints of the canary's replicas, by name; raises RolloutFailed if one of them died.
        stables: gives those of the side that serves.
        prove: plays the golden cases.
        decided: gives the word that somebody left, if any.
        read_metrics: gives a replica's metrics.
        clock: tells the time.
    """

    settings: Canary
    canary_endpoints: Callable[[], dict[str, Endpoint]]
    stable_endpoints: Callable[[], dict[str, Endpoint]]
    prove: Callable[[Endpoint], None]
    read_decision: Callable[[], Decision | None]
    read_metrics: ReadMetrics = read_metrics
    clock: Clock = REAL
    _new: ResponseTotals = field(default_factory=ResponseTotals)
    _old: ResponseTotals = field(default_factory=ResponseTotals)
    _polled: bool = False
    _told: bool = False

    def run(self) -> None:
        """Holds until the canary has shown itself for long enough, or somebody promotes it.

        Raises:
            CanaryAborted: it fails more often than the stable side, told of no answers where they are to be counted, or somebody gave
                it up.
            GoldenMiss: it answers a golden case wrongly.
        """
        began = proved = self.clock.now()
        while True:
            canaries = self.canary_endpoints()
            counts = self._counts(canaries)
            self._listen(counts)
            new = self._new.add(counts)
            old = self._old.add(self._counts(self.stable_endpoints()))
            decision = self.read_decision()
            if decision:
                self._obey(decision, new)
                return
            self._compare(new, old)
            passed = self.clock.now() - began
            if passed >= self.settings.seconds or (
                self.settings.requests and new.responses >= self.settings.requests
            ):
                self._require_evidence()
                log.info(
                    "canary held for %s: %s; stable: %s", progress.format_seconds(passed), new, old
                )
                return
            progress.report(
                f"canary {progress.format_seconds(passed)} of {progress.format_seconds(self.settings.seconds)}: {new}; stable: {old}"
            )
            if self.clock.now() - proved >= _PROVED_EVERY:
                self.prove(next(iter(canaries.values())))
                proved = self.clock.now()
            self.clock.sleep(_POLL)

    def _counts(self, replicas: Mapping[str, Endpoint]) -> dict[str, ResponseCount | None]:
        """What replicas say that they have answered."""
        texts = {
            name: self.read_metrics(endpoint, self.settings.metrics)
            if self.settings.metrics
            else ""
            for name, endpoint in replicas.items()
        }
        return {
            name: parse_metrics(text, self.settings.counter, self.settings.status) if text else None
            for name, text in texts.items()
        }

    def _listen(self, counts: Mapping[str, ResponseCount | None]) -> None:
        """Says at the first poll that nothing can be compared, if so: golden cases were answered before, and would be counted."""
        self._told = self._told or any(count and count.responses for count in counts.values())
        if self.settings.metrics and not self._told and not self._polled:
            cure = f"{_NAME_THEM}, or an empty `metrics` if it has none"
            log.warning(
                "the canary tells of no answers (%s), so its failures are not compared; %s",
                self._counter,
                cure,
            )
        self._polled = True

    @property
    def _counter(self) -> str:
        return f"counter {self.settings.counter} with label {self.settings.status} at {self.settings.metrics}"

    def _require_evidence(self) -> None:
        if self.settings.requests and not self._told:
            cure = f"{_NAME_THEM}, or leave out `requests`"
            raise CanaryAborted(
                "the canary told of no answers, which `requests` counts",
                on=self._counter,
                next=cure,
            )

    def _compare(self, new: ResponseCount, old: ResponseCount) -> None:
        enough = new.failures >= _TOO_MANY or new.responses >= min(
            _FEWEST, self.settings.requests or _FEWEST
        )
        if enough and new.failure_rate > old.failure_rate + self.settings.errors:
            raise CanaryAborted(
                f"the canary failed {new.failure_rate:.1%} of its requests, the stable side {old.failure_rate:.1%}",
                on=f"canary: {new}; stable: {old}",
                next="the previous release serves again; the logs of the application show why",
            )

    def _obey(self, decision: Decision, new: ResponseCount) -> None:
        if decision.verb == "abort":
            raise CanaryAborted(
                f"{decision.by} gave the canary up",
                on=str(new),
                next="the previous release serves again",
            )
        log.info("canary promoted by %s: %s", decision.by, new)


def _number(text: str) -> float:
    """A count; what cannot be one counts for nothing."""
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) and found > 0 else 0.0
