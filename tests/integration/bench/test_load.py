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
def serving(answer: Callable[[str, bytes], tuple[int, bytes]]) -> Iterator[int]:
    """A server of this process, and its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, text = answer(f"{self.path} {self.headers['Content-Type']}", body)
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


def _until(load: Load, count: int) -> None:
    while len(load.answers) < count:
        time.sleep(0.01)


def test_every_client_asks_again_and_again() -> None:
    """As it was told to, where it was told to; each answer is kept, with its model and what is to be kept of it."""
    asked: set[tuple[str, bytes]] = set()

    def answer(head: str, body: bytes) -> tuple[int, bytes]:
        asked.add((head, body))
        return 200, b"said it"

    with (
        serving(answer) as port,
        Load(
            "127.0.0.1", port, b"{}", 3, 0.0, b"said", "/ask", extractor=lambda text: text.decode()
        ) as load,
    ):
        _until(load, 10)
    assert asked == {("/ask application/json", b"{}")}
    assert not load.failures
    assert load.models == {"sha256:abc": len(load.answers)}
    assert {answer.extract for answer in load.answers} == {"said it"}
    assert all(answer.seconds > 0 for answer in load.answers)


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [(503, b"busy", "busy"), (503, b"", "status 503"), (200, b"other", "other")],
)
def test_answers_that_are_not_as_expected_are_failures(
    status: int, text: bytes, problem: str
) -> None:
    """Another status, or another text; each says what it was."""
    with (
        serving(lambda _, __: (status, text)) as port,
        Load("127.0.0.1", port, b"{}", 1, 0.0, b"said") as load,
    ):
        _until(load, 2)
    assert load.failures == load.answers
    assert problem in load.failures[0].problem


@pytest.mark.parametrize(
    "text", [b'{"result": [[["tabby"]]', b'{"result": []}', b'{"result": [7]}', b"\xff", b""]
)
def test_an_answer_of_which_nothing_can_be_kept_is_a_failure(text: bytes) -> None:
    """One with a good status that breaks off, or is another than it should be; the client goes on."""
    with (
        serving(lambda _, __: (200, text)) as port,
        Load("127.0.0.1", port, b"{}", 1, 0.0, extractor=first_label) as load,
    ):
        _until(load, 2)
    assert load.failures == load.answers
    assert text.decode("utf-8", "replace") in load.failures[0].problem
    assert load.failures[0].extract == ""


def test_no_answer_is_a_failure_and_the_client_goes_on() -> None:
    """Nobody listens: each attempt is one failure."""
    with serving(lambda _, __: (200, b"")) as port:
        pass
    with Load("127.0.0.1", port, b"{}", 1, 0.01) as load:
        _until(load, 3)
    assert {answer.status for answer in load.failures} == {0}
    assert "ConnectionRefusedError" in load.failures[0].problem


def test_asking_once_more_is_not_part_of_the_load() -> None:
    """What serves now can be asked while the load goes on."""
    with serving(lambda _, __: (200, b"now")) as port:
        load = Load("127.0.0.1", port, b"{}", extractor=lambda text: text.decode())
        assert (load.send_once().extract, load.answers) == ("now", [])
