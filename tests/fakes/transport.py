"""An API server that says what a test wants, in that order, and a clock that waits at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.retry import RetryPolicy
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, NoApiResponse
from deploy.errors import ClusterUnreachable

Outcome = ApiResponse | NoApiResponse
NAME = "shop at https://api.example"


def response_with(**body: Any) -> ApiResponse:
    """A good answer with an object."""
    return ApiResponse(200, json.dumps(body))


def status(code: int, reason: str = "", message: str = "", **details: Any) -> ApiResponse:
    """An answer that is not good, as API servers give them."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }
    return ApiResponse(code, json.dumps(body))


def no_response(*, passing: bool = True) -> NoApiResponse:
    """No answer."""
    return NoApiResponse(
        ClusterUnreachable(
            "the API server does not answer (Connection refused)",
            on=NAME,
            next="see whether it runs",
        ),
        passing,
    )


def review(*, allowed: bool) -> ApiResponse:
    """The answer to the question whether something may be done."""
    return response_with(kind="SelfSubjectAccessReview", status={"allowed": allowed})


@dataclass
class FakeTransport:
    """A way to an API server.

    Attributes:
        outcomes: what the next calls lead to; the last one stays.
        asked: the calls, in order.
        within: the seconds that each was given.
        renewed: how often the credentials were loaded again.
    """

    outcomes: list[Outcome]
    name: str = NAME
    requests: list[ApiRequest] = field(default_factory=list)
    timeouts: list[tuple[float, float]] = field(default_factory=list)
    renewals: int = 0

    def send(self, call: ApiRequest, within: tuple[float, float]) -> ApiResponse:
        assert len(self.requests) < 1000, "this asks without end"
        self.requests.append(call)
        self.timeouts.append(within)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, NoApiResponse):
            raise outcome
        return outcome

    def renew(self) -> None:
        self.renewals += 1

    def endpoint(self, path: str) -> Endpoint:
        return Endpoint(f"https://api.example{path}", {"Authorization": f"Bearer {self.renewals}"})


@dataclass
class FakeTime:
    """Time that passes only when somebody waits."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        """Lets that many seconds pass."""
        self.waits.append(seconds)
        self.now += seconds

    def retry_policy(self, **seconds: float) -> RetryPolicy:
        """A patience with this clock."""
        return RetryPolicy(clock=lambda: self.now, wait=self.wait, **seconds)
