"""The errors of an API server in this project's terms.

Decisions depend on statuses, reasons and types, never on messages.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.clients.azure.cluster_account import ClusterAccount
from deploy.clients.causes import causes
from deploy.clients.kubernetes.transport import ApiResponse, one_line
from deploy.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterLogin,
    ClusterRefused,
    ClusterUnreachable,
    FieldConflict,
    NamespaceMissing,
)

LOG_IN = (
    "log in again (`az login`, `kubelogin`), or write the kubeconfig again "
    "(on AKS: `az aks get-credentials`)"
)
_TAKE_OVER = (
    "let that owner give the fields up, or take them over with "
    "`invoke render --env E | kubectl apply --server-side "
    "--field-manager=twinship --force-conflicts -f -`"
)
_ROLE = (
    "add the rule to the Role of this account; "
    "deploy/manifests/rbac.yaml has all that a release needs"
)
# The one mark of a refusal by the roles of Azure: AKS has no code for it.
_BY_AZURE = "User does not have access to the resource in Azure"
_IN_ITS_NETWORK = (
    "run this inside the cluster's network or one that is peered with it: on a runner or an "
    "agent of your own there; its private DNS zone has to be linked to that network"
)
# OpenSSL's names of the alerts by which a server refuses a client certificate.
_REFUSED_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR")


@dataclass(frozen=True)
class ResourceAttributes:
    """What a request is about, in the terms of a Role.

    Attributes:
        verbs: those that the request needs: get, list, create, update, patch, delete.
        group: the API group; empty for the core.
        plural: the collection, with a subresource if it is meant: `pods/log`.
        namespace: the namespace.
        name: the object's name; empty if the request names none.
    """

    verbs: tuple[str, ...]
    group: str
    plural: str
    namespace: str
    name: str = ""

    @property
    def resource(self) -> str:
        """The collection with its group, as kubectl writes it: `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def refusal_error(
    response: ApiResponse,
    resource: ResourceAttributes,
    cluster: str,
    lacking: Sequence[str] = (),
    account: ClusterAccount | None = None,
) -> ClusterError:
    """Return the error of a response that is no success.

    Args:
        response: the response.
        resource: what the request was about.
        cluster: the cluster's name for people.
        lacking: the verbs of the request that no role gives to this account.
        account: whose token of Azure was sent; None if it was none.
    """
    if response.status == 401:
        return _login_error(cluster, account)
    if response.status == 403 and lacking:
        advice = _rights_advice(response, resource.namespace, account)
        return _forbidden_error(response, resource, cluster, lacking, advice)
    namespace = resource.namespace
    if response.lacks_namespace:
        return NamespaceMissing(
            f"there is no namespace {namespace}",
            on=cluster,
            next=f"`kubectl create namespace {namespace}`, "
            "or name another in the environment's settings",
        )
    on = f"{resource.resource} {resource.name}".strip() + f", namespace {namespace}, {cluster}"
    if response.status == 409 and response.conflicts:
        return _conflict_error(response.conflicts, on)
    return _refused_error(response, on)


def _login_error(cluster: str, account: ClusterAccount | None) -> ClusterLogin:
    if account and account.is_identity:
        return ClusterLogin(
            "the API server does not accept the token of the identity on Azure",
            on=cluster,
            next=account.login_advice(),
        )
    return ClusterLogin(
        "the API server does not accept the credentials, or they have expired",
        on=cluster,
        next=LOG_IN,
    )


def _rights_advice(response: ApiResponse, namespace: str, account: ClusterAccount | None) -> str:
    """Return what gives an account the rights that it lacks."""
    if account and _BY_AZURE in response.message:
        return f"{account.assignment(namespace)}; a new role counts after some minutes"
    if account and account.is_identity:
        return f"{account.binding(namespace)}; or {_ROLE}"
    return _ROLE


def _forbidden_error(
    response: ApiResponse,
    resource: ResourceAttributes,
    cluster: str,
    lacking: Sequence[str],
    advice: str,
) -> ClusterForbidden:
    verbs = ", ".join(f'"{verb}"' for verb in lacking)
    lines = [f"# {response.message}"] if response.message else []
    lines += [
        f'- apiGroups: ["{resource.group}"]',
        f'  resources: ["{resource.plural}"]',
        f"  verbs: [{verbs}]",
    ]
    return ClusterForbidden(
        f"this account may not {' or '.join(lacking)} {resource.resource} "
        f"in namespace {resource.namespace}",
        on=cluster,
        next=advice,
        detail="\n".join(lines),
    )


def _conflict_error(owners: dict[str, str], on: str) -> FieldConflict:
    names = " and ".join(dict.fromkeys(owners.values()))
    detail = "\n".join(f"  {field}: {owner}" for field, owner in owners.items())
    error = FieldConflict(
        f"fields that a release sets are owned by {names}", on=on, next=_TAKE_OVER, detail=detail
    )
    error.owners = owners
    return error


def _refused_error(response: ApiResponse, on: str) -> ClusterRefused:
    status = f"{response.status} {response.reason}".strip()
    if response.status == 404 and "name" not in response.details:
        what = f"the API server does not know this kind of object ({status})"
        cure = "see `kubectl api-resources`; the cluster may be too old"
    elif response.status == 429 or response.status >= 500:
        what = f"the API server kept failing ({status})"
        cure = "run the command again; if it fails again, read the server's log and its webhooks'"
    else:
        what = f"the API server refused the request ({status})"
        cure = "fix what it names: an object template, a quota, or a policy of the namespace"
    # Without a field, a cause lacks the name of the policy or quota, which the message has.
    fields = [
        f"{cause['field']}: {one_line(cause['message'])}"
        for cause in response.causes
        if cause.get("field") and cause.get("message")
    ]
    body = "" if response.body else one_line(response.text)
    reason = next(iter(fields), response.message or body)
    listed = fields if len(fields) > 1 else []
    detail = "\n".join(f"  {line}" for line in listed)
    return ClusterRefused(f"{what}: {reason}" if reason else what, on=on, next=cure, detail=detail)


def not_an_api_server_error(cluster: str) -> ClusterRefused:
    """Return the error of a success that no API server would send."""
    return ClusterRefused(
        "the server that answers is no Kubernetes API server",
        on=cluster,
        next="check the server's address in the kubeconfig, and the proxies before it",
    )


def no_response_error(
    error: BaseException, cluster: str, *, is_private: bool = False
) -> tuple[ClusterError, bool]:
    """Return the error of a request without a response, and whether it is transient.

    Args:
        error: what the library raised.
        cluster: the cluster's name for people.
        is_private: whether the cluster can be reached from its own network alone.
    """
    chain = list(causes(error))
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return _untrusted_error(link.verify_message, cluster), False
        if isinstance(link, ssl.SSLError) and not isinstance(
            link, (ssl.SSLEOFError, ssl.SSLZeroReturnError)
        ):
            return _insecure_error(str(link.reason), cluster), False
    unreachable = _unreachable_error(_reason(chain), cluster, is_private=is_private)
    return unreachable, not isinstance(error, ValueError)


def _unreachable_error(reason: str, cluster: str, *, is_private: bool) -> ClusterUnreachable:
    if is_private:
        return ClusterUnreachable(
            f"the API server of a private cluster on AKS does not answer here ({reason})",
            on=cluster,
            next=_IN_ITS_NETWORK,
        )
    return ClusterUnreachable(
        f"the API server does not answer ({reason})",
        on=cluster,
        next="see whether the cluster runs, and check the server's address in the kubeconfig, "
        "the network and the proxies",
    )


def _untrusted_error(reason: str, cluster: str) -> ClusterError:
    return ClusterUnreachable(
        f"the API server's certificate is not trusted ({reason})",
        on=cluster,
        next="check this cluster's CA and server in the kubeconfig; "
        "on AKS `az aks get-credentials` writes them again",
    )


def _insecure_error(reason: str, cluster: str) -> ClusterError:
    if "ALERT" in reason and any(word in reason for word in _REFUSED_CERTIFICATE):
        return ClusterLogin(
            f"the API server does not accept the client certificate ({reason})",
            on=cluster,
            next=LOG_IN,
        )
    return ClusterUnreachable(
        f"no secure connection to the API server is possible ({reason})",
        on=cluster,
        next="check the server's address, and the certificates and keys that the kubeconfig names",
    )


def _reason(chain: Sequence[BaseException]) -> str:
    """Return the innermost reason, without the address."""
    for link in reversed(chain):
        if isinstance(link, TimeoutError) or "Timeout" in type(link).__name__:
            return "timed out"
        if isinstance(link, OSError) and link.strerror:
            return str(link.strerror)
    return type(chain[-1]).__name__
