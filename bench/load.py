"""Clients that send the same request again and again, and keep the result of each response.

The server is only a host and a port, so that the same load can be put on any target.
"""

from __future__ import annotations

import http.client
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from bench.figures import Burst

_TIMEOUT = 30.0
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """A request and its result.

    Args:
        at: when it was sent, in monotonic seconds.
        seconds: how long it took.
        status: the HTTP status; 0 if there was no response.
        model: the digest of the model that answered, from the response.
        problem: what is wrong with the response; empty if it is correct.
        extract: what `extractor` of the load returned for it.
    """

    at: float
    seconds: float
    status: int
    model: str
    problem: str = ""
    extract: str = ""

    @property
    def is_correct(self) -> bool:
        """Whether it is a success that matches the expectation."""
        return self.status == http.client.OK and not self.problem


@dataclass
class Load:
    """Clients that post a body over kept-alive connections while a `with` block runs.

    Args:
        host: the server's host.
        port: the server's port.
        body: a JSON document.
        clients: the number of clients.
        pause: seconds between a client's response and its next request.
        expected: what a correct response contains; empty for any content.
        path: the path of the application.
        headers: the headers of each request.
        extractor: returns what to keep of a correct response's text. If it raises a ValueError, a
            LookupError or a TypeError, the response is not correct.
    """

    host: str
    port: int
    body: bytes
    clients: int = 4
    pause: float = 0.1
    expected: bytes = b""
    path: str = "/score"
    headers: Mapping[str, str] = field(default_factory=lambda: _JSON)
    extractor: Callable[[bytes], str] = lambda _: ""
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, daemon=True) for _ in range(self.clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT)

    @property
    def failures(self) -> list[Answer]:
        """The requests without a correct response."""
        return [answer for answer in self.answers if not answer.is_correct]

    @property
    def models(self) -> Counter[str]:
        """The number of responses of each model."""
        return Counter(answer.model for answer in self.answers)

    def send_once(self) -> Answer:
        """Send one more request, on a connection of its own, which is not part of the load."""
        connection = self._connection()
        answer = self._send(connection)
        connection.close()
        return answer

    def _client(self) -> None:
        connection = self._connection()
        while not self._stop.is_set():
            self.answers.append(self._send(connection))
            self._stop.wait(self.pause)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT)

    def _send(self, connection: http.client.HTTPConnection) -> Answer:
        at = time.monotonic()
        try:
            connection.request("POST", self.path, self.body, self.headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Answer(at, time.monotonic() - at, 0, "", f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - at
        problem, extract = self._check(response.status, text)
        return Answer(
            at,
            seconds,
            response.status,
            response.headers.get("X-Model-Digest", ""),
            problem,
            extract,
        )

    def _check(self, status: int, text: bytes) -> tuple[str, str]:
        """Return what is wrong with a response, and what to keep of it."""
        excerpt = text[:200].decode("utf-8", "replace")
        if status != http.client.OK or self.expected not in text:
            return excerpt or f"an empty response with status {status}", ""
        try:
            return "", self.extractor(text)
        except (ValueError, LookupError, TypeError) as error:
            return f"unexpected content, {type(error).__name__}: {excerpt}", ""


def summarise(answers: Sequence[Answer], seconds: float) -> Burst:
    """Return the figures of a period of load; it includes the requests in flight at its end."""
    good = [answer.seconds * 1000 for answer in answers if answer.is_correct]
    p50, p99 = (percentile(good, 50), percentile(good, 99)) if good else (0.0, 0.0)
    return Burst(
        requests=len(good), failures=len(answers) - len(good), seconds=seconds, p50=p50, p99=p99
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of them do not exceed (the nearest rank)."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
