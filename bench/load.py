"""Clients that ask a served application the same thing again and again, and keep what every answer was.

Whoever serves is only a host and a port, so that the same load can be put on any target.
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

_PATIENCE = 30.0
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """One request and what came of it.

    Args:
        at: when it was sent, in monotonic seconds.
        seconds: how long it took.
        status: 0 if no answer came.
        model: the digest of the model that answered, as the answer names it.
        problem: what is wrong with the answer; empty if it is as it should be.
        said: what the load was told to keep of it.
    """

    at: float
    seconds: float
    status: int
    model: str
    problem: str = ""
    said: str = ""

    @property
    def right(self) -> bool:
        """Whether it is an answer, and as it should be."""
        return self.status == http.client.OK and not self.problem


@dataclass
class Load:
    """Clients that post a body over kept-alive connections, each at its own pace, until the `with` block is left.

    Args:
        host: where to.
        port: where to.
        body: a JSON document.
        clients: how many at once.
        pause: seconds between a client's answer and its next request.
        expected: what a right answer holds; anything will do if it is empty.
        path: which path of the application.
        headers: of each request.
        kept: what to keep of a right answer's text; one of which it cannot be had (a ValueError, LookupError or TypeError) is not right.
    """

    host: str
    port: int
    body: bytes
    clients: int = 4
    pause: float = 0.1
    expected: bytes = b""
    path: str = "/score"
    headers: Mapping[str, str] = field(default_factory=lambda: _JSON)
    kept: Callable[[bytes], str] = lambda _: ""
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
            thread.join(_PATIENCE)

    @property
    def failures(self) -> list[Answer]:
        """The requests that did not get a right answer."""
        return [answer for answer in self.answers if not answer.right]

    @property
    def models(self) -> Counter[str]:
        """How many answers each model gave."""
        return Counter(answer.model for answer in self.answers)

    def once(self) -> Answer:
        """Asks once more, on a connection of its own; the answer is not one of the load's."""
        connection = self._connection()
        answer = self._asked(connection)
        connection.close()
        return answer

    def _client(self) -> None:
        connection = self._connection()
        while not self._stop.is_set():
            self.answers.append(self._asked(connection))
            self._stop.wait(self.pause)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE)

    def _asked(self, connection: http.client.HTTPConnection) -> Answer:
        at = time.monotonic()
        try:
            connection.request("POST", self.path, self.body, self.headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Answer(at, time.monotonic() - at, 0, "", f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - at
        problem, said = self._judged(response.status, text)
        return Answer(
            at, seconds, response.status, response.headers.get("X-Model-Digest", ""), problem, said
        )

    def _judged(self, status: int, text: bytes) -> tuple[str, str]:
        """What is wrong with an answer, and what is to be kept of it."""
        shown = text[:200].decode("utf-8", "replace")
        if status != http.client.OK or self.expected not in text:
            return shown or f"an empty answer with status {status}", ""
        try:
            return "", self.kept(text)
        except (ValueError, LookupError, TypeError) as error:
            return f"not as it should be, {type(error).__name__}: {shown}", ""


def summed(answers: Sequence[Answer], seconds: float) -> Burst:
    """The figures of a stretch of load; those under way at its end have been waited for and count."""
    good = [answer.seconds * 1000 for answer in answers if answer.right]
    p50, p99 = (percentile(good, 50), percentile(good, 99)) if good else (0.0, 0.0)
    return Burst(
        requests=len(good), failures=len(answers) - len(good), seconds=seconds, p50=p50, p99=p99
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of them do not exceed (the nearest rank)."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
