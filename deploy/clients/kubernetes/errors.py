"""What can go wrong with an API server, in this project's terms; decided on statuses, reasons and types, never on messages."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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

LOG_IN = "log in again (`az login`, `kubelogin`), or have the kubeconfig written anew, on AKS by `az aks get-credentials`"
_TAKE_OVER = (
    "let that owner give it up, or take it over with "
    "`invoke render --env E | kubectl apply --server-side --field-manager=twinship --force-conflicts -f -`"
)
_ROLE = "add the rule to the Role of this account; deploy/manifests/rbac.yaml has all that a release needs"
# OpenSSL's names of the alerts by which a server turns a client's certificate down.
_TURNED_DOWN = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR")


@dataclass(frozen=True)
class ResourceAttributes:
    """What a request is about, in the words of a Role.

    Attributes:
        verbs: what it takes: get, list, create, update, patch, delete.
        group: the API group; empty for the core.
        plural: the collection, with the part of an object if one is meant: `pods/log`.
        namespace: where.
        name: of the object; empty if none was named.
    """

    verbs: tuple[str, ...]
    group: str
    plural: str
    namespace: str
    name: str = ""

    @property
    def resource(self) -> str:
        """The collection and its group, as kubectl writes them: `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def refusal_error(
    answer: ApiResponse, subject: ResourceAttributes, cluster: str, lacking: Sequence[str] = ()
) -> ClusterError:
    """The error of an answer that was not good.

    Args:
        answer: what the server said.
        subject: what it was asked about.
        cluster: its name, for people.
        lacking: of the subject's verbs, those that no role gives to this account.
    """
    if answer.status == 401:
        return ClusterLogin(
            "the API server does not accept the credentials, or they have expired",
            on=cluster,
            next=LOG_IN,
        )
    if answer.status == 403 and lacking:
        return _forbidden(answer, subject, cluster, lacking)
    if answer.lacks_namespace:
        cure = f"`kubectl create namespace {subject.namespace}`, or name another in the environment's settings"
        return NamespaceMissing(f"there is no namespace {subject.namespace}", on=cluster, next=cure)
    on = (
        f"{subject.resource} {subject.name}".strip() + f", namespace {subject.namespace}, {cluster}"
    )
    return (
        _conflict(answer.conflicts, on)
        if answer.status == 409 and answer.conflicts
        else _refused(answer, on)
    )


def _forbidden(
    answer: ApiResponse, subject: ResourceAttributes, cluster: str, lacking: Sequence[str]
) -> ClusterForbidden:
    verbs = ", ".join(f'"{verb}"' for verb in lacking)
    lines = [f"# {answer.message}"] if answer.message else []
    lines += [
        f'- apiGroups: ["{subject.group}"]',
        f'  resources: ["{subject.plural}"]',
        f"  verbs: [{verbs}]",
    ]
    what = f"this account may not {' or '.join(lacking)} {subject.resource} in namespace {subject.namespace}"
    return ClusterForbidden(what, on=cluster, next=_ROLE, detail="\n".join(lines))


def _conflict(owners: dict[str, str], on: str) -> FieldConflict:
    named = " and ".join(dict.fromkeys(owners.values()))
    detail = "\n".join(f"  {field}: {owner}" for field, owner in owners.items())
    error = FieldConflict(
        f"fields that a release sets are owned by {named}", on=on, next=_TAKE_OVER, detail=detail
    )
    error.owners = owners
    return error


def _refused(answer: ApiResponse, on: str) -> ClusterRefused:
    status = f"{answer.status} {answer.reason}".strip()
    if answer.status == 404 and "name" not in answer.details:
        what = f"the API server does not know this kind of object ({status})"
        cure = "see `kubectl api-resources`; the cluster may be too old"
    elif answer.status == 429 or answer.status >= 500:
        what = f"the API server failed, and went on failing ({status})"
        cure = "run again; if it stays so, its log or its webhooks show why"
    else:
        what = f"the API server refused it ({status})"
        cure = "mend what it names: a manifest, a quota, or a policy of the namespace"
    told = [
        f"  {cause.get('field', '')}: {one_line(cause['message'])}"
        for cause in answer.causes
        if cause.get("message")
    ]
    message = answer.message or one_line(answer.text)
    return ClusterRefused(
        what, on=on, next=cure, detail="\n".join(told) or (f"  {message}" if message else "")
    )


def not_an_api_server_error(cluster: str) -> ClusterRefused:
    """The error of a good answer that no API server gives."""
    cure = "check the server's address in the kubeconfig, and the proxies before it"
    return ClusterRefused("what answers is no Kubernetes API server", on=cluster, next=cure)


def no_response_error(error: BaseException, cluster: str) -> tuple[ClusterError, bool]:
    """The error of a call without an answer, and whether asking again may help."""
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            what = f"the API server's certificate is not trusted ({one.verify_message})"
            cure = "see that the kubeconfig has this cluster's CA and server; on AKS `az aks get-credentials` writes them anew"
            return ClusterUnreachable(what, on=cluster, next=cure), False
        if isinstance(one, ssl.SSLError) and not isinstance(
            one, (ssl.SSLEOFError, ssl.SSLZeroReturnError)
        ):
            return _insecure(str(one.reason), cluster), False
    cure = "see whether the cluster runs, and check the server's address in the kubeconfig, the network and the proxies"
    return ClusterUnreachable(
        f"the API server gives no answer ({_why(chain)})", on=cluster, next=cure
    ), not isinstance(error, ValueError)


def _insecure(reason: str, cluster: str) -> ClusterError:
    if "ALERT" in reason and any(word in reason for word in _TURNED_DOWN):
        return ClusterLogin(
            f"the API server does not accept the client certificate ({reason})",
            on=cluster,
            next=LOG_IN,
        )
    cure = "check the server's address, and the certificates and keys that the kubeconfig names"
    return ClusterUnreachable(
        f"no secure connection could be made to the API server ({reason})", on=cluster, next=cure
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, the outermost first."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            waiting += [*one.args, one.__cause__, one.__context__]


def _why(chain: Sequence[BaseException]) -> str:
    """The innermost reason, without the address."""
    for one in reversed(chain):
        if isinstance(one, TimeoutError) or "Timeout" in type(one).__name__:
            return "timed out"
        if isinstance(one, OSError) and one.strerror:
            return str(one.strerror)
    return type(chain[-1]).__name__
