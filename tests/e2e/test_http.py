"""Whatever clients send over HTTP, the released sample application keeps serving.

It reports no error, does not restart, uses bounded memory, and serves other clients meanwhile. Most
requests go through the proxy, as those of clients do. Requests that the proxy rejects also go to a
replica without a proxy, as on a cluster.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.application import Application
from bench.load import Load
from tests.e2e.bombs import BOMBS, score_body
from tests.e2e.cluster import until
from tests.e2e.containers import Container, RunState, docker, run_replica
from tests.e2e.description import (
    DOCUMENT,
    OPERATIONS,
    assert_documented,
    broken_values,
    valid_values,
)
from tests.e2e.malformed import BODY, CHUNKED, CLOSE, GET, HOST, JSON, LENGTH, MALFORMED, POST
from tests.e2e.wire import Wire, chunk_body, request

# A replica may hold two pictures of the maximum size, in the format that needs the most memory, and
# all bodies that wait.
REPLICA_MEMORY = 1_200_000_000
PROXY_MEMORY = 300_000_000
EXPECTED = b"n07920052 espresso"
SLOW = [HOST, JSON, ("Content-Length", "2000000")]
# CI tests each change with the same examples; other runs look for new ones.
EXAMPLES = settings(
    deadline=None,
    database=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Sample:
    """The released application: its proxy, and an additional replica without a proxy.

    Args:
        proxy: the address of the proxy.
        replica: the address of the additional replica.
        body: a correct request for scores.
        containers: all containers of the application, with the additional replica.
    """

    proxy: Wire
    replica: Wire
    body: bytes = field(repr=False)
    containers: tuple[Container, ...]

    @property
    def addresses(self) -> tuple[Wire, Wire]:
        """The addresses with a proxy and without."""
        return self.proxy, self.replica

    def run_states(self) -> dict[str, RunState]:
        """Return the state of each container."""
        return {container.name: container.run_state() for container in self.containers}

    @contextmanager
    def other_clients(self, *wires: Wire) -> Iterator[list[Load]]:
        """Run other clients while a `with` block lasts; all their responses must be correct."""
        with ExitStack() as stack:
            loads = [
                stack.enter_context(Load("127.0.0.1", wire.port, self.body, 2, 0.05, EXPECTED))
                for wire in wires or self.addresses
            ]
            yield loads
            for load in loads:
                _wait_for_more(load)
        for load in loads:
            assert not load.failures, load.failures[:3]


def _wait_for_more(load: Load) -> None:
    """Wait until clients have four more responses."""
    count = len(load.answers) + 4
    until(lambda: len(load.answers) >= count, "other clients are served", every=0.05)


def _wait_while_served(loads: list[Load], seconds: float) -> None:
    """Wait until clients have a response to a request that they send after so many seconds."""
    end = time.monotonic() + seconds
    until(
        lambda: all(any(answer.at > end for answer in load.answers) for load in loads),
        "other clients are served",
    )


@pytest.fixture(scope="module", name="sample")
def _sample(application: Application) -> Iterator[Sample]:
    """Return the released application with an additional replica.

    This process may open as many files as the system allows.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    # Every path of the application, so that the proxy forwards the requests of all tests.
    application.ok("release", TWINSHIP_ENVIRONMENTS__LOCAL__PRIVATE="")
    replicas = [item["name"] for item in application.ok("status", "--json").json["replicas"]]
    names = [*replicas, f"twinship-{application.name}-local-door"]
    with run_replica(docker("inspect", "--format", "{{.Image}}", replicas[0]).strip()) as (
        container,
        port,
    ):
        replica = Wire(port)
        until(lambda: _is_ready(replica), "the additional replica is ready", 30, 0.1)
        yield Sample(
            Wire(application.port),
            replica,
            application.score_request("coffee.jpg"),
            (*map(Container, names), container),
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _is_ready(wire: Wire) -> bool:
    responses = wire.exchange(request("GET /readyz HTTP/1.1", [HOST, CLOSE]))
    return bool(responses) and responses[0].status == 200


@pytest.fixture(autouse=True)
def _check_containers(sample: Sample) -> Iterator[None]:
    """Check the containers after each test.

    The same processes run, none used too much memory or logged an error of its own, and responses
    are correct.
    """
    before = sample.run_states()
    yield
    assert sample.run_states() == before
    for container in sample.containers:
        limit = PROXY_MEMORY if container.name.endswith("-door") else REPLICA_MEMORY
        assert container.peak_memory() < limit, container.name
        assert not container.logged_faults(), container.name
    for wire in sample.addresses:
        assert EXPECTED in wire.ask("POST", "/score", sample.body, dict([JSON])).body


# --- requests that follow the OpenAPI document


SMALL = json.loads(DOCUMENT["components"]["schemas"]["Pictures"]["example"]["input"])[0]
PICTURES = st.sampled_from([SMALL, f"b'{SMALL}'", f"data:image/png;base64,{SMALL}", f" {SMALL}\n"])
BODIES = valid_values({"$ref": "#/components/schemas/Pictures"}, PICTURES)
PATHS = st.sampled_from(sorted(OPERATIONS))


@EXAMPLES
@given(value=BODIES)
def test_valid_bodies_are_scored(sample: Sample, value: dict[str, object]) -> None:
    """Each picture in a body that the document allows gets a result."""
    response = sample.proxy.ask("POST", "/score", json.dumps(value).encode(), dict([JSON]))
    assert_documented(response, "POST", "/score")
    wanted = json.loads(value["input"]) if isinstance(value["input"], str) else value["input"]
    assert response.status == 200
    assert isinstance(wanted, list)
    assert len(json.loads(response.body)["result"][0]) == len(wanted)


@settings(EXAMPLES, max_examples=300)
@given(
    value=broken_values(BODIES),
    spelling=st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig", "latin-1"]),
    cut=st.integers(0, 20),
)
def test_invalid_bodies_are_problems_or_scored(
    sample: Sample, value: object, spelling: str, cut: int
) -> None:
    """The response to another type, text or encoding, or to a truncated body, is documented."""
    raw = json.dumps(value, ensure_ascii=cut % 2 == 0).encode(spelling, "replace")
    response = sample.proxy.ask("POST", "/score", raw[: len(raw) - max(0, cut - 10)], dict([JSON]))
    assert response.is_from_application
    assert response.status in (200, 400, 413), response
    assert_documented(response, "POST", "/score")


TOKENS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
METHODS = st.sampled_from(
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
) | TOKENS.map(str.upper)
LATIN = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=20
)
QUERIES = st.just("") | st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=30
).map("?{}".format)
OTHER_PATHS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#"), max_size=30
).map("/{}".format)
KINDS = (
    st.sampled_from(
        [
            "application/json",
            "Application/JSON;charset=utf-8",
            "text/plain",
            "",
            "multipart/form-data; boundary=x",
        ]
    )
    | LATIN
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Content-Type",
                "Accept",
                "Cookie",
                "Range",
                "If-None-Match",
                "Content-Encoding",
                "X-Forwarded-For",
            ]
        ),
        LATIN,
    )
    | st.tuples(TOKENS.map("X-{}".format), LATIN)
    | st.tuples(st.just("Content-Type"), KINDS),
    max_size=4,
    unique_by=lambda header: header[0].lower(),
)
RAW = (
    st.binary(max_size=60)
    | BODIES.map(lambda value: json.dumps(value).encode())
    | st.just(gzip.compress(bytes(100_000)))
)


@settings(EXAMPLES, max_examples=300)
@given(
    method=METHODS,
    path=PATHS | OTHER_PATHS,
    query=QUERIES,
    headers=HEADERS,
    body=RAW,
    cuts=st.none() | st.lists(st.integers(0, 99)),
)
def test_every_request_has_a_documented_response(
    sample: Sample,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes,
    cuts: list[int] | None,
) -> None:
    """Any method, path, query, headers and body, also in chunks, has one documented response."""
    length = (
        ("Content-Length", str(len(body))) if cuts is None else ("Transfer-Encoding", "chunked")
    )
    raw = request(
        f"{method} {path}{query} HTTP/1.1",
        [HOST, CLOSE, length, *headers],
        body if cuts is None else chunk_body(body, cuts),
    )
    for wire in sample.addresses:
        (response,) = wire.exchange(raw, method=method)
        if response.is_from_application:
            assert_documented(response, method, path)
        else:
            assert response.status in (400, 414), response


# --- malformed requests


def test_a_malformed_request_is_refused(sample: Sample) -> None:
    """It is refused, the connection ends, or the server can still read it as a request.

    The status 501 is only for unknown transfer codings.
    """
    for what, raw in MALFORMED.items():
        # A replica stops working for a client that closes its end of the connection. It waits for
        # the rest of an incomplete request.
        found = [*sample.proxy.exchange(raw, close=True), *sample.replica.exchange(raw, wait=1.0)]
        for response in found:
            assert 200 <= response.status < 500 or (
                response.status == 501 and what == "another coding"
            ), (what, response)
            assert response.status != 200 or response.body == b"Healthy", (what, response)


def test_pipelined_requests_are_answered_in_order(sample: Sample) -> None:
    """All are sent before the first response arrives; a refused one does not disturb the others."""
    row = [
        request("GET /healthz HTTP/1.1", [HOST]),
        request(POST, [HOST, JSON, LENGTH], BODY),
        request("GET /version HTTP/1.1", [HOST]),
    ]
    for wire in sample.addresses:
        responses = wire.exchange(b"".join(row) * 20 + request(GET, [HOST, CLOSE]))
        assert [response.status for response in responses] == [200, 400, 200] * 20 + [200]
        assert [response.body for response in responses[:-1:3]] == [b"alive"] * 20


def test_a_client_that_closes_its_end_has_gone_unless_a_replica_has_its_request(
    sample: Sample,
) -> None:
    """The proxy cannot tell the two, and has no replica work for a client that has gone."""
    (response,) = sample.proxy.exchange(
        request(POST, [HOST, JSON, ("Content-Length", str(len(sample.body)))], sample.body),
        close=True,
    )
    assert response.status == 400 or EXPECTED in response.body


# --- bodies over the limits


def test_bodies_that_are_too_large_are_refused_early(sample: Sample) -> None:
    """A body with a length over the limit, or without an end, is refused when little is sent."""
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    declared = request(POST, [HOST, JSON, ("Content-Length", "10000000000")])
    for wire in sample.addresses:
        for head, endless in (
            (declared, bytes(65536)),
            (request(POST, [HOST, JSON, CHUNKED]), piece),
        ):
            sent, response = wire.send_endless(head, endless, 10_000_000_000)
            assert response.status == 413
            assert sent < 200_000_000
            assert_documented(response, "POST", "/score")


def test_compressed_bodies_are_not_decompressed(sample: Sample) -> None:
    """A body of 100 GB of zeros, compressed twice, is refused because of its headers."""
    bomb = gzip.compress(gzip.compress(bytes(10_000_000)) * 10_000)
    for coding in ("gzip", "deflate", "gzip, gzip", "br", "x"):
        response = sample.proxy.ask(
            "POST", "/score", bomb[:5_000_000], dict([JSON, ("Content-Encoding", coding)])
        )
        assert response.status == 415
        assert_documented(response, "POST", "/score")


def test_bombs_do_no_harm(sample: Sample) -> None:
    """Several bodies that take much memory or time, sent at once, get documented responses."""
    bodies = {what: (make(), statuses) for what, (make, statuses) in BOMBS.items()}
    with sample.other_clients(sample.proxy), ThreadPoolExecutor(3) as senders:
        responses = senders.map(
            lambda body: sample.replica.ask("POST", "/score", body[0], dict([JSON])),
            bodies.values(),
        )
        for (what, (_, statuses)), response in zip(bodies.items(), responses, strict=True):
            assert response.status in statuses, (what, response)
            assert_documented(response, "POST", "/score")


def test_large_bodies_without_room_are_asked_to_retry(sample: Sample) -> None:
    """A replica accepts as many large bodies as fit, and asks the other clients to retry later."""
    body = score_body(b"BM" + bytes(7_000_000))
    with ThreadPoolExecutor(60) as senders:
        responses = list(
            senders.map(
                lambda _: sample.replica.ask("POST", "/score", body, dict([JSON])), range(120)
            )
        )
    # 408: so many at once must each make progress, which a busy machine may deny to one.
    assert {response.status for response in responses} <= {400, 408, 503}
    assert 400 in {response.status for response in responses}
    for response in responses:
        assert_documented(response, "POST", "/score")


# --- many slow clients


def _assert_others_are_served(sample: Sample, count: int, *pieces: bytes) -> None:
    """Check that other clients are served while many at each address send some bytes and stop."""
    with (
        sample.proxy.open_many(count, *pieces),
        sample.replica.open_many(count, *pieces),
        sample.other_clients() as loads,
    ):
        _wait_while_served(loads, seconds=4)


def test_slow_headers_do_not_delay_others(sample: Sample) -> None:
    """Hundreds of requests stop within their first lines."""
    _assert_others_are_served(sample, 300, b"GET / HT", b"TP/1.1\r\nHo")


def test_slow_bodies_do_not_delay_others(sample: Sample) -> None:
    """Hundreds of requests stop near the start of their bodies."""
    _assert_others_are_served(sample, 300, request(POST, SLOW, b" " * 100))


def test_slow_large_bodies_do_not_delay_others(sample: Sample) -> None:
    """More bodies stop than two replicas accept at once, each larger than the proxy's buffer."""
    _assert_others_are_served(sample, 100, request(POST, SLOW, b" " * 500_000))


def test_clients_that_read_no_responses_do_not_delay_others(sample: Sample) -> None:
    """Each requests the longest response a thousand times, and reads nothing."""
    _assert_others_are_served(sample, 150, request("GET /openapi.json HTTP/1.1", [HOST]) * 1000)


def test_clients_that_do_not_close_do_not_delay_others(sample: Sample) -> None:
    """Each has received its last response, and keeps the connection open."""
    _assert_others_are_served(sample, 300, request(GET, [HOST, CLOSE]))


def test_thousands_of_idle_connections_do_not_delay_others(sample: Sample) -> None:
    """Of three thousand connections, half send nothing and half have sent one request."""
    with (
        sample.proxy.open_many(1500) as silent,
        sample.proxy.open_many(1500, request(GET, [HOST])) as kept,
        sample.other_clients(sample.proxy) as loads,
    ):
        _wait_while_served(loads, seconds=2)
        assert len(silent) + len(kept) == 3000


def test_a_flood_of_connections_does_not_delay_others(sample: Sample) -> None:
    """Thousands of clients, some of which request scores, disconnect before their response."""
    scoring = request(POST, [HOST, JSON, ("Content-Length", str(len(sample.body)))], sample.body)
    for wire in sample.addresses:
        with sample.other_clients(wire), ThreadPoolExecutor(4) as clients:
            floods = [clients.submit(wire.flood, 500, request(GET, [HOST])) for _ in range(3)]
            for flood in (*floods, clients.submit(wire.flood, 400, scoring)):
                flood.result()
