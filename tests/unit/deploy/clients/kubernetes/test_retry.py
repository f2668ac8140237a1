"""How long an API server is waited for, and what is believed of what it says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deploy import progress
from deploy.clients.kubernetes.retry import RetryingClient, RetryPolicy
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse
from deploy.errors import ClusterUnreachable, RolloutLocked
from tests.fakes.display import Noted
from tests.fakes.wire import FakeTransport, Outcome, Waiting, no_response, response_with, status

GET = ApiRequest("GET", "/version")
WRITE = ApiRequest("PATCH", "/api/v1/namespaces/shop/configmaps/one")
MAKE = ApiRequest("POST", "/api/v1/namespaces/shop/configmaps")


def patient(*outcomes: Outcome, **seconds: float) -> tuple[RetryingClient, FakeTransport, Waiting]:
    """A server that is met with patience, the way there, and the time that it took."""
    wire = FakeTransport(list(outcomes))
    waiting = Waiting()
    return RetryingClient(wire, waiting.patience(**seconds)), wire, waiting


def met(
    *outcomes: Outcome, about: str = "version"
) -> tuple[RetryingClient, FakeTransport, Waiting]:
    """The same, after it has answered once."""
    server, wire, waiting = patient(response_with(a="b"), *outcomes)
    server.send(GET, about)
    return server, wire, waiting


def test_a_good_answer_is_believed_at_once() -> None:
    """Nothing is waited for, and nothing asked twice."""
    server, wire, waiting = patient(response_with(gitVersion="v1.33.1"))
    answer = server.send(GET, "version")
    assert (answer.body["gitVersion"], answer.retried) == ("v1.33.1", False)
    assert (wire.asked, waiting.waits) == ([GET], [])


def test_a_server_that_comes_back_is_asked_again() -> None:
    """The answer says that an earlier attempt may have been carried out."""
    server, wire, waiting = patient(no_response(), no_response(), response_with(a="b"))
    answer = server.send(GET, "version")
    assert (answer.is_success, answer.retried) == (True, True)
    assert wire.asked == [GET] * 3
    assert len(waiting.waits) == 2


def test_a_server_that_never_answered_is_given_up_soon() -> None:
    """After five seconds: its address may be wrong."""
    server, wire, waiting = patient(no_response())
    with pytest.raises(ClusterUnreachable) as caught:
        server.send(GET, "version")
    assert waiting.now == pytest.approx(5.0)
    assert "Connection refused" in caught.value.what
    assert all(sum(within) <= 15 for within in wire.within)


def test_a_server_that_answered_before_is_waited_for() -> None:
    """For a minute and a half: it is being started again."""
    server, _, waiting = met(no_response())
    with pytest.raises(ClusterUnreachable):
        server.send(GET, "version")
    assert waiting.now == pytest.approx(90.0)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refusal_is_an_answer_too(code: int) -> None:
    """Whoever refuses is there."""
    server, wire, waiting = patient(status(code), no_response())
    server.send(GET, "version")
    with pytest.raises(ClusterUnreachable):
        server.send(GET, "version")
    assert waiting.now == pytest.approx(90.0)
    assert wire.within[0] != wire.within[1]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_server_that_fails_is_asked_again(code: int) -> None:
    """As one that is away; what it says in the end is its answer."""
    server, _, _ = patient(status(code), response_with(a="b"))
    assert server.send(GET, "version").is_success
    server, _, waiting = patient(status(code, "Failed"))
    answer = server.send(GET, "version")
    assert (answer.status, answer.reason) == (code, "Failed")
    assert waiting.now == pytest.approx(5.0)
    server, _, waiting = met(status(code))
    server.send(GET, "version")
    assert waiting.now == pytest.approx(90.0)


def test_patience_with_a_failing_server_can_be_limited() -> None:
    """With one that is away it cannot."""
    server, _, waiting = met(status(500))
    assert server.send(GET, "version", at_most=2.0).status == 500
    assert waiting.now == pytest.approx(2.0)
    server, _, waiting = met(no_response())
    with pytest.raises(ClusterUnreachable):
        server.send(GET, "version", at_most=2.0)
    assert waiting.now == pytest.approx(90.0)


def test_a_server_that_stumbles_over_an_object_is_given_up_soon() -> None:
    """Older ones fail without a reason where an object cannot be merged; with a reason, or without an object, it may pass."""
    for call, answer, within in (
        (WRITE, status(500), 5.0),
        (WRITE, status(500, "InternalError"), 90.0),
        (WRITE, status(503), 90.0),
        (MAKE, status(500), 90.0),
        (GET, status(500), 90.0),
    ):
        server, _, waiting = met(answer)
        assert not server.send(call, "configmaps").is_success
        assert waiting.now == pytest.approx(within)


def test_what_will_not_pass_is_told_at_once() -> None:
    """A certificate that is not trusted will not be in a minute."""
    server, wire, waiting = patient(no_response(passing=False))
    with pytest.raises(ClusterUnreachable):
        server.send(GET, "version")
    assert (wire.asked, waiting.waits) == ([GET], [])


def test_who_waits_is_told_what_for() -> None:
    """With the cluster, the reason and the time."""
    server, _, _ = patient(
        no_response(), status(503, "ServiceUnavailable", "etcd is away"), response_with(a="b")
    )
    notes = Noted()
    with progress.use_display(notes):
        server.send(GET, "version")
    first, second = notes.notes
    assert "shop at https://api.example" in first
    assert "Connection refused" in first
    assert "0.0 s so far" in first
    assert "503 etcd is away" in second


def test_each_wait_is_longer_up_to_a_limit_and_never_in_step() -> None:
    """The waits double up to five seconds; chance takes up to a half of each."""
    pauses = [[RetryPolicy().pause(attempt, "") for _ in range(200)] for attempt in range(7)]
    longest = [max(pause) for pause in pauses]
    assert longest == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5], rel=0.1)
    assert all(min(pause) >= most / 2 for pause, most in zip(pauses, longest, strict=True))
    assert all(len(set(pause)) > 100 for pause in pauses)
    server, _, waiting = patient(*[no_response()] * 4, response_with(a="b"))
    server.send(GET, "version")
    assert all(before < after * 2 for before, after in pairwise(waiting.waits))


@pytest.mark.parametrize(("said", "waited"), [("3", 3.0), ("30", 30.0), ("600", 30.0)])
def test_a_server_that_says_how_long_is_obeyed(said: str, waited: float) -> None:
    """Up to half a minute, and no longer than the patience lasts."""
    busy = ApiResponse(429, retry_after=said)
    server, _, waiting = met(busy, response_with(a="b"))
    server.send(GET, "version")
    assert waiting.waits == [waited]
    server, _, waiting = patient(busy)
    server.send(GET, "version")
    assert waiting.now == pytest.approx(5.0)


# --- what must hold


def test_what_must_hold_is_made_sure_of_whenever_something_is_asked() -> None:
    """Much may have changed while the server was away; then it is not asked any more."""
    held = [True, True]

    def require() -> None:
        if not held:
            raise RolloutLocked("the lock was lost", on="it", next="again")
        held.pop()

    server, wire, _ = met(no_response(), status(503), response_with(a="b"))
    with pytest.raises(RolloutLocked):
        server.send(ApiRequest(WRITE.method, WRITE.path, require=require), "configmaps")
    assert [call.method for call in wire.asked] == ["GET", "PATCH", "PATCH"]


# --- credentials and permissions


def test_credentials_that_were_never_accepted_are_not_tried_again() -> None:
    """They were loaded just now."""
    server, wire, waiting = patient(status(401))
    assert server.send(GET, "version").status == 401
    assert (wire.renewed, len(wire.asked), waiting.waits) == (0, 1, [])


def test_credentials_that_have_expired_are_loaded_again() -> None:
    """Once, and the same is asked again at once."""
    server, wire, waiting = met(status(401), response_with(a="b"))
    assert server.send(GET, "other").is_success
    assert (wire.renewed, waiting.waits) == (1, [])
    server, wire, _ = met(status(401))
    assert server.send(GET, "other").status == 401
    assert (wire.renewed, len(wire.asked)) == (1, 3)


@pytest.mark.parametrize("code", [401, 403])
def test_a_server_that_has_just_started_is_given_time_to_know_its_rules(code: int) -> None:
    """What it allowed before and refuses now is asked again for some seconds."""
    server, _, waiting = met(status(code), status(code), response_with(a="b"), about="get pods")
    assert server.send(GET, "get pods").is_success
    server, _, waiting = met(status(code), about="get pods")
    assert server.send(GET, "get pods").status == code
    assert waiting.now == pytest.approx(10.0)


def test_what_was_never_allowed_is_refused_at_once() -> None:
    """Permission for one thing says nothing of another, and a refusal is none."""
    server, _, waiting = met(status(403), about="get pods")
    for _ in range(2):
        assert server.send(GET, "list pods").status == 403
    assert waiting.waits == []


# --- races


def test_a_race_that_the_server_lost_is_run_again() -> None:
    """It asks for that when another writer, or its count of a quota, came between."""
    for call in (WRITE, MAKE):
        server, _, _ = patient(status(409, "Conflict"), response_with(a="b"))
        assert server.send(call, "configmaps").is_success
        server, _, waiting = patient(status(409, "Conflict"))
        assert server.send(call, "configmaps").status == 409
        assert waiting.now == pytest.approx(10.0)


def test_a_race_that_somebody_won_is_told_at_once() -> None:
    """A field's owner, an object's maker and a newer version stay."""
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
    for call, answer in (
        (WRITE, owned),
        (MAKE, status(409, "AlreadyExists")),
        (ApiRequest("PUT", WRITE.path), status(409, "Conflict")),
    ):
        server, _, waiting = patient(answer, response_with(a="b"))
        assert server.send(call, "configmaps").status == 409
        assert waiting.waits == []
