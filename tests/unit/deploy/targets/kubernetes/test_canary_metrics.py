"""The metrics of replicas: read from them, and counted, whatever they send."""

from __future__ import annotations

import gzip

import pytest
import requests

from deploy.clients.http import Endpoint, Request, Response
from deploy.clock import Clock
from deploy.errors import ClusterForbidden
from deploy.targets.kubernetes import canary as module
from deploy.targets.kubernetes.canary import ResponseCount, parse_metrics, read_metrics
from tests.fakes.endpoints import FakeReplica, MemoryEndpoint, endpoint_with, trickling_body


def metrics(good: float, failed: float = 0.0) -> str:
    """What a replica tells of so many answers."""
    return (
        f'app_requests_total{{status="200"}} {good}\napp_requests_total{{status="500"}} {failed}\n'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (metrics(90, 10), ResponseCount(100, 10)),
        (
            'app_requests_total{status="200"} 1e3\napp_requests_total{status="503"} 1.5e1 1700000000000\n',
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
            'app_requests_total{status="500"} NaN\napp_requests_total{status="500"} +Inf\napp_requests_total{status="500"} -3\n',
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
def test_answers_are_counted_by_their_status(text: str, expected: ResponseCount) -> None:
    """As Prometheus reads it; what is no number, or no count, counts for nothing."""
    assert parse_metrics(text, "app_requests_total", "status") == expected


def test_the_counter_and_its_label_may_be_called_otherwise() -> None:
    """Each application has names of its own."""
    assert parse_metrics(
        'http_total{code="500"} 4\nhttp_total{code="200"} 4\n', "http_total", "code"
    ) == ResponseCount(8, 4)


@pytest.mark.parametrize(
    "line", ["app_requests_total{", 'app_requests_total{a="', 'app_requests_total{a="\\', "{", '"']
)
def test_broken_text_of_any_size_is_read_in_no_time(line: str) -> None:
    """Whoever writes it: the hold must not end in a pattern that never ends."""
    text = f"{line * 2000}\n" * 50 + f"{line}\n" * 100_000 + metrics(1)
    assert parse_metrics(text, "app_requests_total", "status") == ResponseCount(1)


# --- from a replica


def test_the_metrics_of_a_replica_are_read() -> None:
    """From the path that the settings name; compressed, or without an end to the last line, too."""
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
def test_a_replica_that_gives_no_metrics_now_is_silent(replica: MemoryEndpoint) -> None:
    """Whatever is wrong with it: that must not end a release that works."""
    assert read_metrics(replica, "/metrics") == ""


def test_a_trickle_of_metrics_is_not_waited_for() -> None:
    """Though each byte comes in time."""
    now = [0.0]
    assert (
        read_metrics(endpoint_with(trickling_body(now)), "/metrics", Clock(now=lambda: now[0]))
        == ""
    )
    assert now[0] < 10


def test_more_than_anybody_should_tell_is_cut_off_after_a_whole_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a number would be another number."""
    text = metrics(12345, 67890)
    monkeypatch.setattr(module, "_MOST_BYTES", len(text) - 4)
    assert (
        read_metrics(endpoint_with(text.encode()), "/metrics") == text.splitlines(keepends=True)[0]
    )
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    assert read_metrics(endpoint_with(text.encode()), "/metrics") == ""


def test_metrics_may_be_kept_elsewhere_on_the_same_server() -> None:
    """Some applications lead from `/metrics` to `/metrics/`."""
    replica = FakeReplica(metrics(7).encode(), 200, {}, at="/metrics/")
    assert read_metrics(MemoryEndpoint("http://replica", replica=replica), "/metrics") == metrics(7)


class Barred:
    """An API server that does not let this account ask, and waits for nothing."""

    def __init__(self) -> None:
        self.insisted: list[bool] = []

    def forward(self, _ask: object, question: Request) -> Response:
        self.insisted.append(question.retry_gateway)
        raise ClusterForbidden(
            "this account may not get pods/proxy", on="shop", next="add the rule"
        )


def test_metrics_that_this_account_may_not_read_are_not_taken_for_none() -> None:
    """The rule is missing, not the metrics; and for those of one second nobody waits."""
    barred = Barred()
    with pytest.raises(ClusterForbidden):
        read_metrics(Endpoint("http://replica", gateway=barred), "/metrics")
    assert barred.insisted == [False]
