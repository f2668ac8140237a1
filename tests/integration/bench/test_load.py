from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.load import Load
from bench.rollouts import first_label

pytestmark = pytest.mark.integration


@contextmanager
def serving(respond: Callable[[str, bytes], tuple[int, bytes]]) -> Iterator[int]:
    """Yield the port of a server in this process."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, text = respond(f"{self.path} {self.headers['Content-Type']}", body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("X-Model-Digest", "sha256:abc")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base has it
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait_for_answers(load: Load, count: int) -> None:
    """Wait until the load has that many responses."""
    while len(load.answers) < count:
        time.sleep(0.01)


def test_every_client_sends_requests_repeatedly() -> None:
    """Each response is kept with its model and its extract."""
    requests: set[tuple[str, bytes]] = set()

    def respond(head: str, body: bytes) -> tuple[int, bytes]:
        requests.add((head, body))
        return 200, b"said it"

    with (
        serving(respond) as port,
        Load(
            "127.0.0.1", port, b"{}", 3, 0.0, b"said", "/ask", extractor=lambda text: text.decode()
        ) as load,
    ):
        wait_for_answers(load, 10)
    assert requests == {("/ask application/json", b"{}")}
    assert not load.failures
    assert load.models == {"sha256:abc": len(load.answers)}
    assert {answer.extract for answer in load.answers} == {"said it"}
    assert all(answer.seconds > 0 for answer in load.answers)


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [(503, b"busy", "busy"), (503, b"", "status 503"), (200, b"other", "other")],
)
def test_unexpected_responses_are_failures(status: int, text: bytes, problem: str) -> None:
    """Another status or another text is in the problem."""
    with (
        serving(lambda _, __: (status, text)) as port,
        Load("127.0.0.1", port, b"{}", 1, 0.0, b"said") as load,
    ):
        wait_for_answers(load, 2)
    assert load.failures == load.answers
    assert problem in load.failures[0].problem


@pytest.mark.parametrize(
    "text", [b'{"result": [[["tabby"]]', b'{"result": []}', b'{"result": [7]}', b"\xff", b""]
)
def test_a_response_without_an_extract_is_a_failure(text: bytes) -> None:
    """It is cut off, or has another content; the client continues."""
    with (
        serving(lambda _, __: (200, text)) as port,
        Load("127.0.0.1", port, b"{}", 1, 0.0, extractor=first_label) as load,
    ):
        wait_for_answers(load, 2)
    assert load.failures == load.answers
    assert text.decode("utf-8", "replace") in load.failures[0].problem
    assert load.failures[0].extract == ""


def test_no_response_is_a_failure_and_the_client_continues() -> None:
    """Each attempt is one failure."""
    with serving(lambda _, __: (200, b"")) as port:
        pass
    with Load("127.0.0.1", port, b"{}", 1, 0.01) as load:
        wait_for_answers(load, 3)
    assert {answer.status for answer in load.failures} == {0}
    assert "ConnectionRefusedError" in load.failures[0].problem


def test_a_single_request_is_not_part_of_the_load() -> None:
    """It can be sent while the load runs."""
    with serving(lambda _, __: (200, b"now")) as port:
        load = Load("127.0.0.1", port, b"{}", extractor=lambda text: text.decode())
        assert (load.send_once().extract, load.answers) == ("now", [])
