"""The server as a process of its own, spoken to over a Unix socket: no test here needs a network."""

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
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "tests" / "models" / "digits"
PATIENCE = 30
BODY = (DIGITS / "golden" / "three.json").read_bytes()
SCORE = (
    b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    % len(BODY)
)


@contextlib.contextmanager
def server(
    model_dir: Path, bound: Path, options: str = "", limit: str = "unlimited", /, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start gunicorn as the image does, but on a Unix socket; `limit` is how many files it may open."""
    few = f"ulimit -n {limit}; " if limit != "unlimited" else ""
    command = f"{few}exec {sys.executable} -m gunicorn --config app/gunicorn.conf.py --bind unix:{bound} {options}"
    environment = {"PATH": os.environ["PATH"], "APP_MODEL_DIR": str(model_dir), **variables}
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def connect(bound: Path) -> socket.socket:
    """Connect as soon as the server listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(bound))
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # There is nothing to wait on before the server has made its socket.
        else:
            return connection


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


def asked(bound: Path, request: bytes) -> bytes:
    """Ask on a connection of its own."""
    with connect(bound) as connection:
        connection.sendall(request)
        return answer(connection)


@pytest.mark.parametrize(
    ("variables", "code", "line"),
    [
        (
            {},
            3,
            "app: bad model: .*manifest.json: expected a file, found No such file or directory\n",
        ),
        (
            {"APP_THREADS": "0"},
            1,
            "app: settings: APP_THREADS: expected a whole number from 1 to 1024, found '0'\n",
        ),
    ],
)
def test_bad_start_is_one_line_and_an_exit(
    tmp_path: Path, variables: dict[str, str], code: int, line: str
) -> None:
    """A bad model or setting ends the process at once: no restart, no traceback, nothing listening."""
    with server(tmp_path, tmp_path / "s", **variables) as process:
        assert process.wait(PATIENCE) == code
        assert process.stderr is not None
        assert re.fullmatch(line, process.stderr.read())
    assert not (tmp_path / "s").exists()


def test_bad_weights_are_one_line_and_an_exit(model_dir: Path, tmp_path: Path) -> None:
    """A file that changed since it was published does not serve."""
    (model_dir / "model.onnx").write_bytes(b"changed")
    with server(model_dir, tmp_path / "s") as process:
        assert process.wait(PATIENCE) == 3
        assert process.stderr is not None
        assert re.fullmatch(
            r"app: bad model: .*model\.onnx: expected \d+ bytes, found 7 bytes\n",
            process.stderr.read(),
        )


def test_stop_finishes_the_request_in_flight(whole_model: Path, tmp_path: Path) -> None:
    """A request that was half sent when the stop came is answered, and the server ends well."""
    with server(whole_model, tmp_path / "s") as process, connect(tmp_path / "s") as connection:
        connection.sendall(SCORE + BODY[:50])
        with connect(tmp_path / "s") as other:
            other.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in answer(other)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # So that the stop has begun when the rest arrives.
        connection.sendall(BODY[50:])
        assert b'"three"' in answer(connection)
        assert process.wait(PATIENCE) == 0


def test_stop_answers_the_next_request_of_every_kept_connection(
    whole_model: Path, tmp_path: Path
) -> None:
    """Whatever connections were closed before, none that is kept is dropped: its client may be sending already."""
    ready = b"GET /readyz HTTP/1.1\r\nHost: x\r\n"
    with (
        server(whole_model, tmp_path / "s") as process,
        connect(tmp_path / "s") as first,
        connect(tmp_path / "s") as second,
    ):
        for kept in (first, second):
            kept.sendall(ready + b"\r\n")
            assert b" 200 " in answer(kept)
        for _ in range(5):
            with connect(tmp_path / "s") as other:
                other.sendall(ready + b"Connection: close\r\n\r\n")
                assert b" 200 " in answer(other)
        process.send_signal(signal.SIGTERM)
        for kept in (first, second):
            time.sleep(
                0.3
            )  # The stop goes on meanwhile; what it does with the second is what the first has set off.
            kept.sendall(SCORE + BODY)
            last = answer(kept)
            assert b'"three"' in last
            assert b"connection: close" in last.lower()


def test_draining_replica_is_not_ready_and_still_accepts(whole_model: Path, tmp_path: Path) -> None:
    """Between the stop and the end, a new connection hears that the replica is not ready, and still gets its score."""
    with server(whole_model, tmp_path / "s", APP_DRAIN_SECONDS="3") as process:
        connect(tmp_path / "s").close()
        # The server takes the name of its socket away when it stops; a TCP port would stay as this second name does.
        (tmp_path / "port").hardlink_to(tmp_path / "s")
        process.send_signal(signal.SIGTERM)
        while b" 200 " in asked(tmp_path / "port", b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"):
            time.sleep(0.05)  # The stop reaches the worker a moment after it was asked for.
        with connect(tmp_path / "port") as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 503 " in answer(connection)
            connection.sendall(SCORE + BODY)
            assert b'"three"' in answer(connection)
        assert process.wait(PATIENCE) == 0


def test_slow_sender_is_cut_off(whole_model: Path, tmp_path: Path) -> None:
    """A body that does not arrive in time is a 408, and a head that does not is dropped; both free their thread."""
    with (
        server(whole_model, tmp_path / "s", APP_READ_SECONDS="1", APP_THREADS="2"),
        connect(tmp_path / "s") as body,
    ):
        body.sendall(SCORE + BODY[:50])
        with connect(tmp_path / "s") as head:
            head.sendall(b"GET / HT")
            assert b" 408 " in answer(body)
            assert head.recv(100) == b""
        with connect(tmp_path / "s") as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(other).endswith(b"Healthy")


def test_crowd_of_slow_senders_does_not_keep_others_waiting(
    whole_model: Path, tmp_path: Path
) -> None:
    """Where as many stand still as there are threads, they are cut off after a moment, long before their time is over."""
    with (
        server(whole_model, tmp_path / "s", APP_READ_SECONDS="60", APP_THREADS="12"),
        contextlib.ExitStack() as slow,
    ):
        senders = [slow.enter_context(connect(tmp_path / "s")) for _ in range(12)]
        for sender in senders:
            sender.sendall(SCORE + BODY[:50])
        assert b'"three"' in asked(tmp_path / "s", SCORE + BODY)
        assert sum(b" 408 " in answer(sender) for sender in senders) >= 1


def test_clients_that_take_no_answers_are_cut_off(whole_model: Path, tmp_path: Path) -> None:
    """One that asks and asks and never reads fills what the system keeps for it; its thread is not lost for that."""
    with (
        server(whole_model, tmp_path / "s", APP_READ_SECONDS="1", APP_THREADS="2"),
        contextlib.ExitStack() as mute,
    ):
        for _ in range(2):
            connection = mute.enter_context(connect(tmp_path / "s"))
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                connection.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        # They take turns with others until what the system keeps for them is full.
        for _ in range(50):
            assert asked(tmp_path / "s", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"Healthy")


def test_clients_that_do_not_hang_up_hold_up_nobody(whole_model: Path, tmp_path: Path) -> None:
    """A connection whose last answer was given is closed at once; gunicorn's main thread would wait for each of them in turn."""
    with server(whole_model, tmp_path / "s"), contextlib.ExitStack() as kept:
        for _ in range(30):
            connection = kept.enter_context(connect(tmp_path / "s"))
            connection.settimeout(4)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert answer(connection).endswith(b"Healthy")
        assert connection.recv(100) == b""


def test_new_connections_take_the_place_of_silent_ones(whole_model: Path, tmp_path: Path) -> None:
    """More connections than can be had, all of them silent, do not keep out one that asks."""
    with (
        server(whole_model, tmp_path / "s", "--worker-connections 40", APP_THREADS="2"),
        contextlib.ExitStack() as silent,
    ):
        for _ in range(60):
            silent.enter_context(connect(tmp_path / "s"))
        with connect(tmp_path / "s") as connection:
            connection.settimeout(4)
            connection.sendall(SCORE + BODY)
            assert b'"three"' in answer(connection)


def test_clients_that_break_off_take_no_places(
    whole_model: Path, tmp_path: Path, picture: Callable[..., str]
) -> None:
    """Where all that wait to be scored have gone, one that asks is scored in their place."""
    large = json.dumps({"input": [picture((4900, 4900))]}).encode()
    ask = SCORE.replace(b"%d" % len(BODY), b"%d" % len(large)) + large
    deadline = time.monotonic() + PATIENCE
    with server(whole_model, tmp_path / "s", APP_THREADS="8", APP_SLOTS="1"):
        while (
            _running(tmp_path / "s") < 5
        ):  # Of which one asks this, one is scored, and three wait.
            assert time.monotonic() < deadline
            with connect(tmp_path / "s") as brief:
                brief.sendall(ask)
        assert b'"three"' in asked(tmp_path / "s", SCORE + BODY)


def _running(bound: Path) -> int:
    found = re.search(
        rb"(?m)^app_requests_running (\d+)",
        asked(bound, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
    )
    assert found
    return int(found[1])


def test_few_files_are_enough(whole_model: Path, tmp_path: Path) -> None:
    """Where the system allows few open files, connections wait for their turn and the server lives."""
    with (
        server(whole_model, tmp_path / "s", "", "120", APP_THREADS="4") as process,
        contextlib.ExitStack() as silent,
    ):
        connect(tmp_path / "s").close()
        worker = _worker(process.pid)
        for _ in range(150):
            silent.enter_context(connect(tmp_path / "s"))
        assert b'"three"' in asked(tmp_path / "s", SCORE + BODY)
        assert _worker(process.pid) == worker


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n", b"5\r\nabc", b"-1\r\n\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n"]
)
def test_damaged_chunks_are_no_server_error(
    whole_model: Path, tmp_path: Path, chunks: bytes
) -> None:
    """A chunked body that breaks its own rules is the caller's fault."""
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server(whole_model, tmp_path / "s"), connect(tmp_path / "s") as connection:
        connection.sendall(head + chunks)
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection).startswith(b"HTTP/1.1 4")


def test_silent_connections_hold_no_thread(whole_model: Path, tmp_path: Path) -> None:
    """Many clients that connect and say nothing do not keep one from being served."""
    with server(whole_model, tmp_path / "s", APP_THREADS="1"), contextlib.ExitStack() as silent:
        for _ in range(50):
            silent.enter_context(connect(tmp_path / "s"))
        with connect(tmp_path / "s") as connection:
            connection.settimeout(4)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer(connection).endswith(b"Healthy")


def test_silent_connections_do_not_hold_up_a_stop(whole_model: Path, tmp_path: Path) -> None:
    """On a stop, a silent connection is given a moment: long enough for a request under way, too short to matter."""
    with (
        server(whole_model, tmp_path / "s") as process,
        connect(tmp_path / "s") as silent,
        connect(tmp_path / "s") as late,
    ):
        with connect(tmp_path / "s") as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"Healthy" in answer(other)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # So that the stop has begun when the request arrives.
        late.sendall(SCORE + BODY)
        assert b'"three"' in answer(late)
        assert silent.recv(100) == b""
        assert process.wait(10) == 0


def test_dead_worker_is_replaced(whole_model: Path, tmp_path: Path) -> None:
    """If the worker is killed, another serves with the model that is already loaded."""
    with server(whole_model, tmp_path / "s") as process:
        connect(tmp_path / "s").close()
        worker = _worker(process.pid)
        os.kill(worker, signal.SIGKILL)
        with connect(tmp_path / "s") as connection:
            connection.sendall(SCORE + BODY)
            assert b'"three"' in answer(connection)
        assert _worker(process.pid) != worker


def _worker(master: int) -> int:
    children = Path(f"/proc/{master}/task/{master}/children")
    deadline = time.monotonic() + PATIENCE
    while not (pids := children.read_text("ascii").split()) and time.monotonic() < deadline:
        time.sleep(0.05)  # The master forks a moment after it has begun to listen.
    return int(pids[0])
