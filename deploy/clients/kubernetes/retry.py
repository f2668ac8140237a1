"""Waiting for an API server that is away, is busy, or has only just come back."""

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

_AWAY = frozenset({429, 500, 502, 503, 504})
_UNKNOWN = frozenset({401, 403})


@dataclass(frozen=True)
class RetryPolicy:
    """How long an API server is waited for, in seconds.

    Attributes:
        stranger: while it has never answered: its address may be wrong.
        known: once it has: it is being started again, or moved.
        settling: when it refuses what it allowed before: one that has just started does not know its rules yet.
        clock: tells the seconds.
        wait: lets seconds pass.
    """

    before_first_response: float = 5.0
    after_first_response: float = 90.0
    after_refusal: float = 10.0
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep

    def pause(self, attempt: int, retry_after: str) -> float:
        """Seconds before another try: up to half a minute where the server asks for it, else longer each time."""
        return backoff.delay(attempt, retry_after, asked=30.0, chosen=5.0)


class RetryingClient:
    """An API server that is asked until it answers.

    Args:
        wire: the way there.
        patience: how long it is waited for.
    """

    def __init__(self, wire: Transport, patience: RetryPolicy) -> None:
        self._wire = wire
        self._patience = patience
        self._met = False
        self._allowed: set[str] = set()

    def send(
        self, call: ApiRequest, about: str, at_most: float | None = None, send: Send | None = None
    ) -> ApiResponse:
        """What the server answers, good or not, once that is worth believing.

        Args:
            call: what is asked. It may be asked more than once: `repeated` of the answer says so.
            about: what it does to which kind of thing; what was allowed before is not refused at once.
            at_most: a limit to the patience with a server that fails, in seconds.
            send: asks once, if not the wire does.

        Raises:
            ClusterError: there was no answer.
            Exception: whatever must hold before the call is made does not.
        """
        attempt = 0
        renewed = False
        began = None
        while True:
            outcome = self._once(call, send or self._wire.send)
            if (
                isinstance(outcome, ApiResponse)
                and outcome.status == 401
                and self._met
                and not renewed
            ):
                self._wire.renew()
                renewed = True
                continue
            now = self._patience.clock()
            began = now if began is None else began
            left = began + self._worth(outcome, call, about, at_most) - now
            if left <= 0:
                return self._believed(outcome, about, repeated=attempt > 0)
            self._wait(outcome, attempt, now - began, left)
            attempt += 1

    def _once(self, call: ApiRequest, send: Send) -> ApiResponse | NoApiResponse:
        call.require()
        # Admission webhooks may take half a minute.
        within = (
            (5.0, 35.0)
            if self._met
            else (self._patience.before_first_response, 2 * self._patience.before_first_response)
        )
        try:
            return send(call, within)
        except NoApiResponse as lost:
            return lost

    def _worth(
        self,
        outcome: ApiResponse | NoApiResponse,
        call: ApiRequest,
        about: str,
        at_most: float | None,
    ) -> float:
        """For how many seconds such an outcome is not believed."""
        away = (
            self._patience.after_first_response
            if self._met
            else self._patience.before_first_response
        )
        if isinstance(outcome, NoApiResponse):
            return away if outcome.transient else 0.0
        if outcome.status in _AWAY:
            limits = [
                away,
                *([self._patience.before_first_response] if _stumbled(outcome, call) else []),
                *([] if at_most is None else [at_most]),
            ]
            return min(limits)
        refused = outcome.status in _UNKNOWN and about in self._allowed
        return self._patience.after_refusal if refused or _raced(outcome, call) else 0.0

    def _believed(
        self, outcome: ApiResponse | NoApiResponse, about: str, *, repeated: bool
    ) -> ApiResponse:
        if isinstance(outcome, NoApiResponse):
            raise outcome.error from outcome.__cause__
        self._met = self._met or outcome.status not in _AWAY
        if outcome.is_success:
            self._allowed.add(about)
        return replace(outcome, retried=repeated)

    def _wait(
        self, outcome: ApiResponse | NoApiResponse, attempt: int, waited: float, left: float
    ) -> None:
        if isinstance(outcome, NoApiResponse):
            why = outcome.error.what
            retry_after = ""
        else:
            why = f"it answers {outcome.status} {outcome.message or outcome.reason}".strip()
            retry_after = outcome.retry_after
        progress.report(
            f"waiting for {self._wire.name}: {why} ({progress.format_seconds(waited)} so far, {progress.format_seconds(left)} left)"
        )
        self._patience.wait(min(left, self._patience.pause(attempt, retry_after)))


def _stumbled(answer: ApiResponse, call: ApiRequest) -> bool:
    """Whether it is most likely the object that was sent: older servers answer so where a field of it cannot be merged."""
    return call.method == "PATCH" and answer.status == 500 and not answer.reason


def _raced(answer: ApiResponse, call: ApiRequest) -> bool:
    """Whether the server lost a race with another writer, and wants the same to be asked again."""
    if answer.status != 409:
        return False
    return (call.method == "PATCH" and not answer.conflicts) or (
        call.method == "POST" and answer.reason != "AlreadyExists"
    )
