"""The response counts of replicas, read from their metrics in the text format of Prometheus.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deploy.clients.http import Endpoint, HttpClient, NoResponse, Request
from deploy.clock import REAL, Clock

ReadMetrics = Callable[[Endpoint, str], str]
"""A function that returns the metrics of a replica at an endpoint and a path."""
MAX_BYTES = 4 << 20
_TIMEOUT = 5.0
_SAMPLE = re.compile(
    r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'\{(?P<labels>(?:[^"{}\n]|"(?:[^"\\\n]|\\.)*")*)\}'
    r"[ \t]+(?P<value>\S+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class ResponseCount:
    """A number of responses, and how many of them had a status of 5xx."""

    responses: float = 0.0
    failures: float = 0.0

    def __add__(self, other: ResponseCount) -> ResponseCount:
        return ResponseCount(self.responses + other.responses, self.failures + other.failures)

    def since(self, earlier: ResponseCount) -> ResponseCount:
        """Return the growth since an earlier count; all of it if the counter was reset."""
        growth = ResponseCount(self.responses - earlier.responses, self.failures - earlier.failures)
        return self if min(growth.responses, growth.failures) < 0 else growth

    @property
    def failure_rate(self) -> float:
        """The share of failures; 0 without responses."""
        return self.failures / self.responses if self.responses > 0 else 0.0

    def __str__(self) -> str:
        return f"{self.responses:.0f} responses, {self.failures:.0f} failed"


@dataclass
class ResponseTotals:
    """The responses of the replicas of one track since the canary hold began.

    A counter that has become smaller was reset, as everywhere in Prometheus.
    """

    total: ResponseCount = ResponseCount()
    _latest: dict[str, ResponseCount] = field(default_factory=dict)
    _initial_replicas: frozenset[str] | None = None

    def add(self, counts: Mapping[str, ResponseCount | None]) -> ResponseCount:
        """Add the growth of each replica's count and return the total.

        A replica that was there at the first call counts from its first known count, because what
        it did before the hold must not matter. A later one counts from its start.

        Args:
            counts: the count of each present replica since its start; None if it is unknown now.
        """
        if self._initial_replicas is None:
            self._initial_replicas = frozenset(counts)
        for name, count in counts.items():
            if count is not None:
                first = count if name in self._initial_replicas else ResponseCount()
                self.total += count.since(self._latest.get(name, first))
                self._latest[name] = count
        return self.total


def read_metrics(endpoint: Endpoint, path: str, clock: Clock = REAL) -> str:
    """Return the metrics of a replica; empty if it returns none now.

    Raises:
        ClusterError: this account may not read them.
    """
    # Without the metrics of this moment the hold goes on, so an absent gateway is not waited for.
    request = Request(path, _TIMEOUT, MAX_BYTES, follow_redirects=True, retry_gateway=False)
    try:
        with HttpClient(endpoint, clock.now) as client:
            response = client.send(request)
    except NoResponse:
        return ""
    return _whole_lines(response.content) if response.status < 400 else ""


def _whole_lines(content: bytes) -> str:
    """Return the complete lines of a body, which may have been cut at the limit."""
    whole = content if len(content) < MAX_BYTES else content[: content.rfind(b"\n") + 1]
    return whole.decode("utf-8", "replace")


def parse_metrics(text: str, counter: str, status: str) -> ResponseCount:
    """Return the response count that metrics contain.

    Args:
        text: the metrics, in the text format.
        counter: the name of the counter of responses.
        status: the name of its label that has the status.
    """
    label = re.compile(rf'(?:^|,)\s*{re.escape(status)}="([1-5](?:\d\d|xx))"', re.IGNORECASE)
    count = ResponseCount()
    for sample in _SAMPLE.finditer(text):
        code = label.search(sample["labels"]) if sample["name"] == counter else None
        if code:
            value = _number(sample["value"])
            count += ResponseCount(value, value if code[1].startswith("5") else 0.0)
    return count


def _number(text: str) -> float:
    """Return a count; 0 for what cannot be one."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
