"""Everything that clients can do over HTTP to the sample application, released: no fault, no restart, bounded memory, and others served.

Most goes through the front door, as clients' requests do. What the door keeps from replicas goes to one that has none before it,
as on a cluster.
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
from tests.e2e.bombs import BOMBS, scored
from tests.e2e.containers import Life, Watched, alone, docker
from tests.e2e.description import DOCUMENT, OPERATIONS, assert_described, broken, conforming
from tests.e2e.malformed import BODY, CHUNKED, CLOSE, GET, HOST, JSON, LENGTH, MALFORMED, POST
from tests.e2e.wire import Wire, chunked, request

# What a replica may take at most: two pictures of the most pixels, in the format that takes the most, and all bodies that wait.
REPLICA_MEMORY = 1_200_000_000
DOOR_MEMORY = 300_000_000
RIGHT = b"n07920052 espresso"
SLOW = [HOST, JSON, ("Content-Length", "2000000")]
# On CI a change is judged by the same examples as the one before; elsewhere each run looks for new ones.
SHOW = settings(
    deadline=None,
    database=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Served:
    """The released application: its front door, and a replica of it that has none."""

    door: Wire
    bare: Wire
    body: bytes = field(repr=False)
    watched: tuple[Watched, ...]

    @property
    def both(self) -> tuple[Wire, Wire]:
        """Where to ask: with a proxy before, and without."""
        return self.door, self.bare

    def lives(self) -> dict[str, Life]:
        """The lives of all containers."""
        return {one.name: one.life() for one in self.watched}

    @contextmanager
    def others(self, *wires: Wire) -> Iterator[None]:
        """Meanwhile others ask too, and get nothing but right answers."""
        with ExitStack() as stack:
            loads = [
                stack.enter_context(Load("127.0.0.1", wire.port, self.body, 2, 0.05, RIGHT))
                for wire in wires or self.both
            ]
            yield
            for load in loads:
                told = len(load.answers)
                while len(load.answers) < told + 4:
                    time.sleep(0.05)
        for load in loads:
            assert not load.failures, load.failures[:3]


@pytest.fixture(scope="module", name="served")
def _served(application: Application) -> Iterator[Served]:
    """The application, released, with an additional replica and as many files as the system lets this process open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    application.ok("release")
    replicas = [item["name"] for item in application.ok("status", "--json").json["replicas"]]
    names = [*replicas, f"twinship-{application.name}-local-door"]
    with alone(docker("inspect", "--format", "{{.Image}}", replicas[0]).strip()) as (
        container,
        port,
    ):
        bare = Wire(port)
        _until_ready(bare)
        yield Served(
            Wire(application.port),
            bare,
            application.score_request("coffee.jpg"),
            (*map(Watched, names), container),
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _until_ready(wire: Wire) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answers = wire.answers(request("GET /readyz HTTP/1.1", [HOST, CLOSE]))
        if answers and answers[0].status == 200:
            return
        time.sleep(0.1)
    pytest.fail("the additional replica is not ready")


@pytest.fixture(autouse=True)
def _unharmed(served: Served) -> Iterator[None]:
    """After each test every process still runs, none has taken too much memory or found a fault of its own, and answers are right."""
    before = served.lives()
    yield
    assert served.lives() == before
    for one in served.watched:
        assert one.peak() < (DOOR_MEMORY if one.name.endswith("-door") else REPLICA_MEMORY), (
            one.name
        )
        assert not one.faults(), one.name
    for wire in served.both:
        assert RIGHT in wire.asked("POST", "/score", served.body, dict([JSON])).body


# --- requests made of the description


SMALL = json.loads(DOCUMENT["components"]["schemas"]["Pictures"]["example"]["input"])[0]
PICTURES = st.sampled_from([SMALL, f"b'{SMALL}'", f"data:image/png;base64,{SMALL}", f" {SMALL}\n"])
BODIES = conforming({"$ref": "#/components/schemas/Pictures"}, PICTURES)
PATHS = st.sampled_from(sorted(OPERATIONS))


@SHOW
@given(value=BODIES)
def test_bodies_as_described_are_scored(served: Served, value: dict[str, object]) -> None:
    """Whatever the description allows is answered as it says, picture by picture."""
    answer = served.door.asked("POST", "/score", json.dumps(value).encode(), dict([JSON]))
    assert_described(answer, "POST", "/score")
    wanted = json.loads(value["input"]) if isinstance(value["input"], str) else value["input"]
    assert answer.status == 200
    assert isinstance(wanted, list)
    assert len(json.loads(answer.body)["result"][0]) == len(wanted)


@settings(SHOW, max_examples=300)
@given(
    value=broken(BODIES),
    spelling=st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig", "latin-1"]),
    cut=st.integers(0, 20),
)
def test_bodies_that_are_broken_are_told_apart(
    served: Served, value: object, spelling: str, cut: int
) -> None:
    """Other types, other texts, other encodings, a missing end: a problem that the description knows, or still a score."""
    raw = json.dumps(value, ensure_ascii=cut % 2 == 0).encode(spelling, "replace")
    answer = served.door.asked("POST", "/score", raw[: len(raw) - max(0, cut - 10)], dict([JSON]))
    assert answer.named
    assert answer.status in (200, 400, 413), answer
    assert_described(answer, "POST", "/score")


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


@settings(SHOW, max_examples=300)
@given(
    method=METHODS,
    path=PATHS | OTHER_PATHS,
    query=QUERIES,
    headers=HEADERS,
    body=RAW,
    cuts=st.none() | st.lists(st.integers(0, 99)),
)
def test_whatever_is_asked_is_answered_as_described(
    served: Served,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes,
    cuts: list[int] | None,
) -> None:
    """Any method on any path with any query, headers and body, whole or in chunks, has one answer, and none is a fault."""
    length = (
        ("Content-Length", str(len(body))) if cuts is None else ("Transfer-Encoding", "chunked")
    )
    raw = request(
        f"{method} {path}{query} HTTP/1.1",
        [HOST, CLOSE, length, *headers],
        body if cuts is None else chunked(body, cuts),
    )
    for wire in served.both:
        (answer,) = wire.answers(raw, method=method)
        if answer.named:
            assert_described(answer, method, path)
        else:
            assert answer.status in (400, 414), answer


# --- requests that are none


def test_what_is_no_request_is_refused(served: Served) -> None:
    """It is refused, or the connection ends, or it can be read as a request after all; 501 is for codings that nobody knows."""
    for what, raw in MALFORMED.items():
        # A replica takes a client that closes its side for one that has gone; what is not whole is waited for.
        found = [*served.door.answers(raw, close=True), *served.bare.answers(raw, wait=1.0)]
        for answer in found:
            assert 200 <= answer.status < 500 or (
                answer.status == 501 and what == "another coding"
            ), (what, answer)
            assert answer.status != 200 or answer.body == b"Healthy", (what, answer)


def test_requests_in_a_row_are_answered_in_a_row(served: Served) -> None:
    """Sent in one piece before the first answer came, of which one is refused: each has its answer, in its place."""
    row = [
        request("GET /healthz HTTP/1.1", [HOST]),
        request(POST, [HOST, JSON, LENGTH], BODY),
        request("GET /version HTTP/1.1", [HOST]),
    ]
    for wire in served.both:
        answers = wire.answers(b"".join(row) * 20 + request(GET, [HOST, CLOSE]))
        assert [answer.status for answer in answers] == [200, 400, 200] * 20 + [200]
        assert [answer.body for answer in answers[:-1:3]] == [b"alive"] * 20


def test_who_says_that_no_more_comes_is_answered(served: Served) -> None:
    """A connection that the client has closed for sending is open for the answer: the proxy keeps its own to the replica."""
    (answer,) = served.door.answers(
        request(POST, [HOST, JSON, ("Content-Length", str(len(served.body)))], served.body),
        close=True,
    )
    assert RIGHT in answer.body


# --- more than is taken


def test_bodies_that_are_too_large_are_refused_early(served: Served) -> None:
    """Whether it says so at once or never ends, a body over the limit is refused when little of it was sent."""
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    declared = request(POST, [HOST, JSON, ("Content-Length", "10000000000")])
    for wire in served.both:
        for head, endless in (
            (declared, bytes(65536)),
            (request(POST, [HOST, JSON, CHUNKED]), piece),
        ):
            sent, answer = wire.refused(head, endless, 10_000_000_000)
            assert answer.status == 413
            assert sent < 200_000_000
            assert_described(answer, "POST", "/score")


def test_packed_bodies_are_not_unpacked(served: Served) -> None:
    """Ten thousand times ten megabytes of nothing, packed twice, are refused by their head."""
    bomb = gzip.compress(gzip.compress(bytes(10_000_000)) * 10_000)
    for coding in ("gzip", "deflate", "gzip, gzip", "br", "x"):
        answer = served.door.asked(
            "POST", "/score", bomb[:5_000_000], dict([JSON, ("Content-Encoding", coding)])
        )
        assert answer.status == 415
        assert_described(answer, "POST", "/score")


def test_bombs_do_no_harm(served: Served) -> None:
    """Pictures and documents made to take memory or time, several at once: all are answered as described, and others meanwhile."""
    bodies = {what: (make(), statuses) for what, (make, statuses) in BOMBS.items()}
    with served.others(served.door), ThreadPoolExecutor(3) as senders:
        answers = senders.map(
            lambda body: served.bare.asked("POST", "/score", body[0], dict([JSON])), bodies.values()
        )
        for (what, (_, statuses)), answer in zip(bodies.items(), answers, strict=True):
            assert answer.status in statuses, (what, answer)
            assert_described(answer, "POST", "/score")


def test_more_than_can_wait_may_come_again(served: Served) -> None:
    """Large bodies by the dozen, straight to a replica: it takes those that there is room for, and tells the others when to come again."""
    body = scored(b"BM" + bytes(7_000_000))
    with ThreadPoolExecutor(60) as senders:
        answers = list(
            senders.map(
                lambda _: served.bare.asked("POST", "/score", body, dict([JSON])), range(120)
            )
        )
    # 408: so many at once must each make progress, which a busy machine may deny to one.
    assert {answer.status for answer in answers} <= {400, 408, 503}
    assert 400 in {answer.status for answer in answers}
    for answer in answers:
        assert_described(answer, "POST", "/score")


# --- clients in no hurry, and many of them


def _answered(served: Served, crowd: int, *pieces: bytes) -> None:
    """Others are served while a crowd, at the door and at the replica, has sent so much and sends no more."""
    with served.door.crowd(crowd, *pieces), served.bare.crowd(crowd, *pieces), served.others():
        time.sleep(4)


def test_slow_heads_keep_nobody_waiting(served: Served) -> None:
    """Hundreds of requests that break off in their first line or their headers."""
    _answered(served, 300, b"GET / HT", b"TP/1.1\r\nHo")


def test_slow_bodies_keep_nobody_waiting(served: Served) -> None:
    """Hundreds of requests whose bodies have just begun."""
    _answered(served, 300, request(POST, SLOW, b" " * 100))


def test_slow_large_bodies_keep_nobody_waiting(served: Served) -> None:
    """More bodies that stand still than both replicas take at once, each larger than the door keeps back."""
    _answered(served, 100, request(POST, SLOW, b" " * 500_000))


def test_clients_that_take_no_answers_keep_nobody_waiting(served: Served) -> None:
    """Each asks a thousand times for the longest answer that there is, and reads none."""
    _answered(served, 150, request("GET /openapi.json HTTP/1.1", [HOST]) * 1000)


def test_clients_that_do_not_hang_up_keep_nobody_waiting(served: Served) -> None:
    """Each has got its last answer, and stays."""
    _answered(served, 300, request(GET, [HOST, CLOSE]))


def test_thousands_of_idle_connections_keep_nobody_waiting(served: Served) -> None:
    """Three thousand that say nothing, or have said something once."""
    with (
        served.door.crowd(1500) as silent,
        served.door.crowd(1500, request(GET, [HOST])) as kept,
        served.others(served.door),
    ):
        time.sleep(2)
        assert len(silent) + len(kept) == 3000


def test_a_flood_of_connections_keeps_nobody_waiting(served: Served) -> None:
    """Thousands that ask and break off before they are answered, some of them for a score."""
    asks = request(POST, [HOST, JSON, ("Content-Length", str(len(served.body)))], served.body)
    for wire in served.both:
        with served.others(wire), ThreadPoolExecutor(4) as clients:
            floods = [clients.submit(wire.flood, 500, request(GET, [HOST])) for _ in range(3)]
            for flood in (*floods, clients.submit(wire.flood, 400, asks)):
                flood.result()
