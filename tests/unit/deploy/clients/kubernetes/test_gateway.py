"""Requests to an application through the API server, and the server's own responses."""

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
from tests.fakes.endpoints import ScriptedSender
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

RIGHT = Response(200, b"3")
VERSION = response_with(gitVersion="v1.33.1")


def own_response(status_code: int, reason: str = "", message: str = "") -> Response:
    """Return a response of the API server itself."""
    return Response(status_code, status(status_code, reason, message).text.encode())


class Namespace:
    """A namespace of a cluster that has answered once, and a pod in it.

    Args:
        outcomes: the outcomes of later requests to the API server itself.
    """

    def __init__(self, *outcomes: Outcome) -> None:
        self.clock = FakeTime()
        self.transport = FakeTransport([VERSION, *outcomes])
        self.cluster = KubeCluster(self.transport, "shop", self.clock.retry_policy())
        self.cluster.version()
        self.endpoint = self.cluster.endpoint("Pod", "web-1", 8080)

    def send(
        self,
        application: ScriptedSender,
        method: str = "GET",
        *,
        retry: bool = True,
        endpoint: Endpoint | None = None,
    ) -> Response:
        """Return the response of the pod."""
        gateway = (endpoint or self.endpoint).gateway
        assert gateway
        return gateway.forward(
            application, Request("/score", 5.0, 100, method, retry_gateway=retry)
        )


@pytest.mark.parametrize(
    "response",
    [
        RIGHT,
        Response(401, b"unknown user"),
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
@pytest.mark.parametrize("retry", [True, False])
def test_a_response_of_the_application_is_returned_at_once(response: Response, retry: bool) -> None:
    """This includes its failures, which golden cases find."""
    namespace = Namespace()
    application = ScriptedSender([response])
    assert namespace.send(application, retry=retry) == response
    assert (len(application.asked), namespace.clock.waits) == (1, [])


@pytest.mark.parametrize("status_code", [429, 500, 502, 503, 504])
def test_a_failing_api_server_is_retried(status_code: int) -> None:
    """Only the response of the application counts."""
    namespace = Namespace()
    application = ScriptedSender([own_response(status_code), own_response(status_code), RIGHT])
    assert namespace.send(application) == RIGHT
    assert (len(application.asked), len(namespace.clock.waits)) == (3, 2)


def test_retry_after_of_the_api_server_is_obeyed() -> None:
    """A busy server sends the header."""
    namespace = Namespace()
    response = own_response(429, "TooManyRequests")
    assert (
        namespace.send(ScriptedSender([Response(429, response.content, retry_after="7"), RIGHT]))
        == RIGHT
    )
    assert namespace.clock.waits == [7.0]


def test_an_api_server_that_keeps_failing_is_an_error_of_the_cluster() -> None:
    """After ninety seconds the error has what the server reported."""
    namespace = Namespace()
    with pytest.raises(ClusterRefused, match="the API server kept failing") as caught:
        namespace.send(ScriptedSender([own_response(500, "InternalError", "etcd is away")]))
    assert namespace.clock.now == pytest.approx(90)
    assert "pods/proxy web-1" in caught.value.on
    assert "etcd is away" in caught.value.what


def test_an_unreachable_application_is_waited_for_once() -> None:
    """Later requests do not wait again until the application has answered."""
    namespace = Namespace()
    missing = own_response(503, "ServiceUnavailable", "connection refused")
    assert namespace.send(ScriptedSender([missing])) == missing
    assert namespace.clock.now == pytest.approx(90)
    application = ScriptedSender([missing, RIGHT])
    assert namespace.send(application) == missing
    assert namespace.clock.now == pytest.approx(90)
    assert namespace.send(application) == RIGHT
    assert namespace.send(ScriptedSender([missing, RIGHT])) == RIGHT


# --- permissions and credentials


@pytest.mark.parametrize(
    ("method", "verb"), [("GET", "get"), ("POST", "create"), ("PUT", "update")]
)
@pytest.mark.parametrize(("kind", "plural"), [("Pod", "pods"), ("Service", "services")])
def test_an_account_without_permission_gets_the_rule_to_add(
    method: str, verb: str, kind: str, plural: str
) -> None:
    """The error comes without a wait."""
    namespace = Namespace(review(allowed=False))
    endpoint = namespace.cluster.endpoint(kind, "web", 80)
    with pytest.raises(ClusterForbidden) as caught:
        namespace.send(
            ScriptedSender([own_response(403, "Forbidden", "no")]), method, endpoint=endpoint
        )
    assert caught.value.what == f"this account may not {verb} {plural}/proxy in namespace shop"
    assert yaml.safe_load(caught.value.detail) == [
        {"apiGroups": [""], "resources": [f"{plural}/proxy"], "verbs": [verb]}
    ]
    assert (caught.value.on, namespace.clock.waits) == (NAME, [])


def test_metrics_need_the_same_permission() -> None:
    """Requests without retries make no difference."""
    with pytest.raises(ClusterForbidden):
        Namespace(review(allowed=False)).send(
            ScriptedSender([own_response(403, "Forbidden")]), retry=False
        )


def test_a_refusal_of_what_was_allowed_before_is_retried() -> None:
    """An API server that has just started does not know its rules yet."""
    namespace = Namespace(review(allowed=False))
    namespace.send(ScriptedSender([RIGHT]))
    assert (
        namespace.send(
            ScriptedSender([own_response(403, "Forbidden"), own_response(403, "Forbidden"), RIGHT])
        )
        == RIGHT
    )
    start = namespace.clock.now
    with pytest.raises(ClusterForbidden):
        namespace.send(ScriptedSender([own_response(403, "Forbidden")]))
    assert namespace.clock.now - start == pytest.approx(10)


def test_a_refusal_by_a_policy_is_no_missing_permission() -> None:
    """The error has the message of the policy."""
    with pytest.raises(ClusterRefused) as caught:
        Namespace(review(allowed=True)).send(
            ScriptedSender([own_response(403, "Forbidden", "not on Sundays")])
        )
    assert "not on Sundays" in caught.value.what


def test_expired_credentials_are_renewed() -> None:
    """If the server refuses the new ones too, the error says so."""
    namespace = Namespace()
    application = ScriptedSender([own_response(401, "Unauthorized"), RIGHT])
    assert namespace.send(application) == RIGHT
    assert [endpoint.headers["Authorization"] for endpoint, _ in application.asked] == [
        "Bearer 0",
        "Bearer 1",
    ]
    with pytest.raises(ClusterLogin):
        Namespace().send(ScriptedSender([own_response(401, "Unauthorized")]))


# --- no response


def test_an_api_server_that_is_away_is_waited_for() -> None:
    """The application gets the request again only after the server has answered."""
    namespace = Namespace(no_response(), no_response(), VERSION)
    application = ScriptedSender(["ConnectionError", RIGHT])
    assert namespace.send(application) == RIGHT
    assert len(application.asked) == 2
    assert [call.path for call in namespace.transport.requests] == ["/version"] * 4


def test_an_api_server_that_stays_away_is_an_error_of_the_cluster() -> None:
    """The error says that it cannot be reached."""
    namespace = Namespace(no_response())
    application = ScriptedSender(["ConnectionError"])
    with pytest.raises(ClusterUnreachable):
        namespace.send(application)
    assert namespace.clock.now == pytest.approx(90)
    assert len(application.asked) == 1


@pytest.mark.parametrize("answer", [VERSION, status(404, "NotFound")])
def test_a_silent_application_has_not_answered(answer: Outcome) -> None:
    """The API server answers, whatever its status, so that there is no reason to wait."""
    namespace = Namespace(answer)
    application = ScriptedSender(["ReadTimeout"])
    with pytest.raises(NoResponse, match="ReadTimeout"):
        namespace.send(application)
    assert (len(application.asked), namespace.clock.waits) == (2, [])


# --- requests without retries


@pytest.mark.parametrize("status_code", [429, 500, 501, 503])
def test_a_request_without_retries_is_sent_once(status_code: int) -> None:
    """The caller can do without a response."""
    namespace = Namespace()
    application = ScriptedSender([own_response(status_code)])
    assert namespace.send(application, retry=False) == own_response(status_code)
    with pytest.raises(NoResponse):
        namespace.send(ScriptedSender(["ConnectionError"]), retry=False)
    assert (len(application.asked), len(namespace.transport.requests), namespace.clock.waits) == (
        1,
        1,
        [],
    )


def test_a_permanent_status_is_an_error_at_once() -> None:
    """A wait does not help."""
    namespace = Namespace()
    with pytest.raises(ClusterError):
        namespace.send(ScriptedSender([own_response(501, "NotImplemented")]))
    assert namespace.clock.waits == []
