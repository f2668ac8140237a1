"""The errors of refusals of an API server, and of requests without a response."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace

import pytest
import urllib3
import yaml

from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.azure.identity import Principal
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
ACCOUNT = ClusterAccount(Principal("object", "ServicePrincipal", "app", "t"), "/resource/shop")
DEPLOYMENT = ResourceAttributes(("create", "patch"), "apps", "deployments", "shop", "web")


def test_refused_credentials_are_a_login_error() -> None:
    """The next step says how to log in again."""
    error = refusal_error(status(401, "Unauthorized"), DEPLOYMENT, CLUSTER)
    assert isinstance(error, ClusterLogin)
    assert error.on == CLUSTER
    assert "az aks get-credentials" in error.next
    assert "kubelogin" in error.next


def test_a_missing_permission_comes_with_the_rule_to_add() -> None:
    """The detail is YAML, and has exactly that rule."""
    message = 'deployments.apps "web" is forbidden: User "ann" cannot patch resource "deployments"'
    error = refusal_error(status(403, "Forbidden", message), DEPLOYMENT, CLUSTER, ("patch",))
    assert isinstance(error, ClusterForbidden)
    assert error.what == "this account may not patch deployments.apps in namespace shop"
    assert yaml.safe_load(error.detail) == [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}
    ]
    assert 'User "ann"' in error.detail
    assert "deploy/manifests/rbac.yaml" in error.next


def test_a_token_of_the_identity_that_is_not_accepted_says_whose_it_is() -> None:
    """The cluster may have no login by Entra, or trust another tenant; it may be revoked."""
    error = refusal_error(status(401, "Unauthorized"), DEPLOYMENT, CLUSTER, account=ACCOUNT)
    assert isinstance(error, ClusterLogin)
    assert error.what == "the API server does not accept the token of the identity on Azure"
    assert error.next.startswith("this is app of tenant t; ")
    assert "`az aks show --ids /resource/shop --query aadProfile`" in error.next
    assert "`az aks update --ids /resource/shop --enable-aad`" in error.next
    assert "another tenant has to be `tenant` in [azure]" in error.next
    assert "log in again" in error.next


def test_a_token_of_a_login_program_that_is_not_accepted_is_renewed_by_it() -> None:
    """The settings of the identity have no part in it."""
    account = replace(ACCOUNT, is_identity=False)
    error = refusal_error(status(401, "Unauthorized"), DEPLOYMENT, CLUSTER, account=account)
    assert "kubelogin" in error.next


@pytest.mark.parametrize("is_identity", [True, False])
def test_a_refusal_by_the_roles_of_azure_is_the_command_that_gives_one(is_identity: bool) -> None:
    """A cluster on AKS can leave its permissions to them; the command is filled in."""
    message = (
        'deployments.apps "web" is forbidden: User "o" cannot patch resource: User does not have '
        "access to the resource in Azure. Update role assignment to allow access."
    )
    refused = status(403, "Forbidden", message)
    account = replace(ACCOUNT, is_identity=is_identity)
    error = refusal_error(refused, DEPLOYMENT, CLUSTER, ("patch",), account)
    assert isinstance(error, ClusterForbidden)
    assert error.next.startswith(
        "`az role assignment create --assignee-object-id object --assignee-principal-type "
        'ServicePrincipal --role "Azure Kubernetes Service RBAC Writer" '
        "--scope /resource/shop/namespaces/shop`"
    )


def test_a_refusal_by_kubernetes_itself_is_the_binding_of_the_identity() -> None:
    """The API server knows it by its object id."""
    refused = status(403, "Forbidden", "no")
    error = refusal_error(refused, DEPLOYMENT, CLUSTER, ("patch",), ACCOUNT)
    assert "--role twinship-deployer --user object --namespace shop`" in error.next
    assert "az role assignment" not in error.next


def test_a_missing_permission_for_a_subresource() -> None:
    """The core is the empty group, and a subresource has its own rule."""
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


def test_a_refusal_by_a_quota_is_no_missing_permission() -> None:
    """What happened has the server's message, so that the history has it too."""
    error = refusal_error(
        status(403, "Forbidden", "exceeded quota: small, requested: pods=1"), DEPLOYMENT, CLUSTER
    )
    assert isinstance(error, ClusterRefused)
    assert error.what == (
        "the API server refused the request (403 Forbidden): "
        "exceeded quota: small, requested: pods=1"
    )
    assert "deployments.apps web, namespace shop" in error.on


def test_a_refusal_by_a_policy_names_the_policy() -> None:
    """The cause of a ValidatingAdmissionPolicy has no field, and lacks the policy's name."""
    message = (
        "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'limits' with binding "
        "'shop' denied request: set a CPU limit"
    )
    causes = [{"message": "set a CPU limit"}]
    error = refusal_error(status(422, "Invalid", message, causes=causes), DEPLOYMENT, CLUSTER)
    assert error.what.endswith(f"(422 Invalid): {message}")
    assert error.detail == ""


def test_a_missing_namespace() -> None:
    """The next step is the command that creates it."""
    error = refusal_error(
        status(404, "NotFound", 'namespaces "shop" not found', name="shop", kind="namespaces"),
        DEPLOYMENT,
        CLUSTER,
    )
    assert isinstance(error, NamespaceMissing)
    assert "kubectl create namespace shop" in error.next


def test_a_conflict_names_every_field_and_its_owner() -> None:
    """Each field has a line; the next step takes the fields over."""
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
    ("response", "what", "reason"),
    [
        (
            status(
                422,
                "Invalid",
                "much",
                causes=[{"field": "spec.selector", "message": "is immutable"}, {"field": "spec.x"}],
            ),
            "refused",
            ": spec.selector: is immutable",
        ),
        (
            status(400, "BadRequest", "cannot be handled\nas a Pod"),
            "refused",
            ": cannot be handled as a Pod",
        ),
        (ApiResponse(413, "too large"), "refused", ": too large"),
        (ApiResponse(302), "refused", "(302)"),
        (
            status(409, "Conflict", "the object has been modified"),
            "refused",
            ": the object has been modified",
        ),
        (
            status(404, "NotFound", 'configmaps "one" not found', name="one", kind="configmaps"),
            "refused",
            ': configmaps "one" not found',
        ),
        (ApiResponse(404, "404 page not found"), "does not know this kind", ": 404 page not found"),
        (
            status(500, "InternalError", "failed calling webhook"),
            "kept failing",
            ": failed calling webhook",
        ),
        (status(429, "TooManyRequests"), "kept failing", "(429 TooManyRequests)"),
    ],
)
def test_other_refusals_have_what_the_server_reported(
    response: ApiResponse, what: str, reason: str
) -> None:
    """This is the first cause of a field, or else the message, or else the body."""
    error = refusal_error(response, DEPLOYMENT, CLUSTER)
    assert isinstance(error, ClusterRefused)
    assert what in error.what
    assert str(response.status) in error.what
    assert error.what.endswith(reason)
    assert error.detail == ""


def test_several_invalid_fields_are_listed() -> None:
    """The first of them is the reason."""
    causes = [{"field": f"spec.{name}", "message": "is wrong"} for name in ("a", "b")]
    error = refusal_error(status(422, "Invalid", causes=causes), DEPLOYMENT, CLUSTER)
    assert error.what.endswith("(422 Invalid): spec.a: is wrong")
    assert error.detail == "  spec.a: is wrong\n  spec.b: is wrong"


def test_another_server_at_the_address_is_named() -> None:
    """It is not the API server that answers."""
    assert CLUSTER in not_an_api_server_error(CLUSTER).on


# --- no response


def raised_from(outer: BaseException, inner: BaseException) -> BaseException:
    """Return an error that was raised while another one was handled."""
    try:
        try:
            raise inner
        except type(inner):
            raise outer  # noqa: B904 - as libraries do it
    except type(outer) as error:
        return error


def openssl(reason: str) -> ssl.SSLError:
    """Return an error of OpenSSL."""
    error = ssl.SSLError(1, f"[SSL: {reason}] words (_ssl.c:1)")
    error.reason = reason
    return error


def error_of(error: BaseException) -> tuple[ClusterError, bool]:
    """Return the error of such a failure, and whether it is transient."""
    result, transient = no_response_error(error, CLUSTER)
    assert result.on == CLUSTER
    return result, transient


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            raised_from(
                urllib3.exceptions.HTTPError("words"),
                ConnectionRefusedError(111, "Connection refused"),
            ),
            "Connection refused",
        ),
        (
            raised_from(
                urllib3.exceptions.HTTPError("words"),
                socket.gaierror(-2, "Name or service not known"),
            ),
            "Name or service not known",
        ),
        (
            raised_from(
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
            raised_from(
                OSError(5, "Input/output error"), ConnectionRefusedError(111, "Connection refused")
            ),
            "Connection refused",
        ),
        (
            raised_from(
                urllib3.exceptions.HTTPError("words"), TimeoutError(110, "Connection timed out")
            ),
            "timed out",
        ),
        (
            raised_from(
                urllib3.exceptions.SSLError("words"),
                ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
            ),
            "EOF occurred",
        ),
        (urllib3.exceptions.ProtocolError("secret words"), "ProtocolError"),
    ],
)
def test_no_response_is_transient(error: BaseException, why: str) -> None:
    """The innermost reason is reported, without the library's message, which has addresses."""
    result, transient = error_of(error)
    assert isinstance(result, ClusterUnreachable)
    assert why in result.what
    assert "words" not in result.what
    assert transient


def test_an_untrusted_certificate_is_permanent() -> None:
    """The error has the reason of the TLS library."""
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed")
    inner.verify_message = "self-signed certificate in certificate chain"
    result, transient = error_of(
        raised_from(Exception("words"), urllib3.exceptions.SSLError(inner))
    )
    assert isinstance(result, ClusterUnreachable)
    assert "not trusted (self-signed certificate in certificate chain)" in result.what
    assert not transient


@pytest.mark.parametrize(
    "reason",
    [
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_ACCESS_DENIED",
    ],
)
def test_a_refused_client_certificate_is_a_login_error(reason: str) -> None:
    """In most cases it has expired."""
    result, transient = error_of(urllib3.exceptions.SSLError(openssl(reason)))
    assert isinstance(result, ClusterLogin)
    assert reason in result.what
    assert not transient


@pytest.mark.parametrize(
    "reason", ["WRONG_VERSION_NUMBER", "TLSV1_ALERT_PROTOCOL_VERSION", "CERTIFICATE_VERIFY_FAILED"]
)
def test_other_failures_of_tls_are_no_login_error(reason: str) -> None:
    """The server at that address has other settings of TLS."""
    result, transient = error_of(urllib3.exceptions.SSLError(openssl(reason)))
    assert isinstance(result, ClusterUnreachable)
    assert reason in result.what
    assert not transient


def test_a_request_that_cannot_be_sent_is_permanent() -> None:
    """The message is not shown: it may contain the token."""
    result, transient = error_of(ValueError("Invalid header value b'Bearer open-sesame'"))
    assert "sesame" not in str(result)
    assert not transient
