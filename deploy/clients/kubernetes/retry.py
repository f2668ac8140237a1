"""Retries for an API server that is away, is busy, or has just started."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from deploy import progress
from deploy.clients import backoff
from deploy.clients.kubernetes.transport import (
    ApiRequest,
    ApiResponse,
    NoApiResponse,
    Send,
    Transport,
)

_UNAVAILABLE = frozenset({429, 500, 502, 503, 504})
_DENIED = frozenset({401, 403})


@dataclass(frozen=True)
class RetryPolicy:
    """How long requests to an API server are retried, in seconds.

    Attributes:
        before_first_response: while the server has never answered; its address may be wrong.
        after_first_response: when it has answered before; it restarts or moves.
        after_refusal: when it refuses what it allowed before; a server that has just started does
            not know its rules yet.
        clock: returns the current time in seconds.
        wait: lets seconds pass.
    """

    before_first_response: float = 5.0
    after_first_response: float = 90.0
    after_refusal: float = 10.0
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep

    def pause(self, attempt: int, retry_after: str) -> float:
        """Return the seconds before the next attempt: what the server asks for, or a backoff."""
        return backoff.delay(attempt, retry_after, retry_after_limit=30.0, backoff_limit=5.0)


class RetryingClient:
    """An HTTP client that sends a request to the API server until it gets a final response.

    Args:
        transport: the connection to the API server.
        policy: how long requests are retried.
    """

    def __init__(self, transport: Transport, policy: RetryPolicy) -> None:
        self._transport = transport
        self._policy = policy
        self._has_answered = False
        self._allowed_operations: set[str] = set()

    def send(
        self,
        request: ApiRequest,
        operation: str,
        max_wait: float | None = None,
        send: Send | None = None,
    ) -> ApiResponse:
        """Send a request and return the final response, whatever its status.

        Args:
            request: the request. If it is sent more than once, `retried` of the response is set.
            operation: the verb and the kind of object; when the server allowed the operation
                before, a refusal of it is retried.
            max_wait: the most seconds of retries while the server fails.
            send: sends the request once, in place of the transport.

        Raises:
            ClusterError: there was no response.
            Exception: what `require` of the request raises.
        """
        attempt = 0
        renewed = False
        start = None
        while True:
            outcome = self._send_once(request, send or self._transport.send)
            if not renewed and self._has_expired_login(outcome):
                self._transport.renew()
                renewed = True
                continue
            now = self._policy.clock()
            start = now if start is None else start
            left = start + self._retry_seconds(outcome, request, operation, max_wait) - now
            if left <= 0:
                return self._final_response(outcome, operation, retried=attempt > 0)
            self._wait(outcome, attempt, now - start, left)
            attempt += 1

    def _send_once(self, request: ApiRequest, send: Send) -> ApiResponse | NoApiResponse:
        request.require()
        first = self._policy.before_first_response
        # Admission webhooks may take half a minute.
        timeout = (5.0, 35.0) if self._has_answered else (first, 2 * first)
        try:
            return send(request, timeout)
        except NoApiResponse as failure:
            return failure

    def _has_expired_login(self, outcome: ApiResponse | NoApiResponse) -> bool:
        """Return whether new credentials may help.

        The server knew those of an earlier request; or they are a token of the identity, which may
        be kept from an earlier connection and was revoked since.
        """
        if not isinstance(outcome, ApiResponse) or outcome.status != 401:
            return False
        if self._has_answered:
            return True
        account = self._transport.account()
        return account is not None and account.is_identity

    def _retry_seconds(
        self,
        outcome: ApiResponse | NoApiResponse,
        request: ApiRequest,
        operation: str,
        max_wait: float | None,
    ) -> float:
        """Return for how many seconds since the first attempt such an outcome is retried."""
        first = self._policy.before_first_response
        limit = self._policy.after_first_response if self._has_answered else first
        if isinstance(outcome, NoApiResponse):
            return limit if outcome.transient else 0.0
        if outcome.status in _UNAVAILABLE:
            if _is_merge_failure(outcome, request):
                limit = min(limit, first)
            return limit if max_wait is None else min(limit, max_wait)
        was_allowed = outcome.status in _DENIED and operation in self._allowed_operations
        retryable = was_allowed or _is_write_race(outcome, request)
        return self._policy.after_refusal if retryable else 0.0

    def _final_response(
        self, outcome: ApiResponse | NoApiResponse, operation: str, *, retried: bool
    ) -> ApiResponse:
        """Return the response and remember what it shows of the server; raise if there is none."""
        if isinstance(outcome, NoApiResponse):
            raise outcome.error from outcome.__cause__
        self._has_answered = self._has_answered or outcome.status not in _UNAVAILABLE
        if outcome.is_success:
            self._allowed_operations.add(operation)
        return replace(outcome, retried=retried)

    def _wait(
        self, outcome: ApiResponse | NoApiResponse, attempt: int, waited: float, left: float
    ) -> None:
        if isinstance(outcome, NoApiResponse):
            reason = outcome.error.what
            retry_after = ""
        else:
            reason = f"it answers {outcome.status} {outcome.message or outcome.reason}".strip()
            retry_after = outcome.retry_after
        progress.report(
            f"waiting for {self._transport.name}: {reason} "
            f"({progress.format_seconds(waited)} so far, {progress.format_seconds(left)} left)"
        )
        self._policy.wait(min(left, self._policy.pause(attempt, retry_after)))


def _is_merge_failure(response: ApiResponse, request: ApiRequest) -> bool:
    """Return whether the object is the probable cause: old servers fail so to merge its fields."""
    return request.method == "PATCH" and response.status == 500 and not response.reason


def _is_write_race(response: ApiResponse, request: ApiRequest) -> bool:
    """Return whether another write came first, so that the same request may succeed next time."""
    if response.status != 409:
        return False
    return (request.method == "PATCH" and not response.conflicts) or (
        request.method == "POST" and response.reason != "AlreadyExists"
    )
