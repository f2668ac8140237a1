"""The metrics of replicas: reading and parsing them, and the totals of response counts."""

from __future__ import annotations

import gzip

import pytest
import requests

from deploy.clients.http import Endpoint, Request, Response
from deploy.clock import Clock
from deploy.errors import ClusterForbidden
from deploy.targets.kubernetes import response_counts
from deploy.targets.kubernetes.response_counts import (
    ResponseCount,
    ResponseTotals,
    parse_metrics,
    read_metrics,
)
from tests.fakes.endpoints import FakeReplica, MemoryEndpoint, endpoint_with, trickling_body


def metrics(good: float, failed: float = 0.0) -> str:
    """Return metrics with those response counts."""
    return (
        f'app_requests_total{{status="200"}} {good}\napp_requests_total{{status="500"}} {failed}\n'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (metrics(90, 10), ResponseCount(100, 10)),
        (
            (
                'app_requests_total{status="200"} 1e3\n'
                'app_requests_total{status="503"} 1.5e1 1700000000000\n'
            ),
            ResponseCount(1015, 15),
        ),
        (
            'app_requests_total{status="2xx"} 7\napp_requests_total{status="5XX"} 3\n',
            ResponseCount(10, 3),
        ),
        (
            '# HELP app_requests_total {status="500"} 9\n# TYPE app_requests_total counter\n',
            ResponseCount(),
        ),
        ('app_requests_total{path="/a}b{",status="500",} 2\n', ResponseCount(2, 2)),
        ('app_requests_total{path="a,status=\\"500\\"",status="200"} 2\n', ResponseCount(2)),
        ('app_requests_total{ path="x" , status="500" }\t2\n', ResponseCount(2, 2)),
        (
            'other_app_requests_total{status="500"} 2\napp_requests_total_x{status="500"} 2\n',
            ResponseCount(),
        ),
        (
            'app_requests_total{code="500"} 2\napp_requests_total 7\napp_requests_total{} 7\n',
            ResponseCount(),
        ),
        ('app_requests_total{not_status="500"} 2\n', ResponseCount()),
        (
            (
                'app_requests_total{status="500"} NaN\n'
                'app_requests_total{status="500"} +Inf\n'
                'app_requests_total{status="500"} -3\n'
            ),
            ResponseCount(),
        ),
        (
            'app_requests_total{status="500"} 1e999\napp_requests_total{status="500"} nonsense\n',
            ResponseCount(),
        ),
        ('app_requests_total{status="500"}\n5\n', ResponseCount()),
        (
            'app_requests_total{status="0"} 5\napp_requests_total{status="5000"} 5\n',
            ResponseCount(),
        ),
        ("", ResponseCount()),
    ],
)
def test_responses_are_counted_by_their_status(text: str, expected: ResponseCount) -> None:
    """The rules are those of Prometheus; a value that is no number or no count is ignored."""
    assert parse_metrics(text, "app_requests_total", "status") == expected


def test_the_counter_and_its_label_may_have_other_names() -> None:
    """The settings of the environment name them."""
    assert parse_metrics(
        'http_total{code="500"} 4\nhttp_total{code="200"} 4\n', "http_total", "code"
    ) == ResponseCount(8, 4)


@pytest.mark.parametrize(
    "line", ["app_requests_total{", 'app_requests_total{a="', 'app_requests_total{a="\\', "{", '"']
)
def test_broken_text_of_any_size_is_parsed_quickly(line: str) -> None:
    """A regular expression must not take exponential time."""
    text = f"{line * 2000}\n" * 50 + f"{line}\n" * 100_000 + metrics(1)
    assert parse_metrics(text, "app_requests_total", "status") == ResponseCount(1)


# --- reading from a replica


def test_the_metrics_of_a_replica_are_read() -> None:
    """The path is that of the settings; a body may be compressed or end without a line break."""
    replica = endpoint_with(metrics(7, 1).encode())
    assert read_metrics(replica, "/metrics?x=1") == metrics(7, 1)
    assert replica.replica
    assert [request.url for request in replica.replica.requests] == ["http://replica/metrics?x=1"]
    assert read_metrics(
        endpoint_with(gzip.compress(metrics(7).encode()), Content_Encoding="gzip"), "/metrics"
    ) == metrics(7)
    assert (
        read_metrics(endpoint_with(metrics(7).strip().encode()), "/metrics") == metrics(7).strip()
    )
    assert read_metrics(endpoint_with(b"\xff\xfe app 1\n"), "/metrics").endswith(" app 1\n")


@pytest.mark.parametrize(
    "replica",
    [
        endpoint_with(b"no such page", 404),
        endpoint_with(metrics(7).encode(), 503),
        endpoint_with(requests.ConnectionError()),
        endpoint_with(requests.Timeout()),
        endpoint_with(ConnectionResetError()),
        endpoint_with(trickling_body([0.0], TimeoutError())),
        endpoint_with(trickling_body([0.0], ConnectionResetError())),
        endpoint_with(b"no gzip at all", Content_Encoding="gzip"),
        endpoint_with(b""),
    ],
)
def test_a_replica_that_returns_no_metrics_has_empty_ones(replica: MemoryEndpoint) -> None:
    """Its problem must not end a release that works."""
    assert read_metrics(replica, "/metrics") == ""


def test_a_slow_body_times_out() -> None:
    """Each byte arrives in time, but not the whole body."""
    now = [0.0]
    assert (
        read_metrics(endpoint_with(trickling_body(now)), "/metrics", Clock(now=lambda: now[0]))
        == ""
    )
    assert now[0] < 10


def test_a_body_above_the_limit_is_cut_after_a_whole_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a number would be another number."""
    text = metrics(12345, 67890)
    monkeypatch.setattr(response_counts, "MAX_BYTES", len(text) - 4)
    assert (
        read_metrics(endpoint_with(text.encode()), "/metrics") == text.splitlines(keepends=True)[0]
    )
    monkeypatch.setattr(response_counts, "MAX_BYTES", 10)
    assert read_metrics(endpoint_with(text.encode()), "/metrics") == ""


def test_redirects_on_the_same_server_are_followed() -> None:
    """Some applications redirect `/metrics` to `/metrics/`."""
    replica = FakeReplica(metrics(7).encode(), 200, {}, at="/metrics/")
    assert read_metrics(MemoryEndpoint("http://replica", replica=replica), "/metrics") == metrics(7)


class ForbiddingGateway:
    """An API server that forbids the request and records whether it was to be retried."""

    def __init__(self) -> None:
        self.retries: list[bool] = []

    def forward(self, _ask: object, request: Request) -> Response:
        self.retries.append(request.retry_gateway)
        raise ClusterForbidden(
            "this account may not get pods/proxy", on="shop", next="add the rule"
        )


def test_metrics_that_this_account_may_not_read_raise_an_error() -> None:
    """The permission is missing, not the metrics; such a request is not retried."""
    gateway = ForbiddingGateway()
    with pytest.raises(ClusterForbidden):
        read_metrics(Endpoint("http://replica", gateway=gateway), "/metrics")
    assert gateway.retries == [False]


# --- totals of a track


def test_a_smaller_counter_was_reset() -> None:
    """A restarted replica keeps the responses that were counted before."""
    totals = ResponseTotals()
    for responses, expected in ((100, 0), (150, 50), (20, 70), (30, 80)):
        assert totals.add({"old-1": ResponseCount(responses)}) == ResponseCount(expected)


def test_fewer_failures_show_a_reset_too() -> None:
    """The number of responses may have grown since."""
    totals = ResponseTotals()
    totals.add({"old-1": ResponseCount(100, 50)})
    assert totals.add({"old-1": ResponseCount(120, 1)}) == ResponseCount(120, 1)


def test_a_replica_that_was_added_later_counts_from_its_start() -> None:
    """A replica that was removed keeps its share of the total."""
    totals = ResponseTotals()
    totals.add({"old-1": ResponseCount(100, 10)})
    assert totals.add(
        {"old-1": ResponseCount(110, 10), "old-2": ResponseCount(7, 7)}
    ) == ResponseCount(17, 7)
    assert totals.add({"old-2": ResponseCount(8, 7)}) == ResponseCount(18, 7)


def test_a_replica_without_a_first_count_counts_from_the_next_one() -> None:
    """It was there before the hold, so its first count belongs to the time before."""
    totals = ResponseTotals()
    totals.add({"old-1": None})
    assert totals.add({"old-1": ResponseCount(1000, 500)}) == ResponseCount()
    assert totals.add({"old-1": None}) == ResponseCount()
    assert totals.add({"old-1": ResponseCount(1010, 500)}) == ResponseCount(10, 0)


def test_without_initial_replicas_all_counts_are_new() -> None:
    """All replicas were started during the hold."""
    totals = ResponseTotals()
    totals.add({})
    assert totals.add({"new-1": ResponseCount(7, 1)}) == ResponseCount(7, 1)


def test_the_failure_rate_without_responses_is_zero() -> None:
    """A share needs a total."""
    assert ResponseCount().failure_rate == 0
    assert ResponseCount(10, 5).failure_rate == 0.5
