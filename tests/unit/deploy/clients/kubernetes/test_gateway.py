"""Asking an application through the API server: whose answer it is, and what becomes of the server's own."""

from __future__ import annotations

import pytest
import yaml

from deploy.clients.http import Endpoint, NoResponse, Request, Response
from deploy.clients.kubernetes.client import KubeCluster
from deploy.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterLogin,
    ClusterRefused,
    ClusterUnreachable,
)
from tests.fakes.transport import (
    NAME,
    FakeTime,
    FakeTransport,
    Outcome,
    no_response,
    response_with,
    review,
    status,
)
from tests.fakes.ways import Led

RIGHT = Response(200, b"3")
VERSION = response_with(gitVersion="v1.33.1")


def own(code: int, reason: str = "", message: str = "") -> Response:
    """What the API server says in its own name."""
    return Response(code, status(code, reason, message).text.encode())


class Place:
    """A namespace of a cluster that has answered once, and a pod in it.

    Args:
        outcomes: what the API server says to questions of its own, after that.
    """

    def __init__(self, *outcomes: Outcome) -> None:
        self.waiting = FakeTime()
        self.wire = FakeTransport([VERSION, *outcomes])
        self.cluster = KubeCluster(self.wire, "shop", self.waiting.retry_policy())
        self.cluster.version()
        self.endpoint = self.cluster.endpoint("Pod", "web-1", 8080)

    def asks(
        self,
        led: Led,
        method: str = "GET",
        *,
        insist: bool = True,
        endpoint: Endpoint | None = None,
    ) -> Response:
        """What is answered there."""
        gateway = (endpoint or self.endpoint).gateway
        assert gateway
        return gateway.forward(led, Request("/score", 5.0, 100, method, retry_gateway=insist))


@pytest.mark.parametrize(
    "reply",
    [
        RIGHT,
        Response(401, b"who is that?"),
        Response(403, b'{"kind": "Forbidden"}'),
        Response(404, status(404, "NotFound").text.encode()),
        Response(429, b'{"kind": "Status"}'),
        Response(500, b'{"kind": "Status", "apiVersion": "metrics/v1"}'),
        Response(503, b"<html>"),
        Response(503, b"[" * 100_000),
        Response(503, b'["Status", "v1"]'),
        Response(503, b"\xff\xfe"),
        Response(200, status(500).text.encode()),
    ],
)
@pytest.mark.parametrize("insist", [True, False])
def test_the_answer_of_an_application_is_believed_at_once(reply: Response, insist: bool) -> None:
    """Its failures, too: they are what a proof is to find."""
    place = Place()
    led = Led([reply])
    assert place.asks(led, insist=insist) == reply
    assert (len(led.asked), place.waiting.waits) == (1, [])


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_an_api_server_that_fails_is_waited_for(code: int) -> None:
    """Then the application is asked again, and its answer counts alone."""
    place = Place()
    led = Led([own(code), own(code), RIGHT])
    assert place.asks(led) == RIGHT
    assert (len(led.asked), len(place.waiting.waits)) == (3, 2)


def test_an_api_server_may_say_when_to_ask_again() -> None:
    """As one with too much to do does."""
    place = Place()
    busy = own(429, "TooManyRequests")
    assert place.asks(Led([Response(429, busy.content, retry_after="7"), RIGHT])) == RIGHT
    assert place.waiting.waits == [7.0]


def test_an_api_server_that_goes_on_failing_is_no_wrong_answer() -> None:
    """After a minute and a half it is told what it said."""
    place = Place()
    with pytest.raises(ClusterRefused, match="the API server kept failing") as caught:
        place.asks(Led([own(500, "InternalError", "etcd is away")]))
    assert place.waiting.now == pytest.approx(90)
    assert "pods/proxy web-1" in caught.value.on
    assert "etcd is away" in caught.value.detail


def test_an_application_that_nobody_reaches_has_given_no_right_answer() -> None:
    """In the end it is not there; this is waited for once, not with every question, until it is reached again."""
    place = Place()
    missing = own(503, "ServiceUnavailable", "connection refused")
    assert place.asks(Led([missing])) == missing
    assert place.waiting.now == pytest.approx(90)
    led = Led([missing, RIGHT])
    assert place.asks(led) == missing
    assert place.waiting.now == pytest.approx(90)
    assert place.asks(led) == RIGHT
    assert place.asks(Led([missing, RIGHT])) == RIGHT


# --- an account that is not let in


@pytest.mark.parametrize(
    ("method", "verb"), [("GET", "get"), ("POST", "create"), ("PUT", "update")]
)
@pytest.mark.parametrize(("kind", "plural"), [("Pod", "pods"), ("Service", "services")])
def test_an_account_without_the_right_is_told_the_rule(
    method: str, verb: str, kind: str, plural: str
) -> None:
    """At once, as for any other right."""
    place = Place(review(allowed=False))
    endpoint = place.cluster.endpoint(kind, "web", 80)
    with pytest.raises(ClusterForbidden) as caught:
        place.asks(Led([own(403, "Forbidden", "no")]), method, endpoint=endpoint)
    assert caught.value.what == f"this account may not {verb} {plural}/proxy in namespace shop"
    assert yaml.safe_load(caught.value.detail) == [
        {"apiGroups": [""], "resources": [f"{plural}/proxy"], "verbs": [verb]}
    ]
    assert (caught.value.on, place.waiting.waits) == (NAME, [])


def test_metrics_need_the_right_as_well() -> None:
    """That they are not insisted on makes no difference."""
    with pytest.raises(ClusterForbidden):
        Place(review(allowed=False)).asks(Led([own(403, "Forbidden")]), insist=False)


def test_what_was_allowed_before_is_not_refused_at_once() -> None:
    """An API server that has just started does not know its rules yet."""
    place = Place(review(allowed=False))
    place.asks(Led([RIGHT]))
    assert place.asks(Led([own(403, "Forbidden"), own(403, "Forbidden"), RIGHT])) == RIGHT
    began = place.waiting.now
    with pytest.raises(ClusterForbidden):
        place.asks(Led([own(403, "Forbidden")]))
    assert place.waiting.now - began == pytest.approx(10)


def test_a_policy_that_forbids_it_is_no_missing_right() -> None:
    """What it says is told."""
    with pytest.raises(ClusterRefused) as caught:
        Place(review(allowed=True)).asks(Led([own(403, "Forbidden", "not on Sundays")]))
    assert "not on Sundays" in caught.value.detail


def test_credentials_that_have_expired_are_renewed() -> None:
    """It is asked again with the new ones; where these are refused, too, that is told."""
    place = Place()
    led = Led([own(401, "Unauthorized"), RIGHT])
    assert place.asks(led) == RIGHT
    assert [endpoint.headers["Authorization"] for endpoint, _ in led.asked] == [
        "Bearer 0",
        "Bearer 1",
    ]
    with pytest.raises(ClusterLogin):
        Place().asks(Led([own(401, "Unauthorized")]))


# --- silence


def test_an_api_server_that_is_away_is_waited_for() -> None:
    """It is asked whether it is back, and only then the application again."""
    place = Place(no_response(), no_response(), VERSION)
    led = Led(["ConnectionError", RIGHT])
    assert place.asks(led) == RIGHT
    assert len(led.asked) == 2
    assert [call.path for call in place.wire.requests] == ["/version"] * 4


def test_an_api_server_that_stays_away_is_no_wrong_answer() -> None:
    """That it is away is told."""
    place = Place(no_response())
    led = Led(["ConnectionError"])
    with pytest.raises(ClusterUnreachable):
        place.asks(led)
    assert place.waiting.now == pytest.approx(90)
    assert len(led.asked) == 1


@pytest.mark.parametrize("answer", [VERSION, status(404, "NotFound")])
def test_an_application_that_says_nothing_has_not_answered(answer: Outcome) -> None:
    """The API server is there, whatever it says: what stays silent then is behind it, and nobody waits for that."""
    place = Place(answer)
    led = Led(["ReadTimeout"])
    with pytest.raises(NoResponse, match="ReadTimeout"):
        place.asks(led)
    assert (len(led.asked), place.waiting.waits) == (2, [])


# --- what is not insisted on


@pytest.mark.parametrize("code", [429, 500, 501, 503])
def test_what_is_not_insisted_on_is_asked_once(code: int) -> None:
    """Whoever asks can do without an answer now."""
    place = Place()
    led = Led([own(code)])
    assert place.asks(led, insist=False) == own(code)
    with pytest.raises(NoResponse):
        place.asks(Led(["ConnectionError"]), insist=False)
    assert (len(led.asked), len(place.wire.requests), place.waiting.waits) == (1, 1, [])


def test_what_cannot_be_done_is_told_as_everywhere() -> None:
    """A status that waiting does not mend is told at once."""
    place = Place()
    with pytest.raises(ClusterError):
        place.asks(Led([own(501, "NotImplemented")]))
    assert place.waiting.waits == []
