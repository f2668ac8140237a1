"""The retries of requests to an API server, and its final responses."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deploy import progress
from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.identity import Principal
from deploy.clients.kubernetes.retry import RetryingClient, RetryPolicy
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse
from deploy.errors import ClusterUnreachable, RolloutLocked
from tests.fakes.display import RecordingDisplay
from tests.fakes.transport import (
    FakeTime,
    FakeTransport,
    Outcome,
    no_response,
    response_with,
    status,
)

GET = ApiRequest("GET", "/version")
WRITE = ApiRequest("PATCH", "/api/v1/namespaces/shop/configmaps/one")
MAKE = ApiRequest("POST", "/api/v1/namespaces/shop/configmaps")


def retrying(
    *outcomes: Outcome, **seconds: float
) -> tuple[RetryingClient, FakeTransport, FakeTime]:
    """Return a client of a server with these outcomes, its transport and its clock."""
    transport = FakeTransport(list(outcomes))
    clock = FakeTime()
    return RetryingClient(transport, clock.retry_policy(**seconds)), transport, clock


def after_success(
    *outcomes: Outcome, operation: str = "version"
) -> tuple[RetryingClient, FakeTransport, FakeTime]:
    """Return the same, after one success."""
    client, transport, clock = retrying(response_with(a="b"), *outcomes)
    client.send(GET, operation)
    return client, transport, clock


def test_a_success_is_final() -> None:
    """It is returned without a wait, and the request is sent once."""
    client, transport, clock = retrying(response_with(gitVersion="v1.33.1"))
    response = client.send(GET, "version")
    assert (response.body["gitVersion"], response.retried) == ("v1.33.1", False)
    assert (transport.requests, clock.waits) == ([GET], [])


def test_a_request_is_sent_again_until_the_server_answers() -> None:
    """The response says that an earlier attempt may have been carried out."""
    client, transport, clock = retrying(no_response(), no_response(), response_with(a="b"))
    response = client.send(GET, "version")
    assert (response.is_success, response.retried) == (True, True)
    assert transport.requests == [GET] * 3
    assert len(clock.waits) == 2


def test_a_server_that_never_answered_is_retried_for_five_seconds() -> None:
    """Its address may be wrong."""
    client, transport, clock = retrying(no_response())
    with pytest.raises(ClusterUnreachable) as caught:
        client.send(GET, "version")
    assert clock.now == pytest.approx(5.0)
    assert "Connection refused" in caught.value.what
    assert all(sum(seconds) <= 15 for seconds in transport.timeouts)


def test_a_server_that_answered_before_is_retried_for_ninety_seconds() -> None:
    """It is restarting."""
    client, _, clock = after_success(no_response())
    with pytest.raises(ClusterUnreachable):
        client.send(GET, "version")
    assert clock.now == pytest.approx(90.0)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refusal_counts_as_the_first_response(code: int) -> None:
    """A server that refuses is reachable."""
    client, transport, clock = retrying(status(code), no_response())
    client.send(GET, "version")
    with pytest.raises(ClusterUnreachable):
        client.send(GET, "version")
    assert clock.now == pytest.approx(90.0)
    assert transport.timeouts[0] != transport.timeouts[1]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_failing_server_is_retried(code: int) -> None:
    """The limits are those of a server that is away; in the end its failure is the response."""
    client, _, _ = retrying(status(code), response_with(a="b"))
    assert client.send(GET, "version").is_success
    client, _, clock = retrying(status(code, "Failed"))
    response = client.send(GET, "version")
    assert (response.status, response.reason) == (code, "Failed")
    assert clock.now == pytest.approx(5.0)
    client, _, clock = after_success(status(code))
    client.send(GET, "version")
    assert clock.now == pytest.approx(90.0)


def test_max_wait_limits_the_retries_of_a_failing_server() -> None:
    """It does not limit those of a server that is away."""
    client, _, clock = after_success(status(500))
    assert client.send(GET, "version", max_wait=2.0).status == 500
    assert clock.now == pytest.approx(2.0)
    client, _, clock = after_success(no_response())
    with pytest.raises(ClusterUnreachable):
        client.send(GET, "version", max_wait=2.0)
    assert clock.now == pytest.approx(90.0)


def test_an_object_that_cannot_be_merged_is_retried_for_five_seconds() -> None:
    """Old servers then fail without a reason.

    A failure with a reason, or of a request without an object, may be transient.
    """
    for request, response, seconds in (
        (WRITE, status(500), 5.0),
        (WRITE, status(500, "InternalError"), 90.0),
        (WRITE, status(503), 90.0),
        (MAKE, status(500), 90.0),
        (GET, status(500), 90.0),
    ):
        client, _, clock = after_success(response)
        assert not client.send(request, "configmaps").is_success
        assert clock.now == pytest.approx(seconds)


def test_a_permanent_failure_is_not_retried() -> None:
    """A certificate that is not trusted stays so."""
    client, transport, clock = retrying(no_response(transient=False))
    with pytest.raises(ClusterUnreachable):
        client.send(GET, "version")
    assert (transport.requests, clock.waits) == ([GET], [])


def test_the_progress_line_says_what_is_waited_for() -> None:
    """It has the cluster, the reason and the time."""
    client, _, _ = retrying(
        no_response(), status(503, "ServiceUnavailable", "etcd is away"), response_with(a="b")
    )
    notes = RecordingDisplay()
    with progress.use_display(notes):
        client.send(GET, "version")
    first, second = notes.lines
    assert "shop at https://api.example" in first
    assert "Connection refused" in first
    assert "0.0 s so far" in first
    assert "503 etcd is away" in second


def test_each_wait_is_longer_up_to_a_limit_with_jitter() -> None:
    """The waits double up to five seconds; jitter takes up to half of each."""
    pauses = [[RetryPolicy().pause(attempt, "") for _ in range(200)] for attempt in range(7)]
    longest = [max(pause) for pause in pauses]
    assert longest == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5], rel=0.1)
    assert all(min(pause) >= most / 2 for pause, most in zip(pauses, longest, strict=True))
    assert all(len(set(pause)) > 100 for pause in pauses)
    client, _, clock = retrying(*[no_response()] * 4, response_with(a="b"))
    client.send(GET, "version")
    assert all(before < after * 2 for before, after in pairwise(clock.waits))


@pytest.mark.parametrize(("header", "expected"), [("3", 3.0), ("30", 30.0), ("600", 30.0)])
def test_retry_after_is_obeyed(header: str, expected: float) -> None:
    """The wait is at most half a minute, and at most what is left of the limit."""
    response = ApiResponse(429, retry_after=header)
    client, _, clock = after_success(response, response_with(a="b"))
    client.send(GET, "version")
    assert clock.waits == [expected]
    client, _, clock = retrying(response)
    client.send(GET, "version")
    assert clock.now == pytest.approx(5.0)


# --- preconditions


def test_require_is_called_before_each_attempt() -> None:
    """If it raises, the request is not sent again."""
    remaining = [True, True]

    def require() -> None:
        if not remaining:
            raise RolloutLocked("the lock was lost", on="it", next="again")
        remaining.pop()

    client, transport, _ = after_success(no_response(), status(503), response_with(a="b"))
    with pytest.raises(RolloutLocked):
        client.send(ApiRequest(WRITE.method, WRITE.path, require=require), "configmaps")
    assert [request.method for request in transport.requests] == ["GET", "PATCH", "PATCH"]


# --- credentials and permissions


def test_credentials_that_were_never_accepted_are_not_renewed() -> None:
    """They have just been loaded."""
    client, transport, clock = retrying(status(401))
    assert client.send(GET, "version").status == 401
    assert (transport.renewals, len(transport.requests), clock.waits) == (0, 1, [])


def test_a_token_of_the_identity_is_renewed_at_the_first_refusal_too() -> None:
    """An earlier connection may have got it, and it may have been revoked since."""
    principal = Principal("object", "ServicePrincipal", "app", "tenant")
    for is_identity, renewals in ((True, 1), (False, 0)):
        client, transport, clock = retrying(status(401), response_with(a="b"))
        transport.identity = ClusterAccount(principal, "cluster", is_identity=is_identity)
        assert client.send(GET, "version").is_success is is_identity
        assert (transport.renewals, clock.waits) == (renewals, [])


def test_expired_credentials_are_renewed_once() -> None:
    """The same request is sent again without a wait."""
    client, transport, clock = after_success(status(401), response_with(a="b"))
    assert client.send(GET, "other").is_success
    assert (transport.renewals, clock.waits) == (1, [])
    client, transport, _ = after_success(status(401))
    assert client.send(GET, "other").status == 401
    assert (transport.renewals, len(transport.requests)) == (1, 3)


@pytest.mark.parametrize("code", [401, 403])
def test_a_refusal_of_what_was_allowed_before_is_retried(code: int) -> None:
    """A server that has just started does not know its rules yet."""
    client, _, clock = after_success(
        status(code), status(code), response_with(a="b"), operation="get pods"
    )
    assert client.send(GET, "get pods").is_success
    client, _, clock = after_success(status(code), operation="get pods")
    assert client.send(GET, "get pods").status == code
    assert clock.now == pytest.approx(10.0)


def test_a_refusal_of_what_was_never_allowed_is_final() -> None:
    """Permission for another operation does not count, and neither does a refusal."""
    client, _, clock = after_success(status(403), operation="get pods")
    for _ in range(2):
        assert client.send(GET, "list pods").status == 403
    assert clock.waits == []


# --- races


def test_a_lost_write_race_is_retried() -> None:
    """The server asks for this when another write, or its count of a quota, came first."""
    for request in (WRITE, MAKE):
        client, _, _ = retrying(status(409, "Conflict"), response_with(a="b"))
        assert client.send(request, "configmaps").is_success
        client, _, clock = retrying(status(409, "Conflict"))
        assert client.send(request, "configmaps").status == 409
        assert clock.now == pytest.approx(10.0)


def test_a_lasting_conflict_is_not_retried() -> None:
    """Another owner of a field, an existing object and a newer version remain."""
    owned = status(
        409,
        "Conflict",
        causes=[
            {
                "reason": "FieldManagerConflict",
                "field": ".data.key",
                "message": 'conflict with "other"',
            }
        ],
    )
    for request, response in (
        (WRITE, owned),
        (MAKE, status(409, "AlreadyExists")),
        (ApiRequest("PUT", WRITE.path), status(409, "Conflict")),
    ):
        client, _, clock = retrying(response, response_with(a="b"))
        assert client.send(request, "configmaps").status == 409
        assert clock.waits == []
