"""Golden cases played against a real HTTP server, with right, wrong, late or no responses."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.clients.http import Endpoint
from deploy.model import golden_cases
from deploy.model.manifest import ExpectedResponse, ExpectedValue, GoldenCase, GoldenRequest
from deploy.records import CaseResult

pytestmark = pytest.mark.integration

Answer = Callable[[socket.socket, threading.Event], object]
Serve = Callable[[Answer], str]


@pytest.fixture
def requests() -> list[bytes]:
    """Return the requests that the server received."""
    return []


@pytest.fixture
def serve(requests: list[bytes]) -> Iterator[Serve]:
    """Return a function that starts a server and returns its URL.

    The server records each request and passes the connection to a function.
    """
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
                requests.append(read_request(connection))
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


def read_request(connection: socket.socket) -> bytes:
    """Return one request, of the length that its headers say."""
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


def respond(body: bytes, status: str = "200 OK", headers: str = "") -> Answer:
    """Return a function that sends a response with that body."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return lambda connection, _: connection.sendall(head.encode() + body)


def send_bytes(data: bytes) -> Answer:
    """Return a function that sends those bytes."""
    return lambda connection, _: connection.sendall(data)


def create_case(*, request: dict[str, Any] | None = None, **expect: Any) -> GoldenCase:
    """Return a golden case that expects JSON with 1 at /a, unless arguments say otherwise."""
    return GoldenCase(
        name="one",
        request=GoldenRequest(**({"path": "/score"} | (request or {}))),
        expect=ExpectedResponse(**({"json": (ExpectedValue(at="/a", equals=1),)} | expect)),
    )


def play_case(
    url: str, asked: GoldenCase | None = None, bodies: dict[str, bytes] | None = None
) -> CaseResult:
    """Return the result of one case."""
    verdict = golden_cases.play(
        golden_cases.GoldenSet((asked or create_case(),), bodies or {}), Endpoint(url)
    )
    assert verdict.url == url
    return verdict.cases[0]


def test_the_request_is_sent_as_the_model_says(serve: Serve, requests: list[bytes]) -> None:
    """Method, path with query, headers and body arrive as they were published."""
    asked = create_case(
        request={
            "method": "PUT",
            "path": "/score?k=%20v",
            "headers": {"Content-Type": "image/png"},
            "body": "a.png",
        }
    )
    assert (
        play_case(serve(respond(b'{"a": 1}')), asked, {"a.png": b"\x89PNG\r\n\r\n\x00"}).problem
        == ""
    )
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /score?k=%20v HTTP/1.1\r\n")
    assert b"\r\nContent-Type: image/png" in head
    assert body == b"\x89PNG\r\n\r\n\x00"


def test_every_case_is_played_and_named(serve: Serve, requests: list[bytes]) -> None:
    """The cases after a miss are played too."""
    url = serve(respond(b'{"a": 1}'))
    cases = (
        create_case(),
        create_case(status=404).model_copy(update={"name": "two"}),
        create_case().model_copy(update={"name": "three"}),
    )
    verdict = golden_cases.play(golden_cases.GoldenSet(cases, {}), Endpoint(url))
    assert [(item.name, item.problem == "") for item in verdict.cases] == [
        ("one", True),
        ("two", False),
        ("three", True),
    ]
    assert not verdict.passed
    assert len(requests) == 3
    assert all(item.milliseconds > 0 for item in verdict.cases)


def test_a_wrong_status_is_a_miss_with_the_response(serve: Serve) -> None:
    """The verdict has the server's message."""
    assert (
        play_case(serve(respond(b'{"title": "no"}', "503 Service Unavailable"))).problem
        == 'expected status 200, got 503: {"title": "no"}'
    )


def test_a_redirect_is_a_response_and_is_not_followed(serve: Serve, requests: list[bytes]) -> None:
    """No other server is part of the golden cases."""
    url = serve(respond(b"", "302 Found", "Location: /other\r\n"))
    assert "got 302" in play_case(url).problem
    assert play_case(url, create_case(status=302, json=())).problem == ""
    assert all(request.startswith(b"GET /score ") for request in requests)


def test_a_late_response_is_a_miss(serve: Serve) -> None:
    """A right response must also be in time."""
    assert play_case(serve(respond(b'{"a": 1}')), create_case(within_ms=1e-6)).problem.startswith(
        "expected a response within 0 ms, it took "
    )


def test_a_late_and_wrong_response_is_reported_as_wrong(serve: Serve) -> None:
    """This problem says more than the other."""
    assert (
        play_case(serve(respond(b'{"a": 2}')), create_case(within_ms=1e-6)).problem
        == "/a: expected 1, got 2"
    )


def test_a_refused_connection_is_a_miss() -> None:
    """It gives a verdict and not an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert play_case(url).problem == "no response: ConnectionError"


@pytest.mark.parametrize(
    "answer",
    [
        send_bytes(b""),
        send_bytes(b"not HTTP\r\n\r\n"),
        send_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"),
        send_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        send_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}"),
        respond(b"not gzip", headers="Content-Encoding: gzip\r\n"),
        send_bytes(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n{}"),
    ],
)
def test_a_truncated_or_invalid_response_is_a_miss(serve: Serve, answer: Answer) -> None:
    """The problem names the kind of the failure."""
    assert play_case(serve(answer)).problem.startswith("no response: ")


def repeat(piece: bytes, start: bytes = b"", pause: float = 0.01) -> Answer:
    """Return a function that sends a start, and then a piece again and again without end."""

    def send(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.wait(pause):
            connection.sendall(piece)

    return send


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "answer",
    [
        lambda _, over: over.wait(),
        repeat(b" ", b"HTTP/1.1 200 OK\r\n\r\n"),
        repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
        repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, pause=0),
        repeat(b"HTTP/1.1 100 Continue\r\n" + b"A: b\r\n" * 90 + b"\r\n"),
        repeat(b"H"),
        repeat(b"a", b"HTTP/1.1 200 OK\r\nA: "),
        repeat(b"1\r\n#\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        repeat(b"0", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
    ids=[
        "silence",
        "a body byte by byte",
        "interim responses",
        "a flood of interim responses",
        "interim responses with headers",
        "a status byte by byte",
        "a header byte by byte",
        "a chunk now and then",
        "the size of a chunk digit by digit",
    ],
)
def test_a_server_without_an_end_is_a_miss_at_the_end_of_the_budget(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """The budget is that of the whole exchange."""
    monkeypatch.setattr(golden_cases, "GRACE_SECONDS", 0.5)
    assert (
        play_case(serve(answer), create_case(within_ms=1)).problem
        == "no response: not complete after 0.5 s"
    )


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\n"]
)
def test_endless_headers_are_a_miss(serve: Serve, start: bytes) -> None:
    """They are limited in length and number."""
    piece = b"A: b\r\n" * 1000 if start.endswith(b"\n") else b"a" * 10_000
    assert play_case(serve(repeat(piece, start, pause=0))).problem.startswith("no response: ")


@pytest.mark.timeout(20)
def test_a_server_that_does_not_read_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in which a request is sent counts."""
    monkeypatch.setattr(golden_cases, "GRACE_SECONDS", 0.5)
    asked = create_case(request={"method": "PUT", "body": "a"}, within_ms=1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        found = play_case(url, asked, {"a": bytes(50_000_000)})
    assert found.problem == "no response: not complete after 0.5 s"


def test_a_response_without_end_is_cut_off(serve: Serve) -> None:
    """No more than a megabyte of a response is read."""
    sent = 0

    def flood(connection: socket.socket, over: threading.Event) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.is_set():
            sent += connection.send(b'"' + b"x" * 65535)

    assert play_case(serve(flood)).problem.startswith("expected JSON, got: ")
    assert sent < 32 * golden_cases.MAX_RESPONSE_BYTES


def test_a_compressed_response_that_is_huge_is_cut_off(serve: Serve) -> None:
    """The limit is for the decompressed bytes."""
    bomb = gzip.compress(b'"' + b"x" * 50_000_000)
    assert play_case(serve(respond(bomb, headers="Content-Encoding: gzip\r\n"))).problem.startswith(
        "expected JSON, got: "
    )


def test_a_compressed_response_is_decompressed(serve: Serve) -> None:
    """A server may compress its responses."""
    assert (
        play_case(
            serve(respond(gzip.compress(b'{"a": 1}'), headers="Content-Encoding: gzip\r\n"))
        ).problem
        == ""
    )


def test_a_response_in_several_chunks_is_one_response(serve: Serve) -> None:
    """The chunks make no difference."""

    def pieces(connection: socket.socket, _: threading.Event) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in head + b'4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n':
            connection.sendall(bytes([byte]))

    assert play_case(serve(pieces)).problem == ""


def test_proxies_of_the_user_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request goes directly to the server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert play_case(serve(respond(b'{"a": 1}'))).problem == ""
