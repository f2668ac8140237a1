"""How the refusals of an API server, and its silence, are told."""

from __future__ import annotations

import socket
import ssl

import pytest
import urllib3
import yaml

from deploy.clients.kubernetes.errors import (
    ResourceAttributes,
    no_response_error,
    not_an_api_server_error,
    refusal_error,
)
from deploy.clients.kubernetes.transport import ApiResponse
from deploy.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterLogin,
    ClusterRefused,
    ClusterUnreachable,
    FieldConflict,
    NamespaceMissing,
)
from tests.fakes.transport import status

CLUSTER = "shop at https://api.example"
DEPLOYMENT = ResourceAttributes(("create", "patch"), "apps", "deployments", "shop", "web")


def test_credentials_that_are_not_accepted() -> None:
    """It is told how to log in again."""
    error = refusal_error(status(401, "Unauthorized"), DEPLOYMENT, CLUSTER)
    assert isinstance(error, ClusterLogin)
    assert error.on == CLUSTER
    assert "az aks get-credentials" in error.next
    assert "kubelogin" in error.next


def test_a_permission_that_is_missing_comes_with_the_rule_that_gives_it() -> None:
    """The detail is YAML, and holds exactly that rule."""
    message = 'deployments.apps "web" is forbidden: User "ann" cannot patch resource "deployments"'
    error = refusal_error(status(403, "Forbidden", message), DEPLOYMENT, CLUSTER, ("patch",))
    assert isinstance(error, ClusterForbidden)
    assert error.what == "this account may not patch deployments.apps in namespace shop"
    assert yaml.safe_load(error.detail) == [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}
    ]
    assert 'User "ann"' in error.detail
    assert "deploy/manifests/rbac.yaml" in error.next


def test_a_permission_for_a_part_of_the_core() -> None:
    """The core is the empty group, and a part has its own rule."""
    error = refusal_error(
        status(403),
        ResourceAttributes(("get", "list"), "", "pods/log", "shop"),
        CLUSTER,
        ("get", "list"),
    )
    assert error.what == "this account may not get or list pods/log in namespace shop"
    assert yaml.safe_load(error.detail) == [
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get", "list"]}
    ]


def test_what_a_quota_or_a_policy_forbids_is_no_lack_of_permission() -> None:
    """The server's own words say which."""
    error = refusal_error(
        status(403, "Forbidden", "exceeded quota: small, requested: pods=1"), DEPLOYMENT, CLUSTER
    )
    assert isinstance(error, ClusterRefused)
    assert "exceeded quota: small" in error.detail
    assert "deployments.apps web, namespace shop" in error.on
    assert "403 Forbidden" in error.what


def test_a_missing_namespace() -> None:
    """It is told how to make it."""
    error = refusal_error(
        status(404, "NotFound", 'namespaces "shop" not found', name="shop", kind="namespaces"),
        DEPLOYMENT,
        CLUSTER,
    )
    assert isinstance(error, NamespaceMissing)
    assert "kubectl create namespace shop" in error.next


def test_a_conflict_names_every_field_and_its_owner() -> None:
    """One line a field; who wants it can take it over."""
    causes = [
        {
            "reason": "FieldManagerConflict",
            "field": ".spec.replicas",
            "message": 'conflict with "autoscaler" using apps/v1',
        },
        {
            "reason": "FieldManagerConflict",
            "field": ".spec.paused",
            "message": 'conflict with "kubectl" using apps/v1',
        },
    ]
    error = refusal_error(status(409, "Conflict", causes=causes), DEPLOYMENT, CLUSTER)
    assert isinstance(error, FieldConflict)
    assert dict(error.owners) == {"spec.replicas": "autoscaler", "spec.paused": "kubectl"}
    assert [line.strip() for line in error.detail.splitlines()] == [
        "spec.replicas: autoscaler",
        "spec.paused: kubectl",
    ]
    assert "autoscaler and kubectl" in error.what
    assert "--force-conflicts" in error.next


@pytest.mark.parametrize(
    ("answer", "what", "detail"),
    [
        (
            status(
                422,
                "Invalid",
                "much",
                causes=[{"field": "spec.selector", "message": "is immutable"}, {"field": "spec.x"}],
            ),
            "refused",
            "  spec.selector: is immutable",
        ),
        (
            status(400, "BadRequest", "cannot be handled\nas a Pod"),
            "refused",
            "  cannot be handled as a Pod",
        ),
        (ApiResponse(413, "too large"), "refused", "  too large"),
        (ApiResponse(302), "refused", ""),
        (
            status(409, "Conflict", "the object has been modified"),
            "refused",
            "  the object has been modified",
        ),
        (
            status(404, "NotFound", 'configmaps "one" not found', name="one", kind="configmaps"),
            "refused",
            '  configmaps "one" not found',
        ),
        (ApiResponse(404, "404 page not found"), "does not know this kind", "  404 page not found"),
        (
            status(500, "InternalError", "failed calling webhook"),
            "kept failing",
            "  failed calling webhook",
        ),
        (status(429, "TooManyRequests"), "kept failing", ""),
    ],
)
def test_other_refusals_say_what_the_server_said(
    answer: ApiResponse, what: str, detail: str
) -> None:
    """Single reasons where it gives them, else its message, else its words."""
    error = refusal_error(answer, DEPLOYMENT, CLUSTER)
    assert isinstance(error, ClusterRefused)
    assert what in error.what
    assert str(answer.status) in error.what
    if detail:
        assert error.detail.splitlines()[0] == detail


def test_what_is_no_api_server_is_told_as_such() -> None:
    """Something else answers at that address."""
    assert CLUSTER in not_an_api_server_error(CLUSTER).on


# --- no answer


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    """An error that was raised while another one was handled."""
    try:
        try:
            raise inner
        except type(inner):
            raise outer  # noqa: B904 - as libraries do it
    except type(outer) as error:
        return error


def openssl(reason: str) -> ssl.SSLError:
    """An error of OpenSSL."""
    error = ssl.SSLError(1, f"[SSL: {reason}] words (_ssl.c:1)")
    error.reason = reason
    return error


def told(error: BaseException) -> tuple[ClusterError, bool]:
    """What is told of such an error, and whether it may pass."""
    found, passing = no_response_error(error, CLUSTER)
    assert found.on == CLUSTER
    return found, passing


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            caused(
                urllib3.exceptions.HTTPError("words"),
                ConnectionRefusedError(111, "Connection refused"),
            ),
            "Connection refused",
        ),
        (
            caused(
                urllib3.exceptions.HTTPError("words"),
                socket.gaierror(-2, "Name or service not known"),
            ),
            "Name or service not known",
        ),
        (
            caused(
                urllib3.exceptions.ProtocolError("words"),
                ConnectionResetError(104, "Connection reset by peer"),
            ),
            "Connection reset by peer",
        ),
        (
            urllib3.exceptions.ProtocolError(
                "Connection aborted.", ConnectionResetError(104, "reset")
            ),
            "reset",
        ),
        (
            urllib3.exceptions.ReadTimeoutError(
                urllib3.HTTPConnectionPool("api.example"), "/", "words"
            ),
            "timed out",
        ),
        (
            caused(
                OSError(5, "Input/output error"), ConnectionRefusedError(111, "Connection refused")
            ),
            "Connection refused",
        ),
        (
            caused(
                urllib3.exceptions.HTTPError("words"), TimeoutError(110, "Connection timed out")
            ),
            "timed out",
        ),
        (
            caused(
                urllib3.exceptions.SSLError("words"),
                ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
            ),
            "EOF occurred",
        ),
        (urllib3.exceptions.ProtocolError("secret words"), "ProtocolError"),
    ],
)
def test_silence_may_pass(error: BaseException, why: str) -> None:
    """The innermost reason is told, without the words of libraries, which hold addresses."""
    found, passing = told(error)
    assert isinstance(found, ClusterUnreachable)
    assert why in found.what
    assert "words" not in found.what
    assert passing


def test_a_certificate_that_is_not_trusted() -> None:
    """It will not be later either, and it is told where trust comes from."""
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed")
    inner.verify_message = "self-signed certificate in certificate chain"
    found, passing = told(caused(Exception("words"), urllib3.exceptions.SSLError(inner)))
    assert isinstance(found, ClusterUnreachable)
    assert "not trusted (self-signed certificate in certificate chain)" in found.what
    assert not passing


@pytest.mark.parametrize(
    "reason",
    [
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_ACCESS_DENIED",
    ],
)
def test_a_client_certificate_that_is_turned_down_is_a_login(reason: str) -> None:
    """An expired one most often."""
    found, passing = told(urllib3.exceptions.SSLError(openssl(reason)))
    assert isinstance(found, ClusterLogin)
    assert reason in found.what
    assert not passing


@pytest.mark.parametrize(
    "reason", ["WRONG_VERSION_NUMBER", "TLSV1_ALERT_PROTOCOL_VERSION", "CERTIFICATE_VERIFY_FAILED"]
)
def test_other_failures_of_tls_are_no_login(reason: str) -> None:
    """Something at that address speaks otherwise."""
    found, passing = told(urllib3.exceptions.SSLError(openssl(reason)))
    assert isinstance(found, ClusterUnreachable)
    assert reason in found.what
    assert not passing


def test_what_cannot_even_be_sent_will_not_pass() -> None:
    """And its words are not told: it may be the token."""
    found, passing = told(ValueError("Invalid header value b'Bearer open-sesame'"))
    assert "sesame" not in str(found)
    assert not passing
