"""An API server with prepared outcomes, and a clock on which waits take no time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.retry import RetryPolicy
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, NoApiResponse
from deploy.errors import ClusterUnreachable

Outcome = ApiResponse | NoApiResponse
NAME = "shop at https://api.example"


def response_with(**body: Any) -> ApiResponse:
    """Return a success with an object."""
    return ApiResponse(200, json.dumps(body))


def status(code: int, reason: str = "", message: str = "", **details: Any) -> ApiResponse:
    """Return a response that is no success, as API servers send it."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }
    return ApiResponse(code, json.dumps(body))


def no_response(*, transient: bool = True) -> NoApiResponse:
    """Return the failure of a request that gets no response."""
    return NoApiResponse(
        ClusterUnreachable(
            "the API server does not answer (Connection refused)",
            on=NAME,
            next="see whether it runs",
        ),
        transient,
    )


def review(*, allowed: bool) -> ApiResponse:
    """Return the response to a review of whether something is allowed."""
    return response_with(kind="SelfSubjectAccessReview", status={"allowed": allowed})


@dataclass
class FakeTransport:
    """A connection to an API server with prepared outcomes.

    Attributes:
        outcomes: the outcomes of the next requests; the last one repeats.
        requests: the requests, in order.
        timeouts: the timeouts of each request.
        renewals: how often the credentials were loaded again.
        identity: the account of Azure whose token is sent; None if it is none.
    """

    outcomes: list[Outcome]
    name: str = NAME
    requests: list[ApiRequest] = field(default_factory=list)
    timeouts: list[tuple[float, float]] = field(default_factory=list)
    renewals: int = 0
    identity: ClusterAccount | None = None

    def account(self) -> ClusterAccount | None:
        return self.identity

    def send(self, request: ApiRequest, timeout: tuple[float, float]) -> ApiResponse:
        assert len(self.requests) < 1000, "the client retries without end"
        self.requests.append(request)
        self.timeouts.append(timeout)
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
    """A clock that moves only when a test waits."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        """Move the clock by that many seconds."""
        self.waits.append(seconds)
        self.now += seconds

    def retry_policy(self, **seconds: float) -> RetryPolicy:
        """Return a retry policy with this clock."""
        return RetryPolicy(clock=lambda: self.now, wait=self.wait, **seconds)
