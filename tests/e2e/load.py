"""A steady load on a front door: what every answer was, and which model gave it."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent (monotonic seconds), how long it took, its status (0 if none came), the model that answered."""

    at: float
    seconds: float
    status: int
    model: str
    problem: str = ""


@dataclass
class Load:
    """Clients that post the same body over kept-alive connections, each at its own pace, until the `with` block is left.

    Args:
        host: where to.
        port: where to.
        body: a JSON request for /score.
        clients: how many at once.
        pause: seconds between a client's answer and its next request.
    """

    host: str
    port: int
    body: bytes
    clients: int = 4
    pause: float = 0.1
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(self.clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def failures(self) -> list[Answer]:
        """The requests that did not get a 200."""
        return [answer for answer in self.answers if answer.status != http.client.OK]

    @property
    def models(self) -> Counter[str]:
        """How many answers each model gave."""
        return Counter(answer.model for answer in self.answers)

    def _client(self) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        while not self._stop.is_set():
            self.answers.append(self._asked(connection))
            self._stop.wait(self.pause)
        connection.close()

    def _asked(self, connection: http.client.HTTPConnection) -> Answer:
        at = time.monotonic()
        try:
            connection.request("POST", "/score", self.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Answer(at, time.monotonic() - at, 0, "", f"{type(error).__name__}: {error}")
        problem = "" if response.status == http.client.OK else text[:200].decode("utf-8", "replace")
        return Answer(at, time.monotonic() - at, response.status, response.headers.get("X-Model-Digest", ""), problem)
