"""Golden cases played against a real HTTP server that answers rightly, wrongly, slowly, or not at all."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.clients.http import Endpoint
from deploy.model import golden
from deploy.model.manifest import ExpectedResponse, ExpectedValue, GoldenCase, GoldenRequest
from deploy.records import CaseResult

pytestmark = pytest.mark.integration

Answer = Callable[[socket.socket, threading.Event], object]
Serve = Callable[[Answer], str]


@pytest.fixture
def requests() -> list[bytes]:
    """What the server was sent."""
    return []


@pytest.fixture
def serve(requests: list[bytes]) -> Iterator[Serve]:
    """Starts a server that notes each request and gives the connection to a function; returns its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    threads: list[threading.Thread] = []

    def run(answer: Answer) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                requests.append(received(connection))
                try:
                    answer(connection, over)
                except OSError:
                    continue

    def start(answer: Answer) -> str:
        threads.append(threading.Thread(target=run, args=(answer,)))
        threads[0].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    over.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()


def received(connection: socket.socket) -> bytes:
    """One request, as long as its headers say."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    ]
    while len(body) < sum(lengths):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def says(body: bytes, status: str = "200 OK", headers: str = "") -> Answer:
    """Answers with that."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return lambda connection, _: connection.sendall(head.encode() + body)


def sends(data: bytes) -> Answer:
    """Answers with those bytes, whatever they are."""
    return lambda connection, _: connection.sendall(data)


def case(*, request: dict[str, Any] | None = None, **expect: Any) -> GoldenCase:
    """A golden case that promises JSON with 1 at /a, unless it says otherwise."""
    return GoldenCase(
        name="one",
        request=GoldenRequest(**({"path": "/score"} | (request or {}))),
        expect=ExpectedResponse(**({"json": (ExpectedValue(at="/a", equals=1),)} | expect)),
    )


def played(
    url: str, asked: GoldenCase | None = None, bodies: dict[str, bytes] | None = None
) -> CaseResult:
    """How one case went."""
    verdict = golden.play(golden.GoldenSet((asked or case(),), bodies or {}), Endpoint(url))
    assert verdict.url == url
    return verdict.cases[0]


def test_the_request_is_sent_as_the_model_says(serve: Serve, requests: list[bytes]) -> None:
    """Method, path with its query, headers and the bytes of the body arrive as they were published."""
    asked = case(
        request={
            "method": "PUT",
            "path": "/score?k=%20v",
            "headers": {"Content-Type": "image/png"},
            "body": "a.png",
        }
    )
    assert played(serve(says(b'{"a": 1}')), asked, {"a.png": b"\x89PNG\r\n\r\n\x00"}).problem == ""
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /score?k=%20v HTTP/1.1\r\n")
    assert b"\r\nContent-Type: image/png" in head
    assert body == b"\x89PNG\r\n\r\n\x00"


def test_every_case_is_played_and_named(serve: Serve, requests: list[bytes]) -> None:
    """A miss does not keep the others from being asked."""
    url = serve(says(b'{"a": 1}'))
    cases = (
        case(),
        case(status=404).model_copy(update={"name": "two"}),
        case().model_copy(update={"name": "three"}),
    )
    verdict = golden.play(golden.GoldenSet(cases, {}), Endpoint(url))
    assert [(item.name, item.problem == "") for item in verdict.cases] == [
        ("one", True),
        ("two", False),
        ("three", True),
    ]
    assert not verdict.passed
    assert len(requests) == 3
    assert all(item.milliseconds > 0 for item in verdict.cases)


def test_a_wrong_status_is_a_miss_that_shows_the_answer(serve: Serve) -> None:
    """What the server says of its failure is part of the verdict."""
    assert (
        played(serve(says(b'{"title": "no"}', "503 Service Unavailable"))).problem
        == 'expected status 200, got 503: {"title": "no"}'
    )


def test_a_redirect_is_an_answer_and_is_not_followed(serve: Serve, requests: list[bytes]) -> None:
    """The promise is about this server; nobody else is asked."""
    url = serve(says(b"", "302 Found", "Location: /elsewhere\r\n"))
    assert "got 302" in played(url).problem
    assert played(url, case(status=302, json=())).problem == ""
    assert all(request.startswith(b"GET /score ") for request in requests)


def test_an_answer_after_the_budget_is_a_miss(serve: Serve) -> None:
    """A right answer that comes too late is not the promised one."""
    assert played(serve(says(b'{"a": 1}')), case(within_ms=1e-6)).problem.startswith(
        "expected a response within 0 ms, it took "
    )


def test_a_wrong_answer_after_the_budget_is_told_as_wrong(serve: Serve) -> None:
    """Of two problems the one that says more is shown."""
    assert played(serve(says(b'{"a": 2}')), case(within_ms=1e-6)).problem == "/a: expected 1, got 2"


def test_nobody_listening_is_a_miss() -> None:
    """A container that does not answer gives a verdict, not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert played(url).problem == "no response: ConnectionError"


@pytest.mark.parametrize(
    "answer",
    [
        sends(b""),
        sends(b"not HTTP\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}"),
        says(b"not gzip", headers="Content-Encoding: gzip\r\n"),
        sends(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n{}"),
    ],
)
def test_an_answer_that_breaks_off_or_is_none_is_a_miss(serve: Serve, answer: Answer) -> None:
    """Connections that end too early, lie about lengths or speak no HTTP are misses that name the kind."""
    assert played(serve(answer)).problem.startswith("no response: ")


@pytest.mark.timeout(20)
def test_a_server_that_says_nothing_is_a_miss(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and never answers is given up."""
    monkeypatch.setattr(golden, "GRACE_SECONDS", 0.1)
    assert (
        played(serve(lambda _, over: over.wait()), case(within_ms=1)).problem
        == "no response: ReadTimeout"
    )


@pytest.mark.timeout(20)
def test_a_server_that_trickles_is_a_miss(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that never ends, though each of its bytes comes in time, is given up as a whole."""
    monkeypatch.setattr(golden, "GRACE_SECONDS", 2.0)

    def trickle(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.wait(0.01):
            connection.sendall(b" ")

    assert played(serve(trickle), case(within_ms=1)).problem == "no response: TimeoutError"


def test_an_answer_without_end_is_cut_off(serve: Serve) -> None:
    """No more than a megabyte of an answer is read, and the rest is not waited for."""
    sent = 0

    def flood(connection: socket.socket, over: threading.Event) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.is_set():
            sent += connection.send(b'"' + b"x" * 65535)

    assert played(serve(flood)).problem.startswith("expected JSON, got: ")
    assert sent < 32 * golden.MAX_RESPONSE_BYTES


def test_a_small_answer_that_unpacks_to_a_huge_one_is_cut_off(serve: Serve) -> None:
    """A megabyte is the limit of what an answer holds, not of what was sent."""
    bomb = gzip.compress(b'"' + b"x" * 50_000_000)
    assert played(serve(says(bomb, headers="Content-Encoding: gzip\r\n"))).problem.startswith(
        "expected JSON, got: "
    )


def test_a_packed_answer_is_unpacked(serve: Serve) -> None:
    """Whether a server packs its answers is its own affair."""
    assert (
        played(
            serve(says(gzip.compress(b'{"a": 1}'), headers="Content-Encoding: gzip\r\n"))
        ).problem
        == ""
    )


def test_an_answer_in_several_pieces_is_one_answer(serve: Serve) -> None:
    """How a network cuts an answer up makes no difference."""

    def pieces(connection: socket.socket, _: threading.Event) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n':
            connection.sendall(bytes([byte]))

    assert played(serve(pieces)).problem == ""


def test_proxies_of_the_user_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves is asked itself, whatever the way to the rest of the world is."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert played(serve(says(b'{"a": 1}'))).problem == ""
