"""The server as a process of its own, on a Unix socket: no test here needs a network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "tests" / "models" / "digits"
PATIENCE = 30
BODY = (DIGITS / "golden" / "three.json").read_bytes()
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SCORE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"


# What `python -m app` does, on another socket.
PROGRAM = """
import os
import socket
from app.__main__ import main

def listen(_):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["SOCKET"])
    listener.listen(128)
    return listener

main(listen)
"""


class Server:
    """The server, as the image starts it but for its socket.

    Args:
        model_dir: The published model.
        folder: Where its socket is made.
        files: How many files it may open.
        variables: More of its environment.
    """

    def __init__(
        self, model_dir: Path, folder: Path, files: str = "unlimited", **variables: str
    ) -> None:
        self._bound = folder / "s"
        self._log = folder / "log"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "APP_MODEL_DIR": str(model_dir),
            "SOCKET": str(self._bound),
        }
        limit = f"ulimit -n {files}; " if files != "unlimited" else ""
        command = ("sh", "-c", f'{limit}exec "$0" -c "$1"', sys.executable, PROGRAM)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment | variables, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> tuple[int, str]:
        """Return the exit code and the log, when the server has ended."""
        return self.process.wait(PATIENCE), self._log.read_text("utf-8")

    def connect(self) -> socket.socket:
        """Connect as soon as the server listens."""
        deadline = time.monotonic() + PATIENCE
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(PATIENCE)
            try:
                connection.connect(str(self._bound))
            except OSError:
                connection.close()
                assert time.monotonic() < deadline
                assert self.process.poll() is None
                time.sleep(0.05)  # There is nothing to wait on before the server listens.
            else:
                return connection

    def ask(self, request: bytes) -> bytes:
        """Return the answer to a request on a connection of its own."""
        with self.connect() as connection:
            connection.sendall(request)
            return answer(connection)

    def stop(self) -> None:
        """Ask the server to stop once it serves, and return when it is not ready any more."""
        assert b" 200 " in self.ask(READY)
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while b" 503 " not in self.ask(READY):
            assert time.monotonic() < deadline


def answer(connection: socket.socket) -> bytes:
    """Read one answer: its head, and as much body as the head says."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536) or b"\r\n\r\n"
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("variables", "code", "line"),
    [
        (
            {},
            3,
            "app: bad model: .*manifest.json: expected a file, found No such file or directory\n",
        ),
        (
            {"APP_SLOTS": "-1"},
            1,
            "app: settings: APP_SLOTS: expected a whole number from 0 to 256, found '-1'\n",
        ),
    ],
)
def test_bad_start_is_one_line_and_an_exit(
    tmp_path: Path, variables: dict[str, str], code: int, line: str
) -> None:
    """A bad model or setting ends the process at once, without a traceback."""
    with Server(tmp_path, tmp_path, **variables) as server:
        ended, log = server.end()
    assert ended == code
    assert re.fullmatch(line, log)


def test_bad_weights_are_one_line_and_an_exit(model_dir: Path, tmp_path: Path) -> None:
    """A file that changed since it was published does not serve."""
    (model_dir / "model.onnx").write_bytes(b"changed")
    with Server(model_dir, tmp_path) as server:
        ended, log = server.end()
    assert ended == 3
    assert re.fullmatch(r"app: bad model: .*model\.onnx: expected \d+ bytes, found 7 bytes\n", log)


def test_a_path_is_served_as_it_is_written(whole_model: Path, tmp_path: Path) -> None:
    """No part of a path is resolved."""
    with Server(whole_model, tmp_path) as server:
        for path in (b"/a/../readyz", b"//readyz", b"/readyz/", b"/./readyz", b"readyz"):
            assert b" 404 " in server.ask(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)


def test_stop_finishes_the_request_in_flight(whole_model: Path, tmp_path: Path) -> None:
    """A request that was half sent when the stop came is answered, and the server ends well."""
    with Server(whole_model, tmp_path) as server, server.connect() as connection:
        connection.sendall(SCORE + BODY[:50])
        assert b" 200 " in server.ask(READY)
        server.stop()
        connection.sendall(BODY[50:])
        assert b'"three"' in answer(connection)
        assert server.process.wait(PATIENCE) == 0


def test_stop_answers_the_next_request_of_every_kept_connection(
    whole_model: Path, tmp_path: Path
) -> None:
    """No kept connection is dropped, as its client may be sending; the answer closes it."""
    with (
        Server(whole_model, tmp_path) as server,
        server.connect() as first,
        server.connect() as second,
    ):
        for kept in (first, second):
            kept.sendall(READY)
            assert b" 200 " in answer(kept)
        server.stop()
        for kept in (first, second):
            kept.sendall(SCORE + BODY)
            last = answer(kept)
            assert b'"three"' in last
            assert b"connection: close" in last.lower()
        assert server.process.wait(PATIENCE) == 0


def test_draining_replica_is_not_ready_and_still_accepts(whole_model: Path, tmp_path: Path) -> None:
    """For as long as the settings say, a new connection learns of the stop and gets its score."""
    with Server(whole_model, tmp_path, APP_DRAIN_SECONDS="2") as server:
        assert b" 200 " in server.ask(READY)
        begin = time.monotonic()
        server.stop()
        while time.monotonic() < begin + 1.5:
            assert b" 503 " in server.ask(READY)
            assert b'"three"' in server.ask(SCORE + BODY)
        assert server.process.wait(PATIENCE) == 0


def test_stop_without_connections_is_quick(whole_model: Path, tmp_path: Path) -> None:
    """A replica from which the proxy has taken all requests does not wait."""
    with Server(whole_model, tmp_path) as server:
        assert b" 200 " in server.ask(READY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(1.5) == 0


def test_silent_connections_do_not_hold_up_a_stop(whole_model: Path, tmp_path: Path) -> None:
    """On a stop, a silent connection is given a moment for a request under way."""
    with Server(whole_model, tmp_path) as server, server.connect() as silent:
        server.stop()
        assert silent.recv(100) == b""
        assert server.process.wait(10) == 0


def test_slow_sender_is_cut_off(whole_model: Path, tmp_path: Path) -> None:
    """A body that does not arrive in time is a 408, and ends its connection."""
    with Server(whole_model, tmp_path, APP_READ_SECONDS="1") as server, server.connect() as slow:
        slow.sendall(SCORE + BODY[:50])
        assert b" 408 " in answer(slow)
        assert slow.recv(100) == b""


def test_slow_clients_keep_nobody_waiting(whole_model: Path, tmp_path: Path) -> None:
    """Neither silent clients, nor those that stop in a head or a body, take a thread."""
    with Server(whole_model, tmp_path, APP_SLOTS="1") as server, contextlib.ExitStack() as crowd:
        for sent in (b"", b"GET / HT", SCORE + BODY[:50]):
            for _ in range(100):
                crowd.enter_context(server.connect()).sendall(sent)
        assert b'"three"' in server.ask(SCORE + BODY)


def test_clients_that_take_no_answers_keep_nobody_waiting(
    whole_model: Path, tmp_path: Path
) -> None:
    """A client that asks and never reads fills what the system keeps for it, and no more."""
    with Server(whole_model, tmp_path) as server, contextlib.ExitStack() as crowd:
        for _ in range(20):
            connection = crowd.enter_context(server.connect())
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                connection.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert b'"three"' in server.ask(SCORE + BODY)


def test_clients_that_break_off_take_no_places(
    whole_model: Path, tmp_path: Path, picture: Callable[..., str]
) -> None:
    """Where all that wait to be scored have gone, another is scored in their place."""
    large = json.dumps({"input": [picture((4900, 4900))]}).encode()
    ask = SCORE.replace(b"%d" % len(BODY), b"%d" % len(large)) + large
    with Server(whole_model, tmp_path, APP_SLOTS="1", APP_MAX_WAITING="2") as server:
        for _ in range(20):
            with server.connect() as brief:
                brief.sendall(ask)
        deadline = time.monotonic() + PATIENCE
        while b'"three"' not in server.ask(SCORE + BODY):
            assert time.monotonic() < deadline


def test_server_outlives_a_lack_of_files(whole_model: Path, tmp_path: Path) -> None:
    """Where the system allows few open files, connections wait for others to end."""
    with Server(whole_model, tmp_path, files="120") as server:
        with contextlib.ExitStack() as silent:
            for _ in range(150):
                silent.enter_context(server.connect())
        assert b'"three"' in server.ask(SCORE + BODY)


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n", b"5\r\nabc", b"-1\r\n\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n"]
)
def test_damaged_chunks_are_no_server_error(
    whole_model: Path, tmp_path: Path, chunks: bytes
) -> None:
    """A chunked body that breaks its own rules is the client's fault."""
    with (
        Server(whole_model, tmp_path, APP_READ_SECONDS="1") as server,
        server.connect() as connection,
    ):
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert answer(connection).startswith(b"HTTP/1.1 4")
        assert b" 200 " in server.ask(READY)
