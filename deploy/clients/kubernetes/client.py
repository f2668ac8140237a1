"""Kubernetes clusters, as releases use them: objects of one namespace, as JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.clients.kubernetes.errors import (
    ResourceAttributes,
    not_an_api_server_error,
    refusal_error,
)
from deploy.clients.kubernetes.gateway import ApiServerGateway
from deploy.clients.kubernetes.protocol import FIELD_MANAGER, KINDS, ROOT_CA, Object
from deploy.clients.kubernetes.retry import RetryingClient, RetryPolicy
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, Transport
from deploy.errors import ClusterError

log = logging.getLogger(__name__)

Objects = list[Object]
Query = tuple[tuple[str, str], ...]

_APPLY = "application/apply-patch+yaml"
_PAGE = 250
_REVIEWS = "authorization.k8s.io/v1"
_LOG_WITHIN = 2.0
_REFUSALS = tuple(range(400, 600))
# Set by the server: a write that landed differs from what was sent in these alone.
_SERVERS = frozenset({"resourceVersion", "managedFields", "generation", "uid", "creationTimestamp"})


def connect(kubeconfig: str, context: str, namespace: str) -> KubeCluster:
    """A namespace of the cluster that a kubeconfig's context leads to; nothing is asked of it yet.

    Args:
        kubeconfig: path of a kubeconfig, `in-cluster` for the account of the pod that this runs in, or empty for what kubectl would take.
        context: name of a context of it; empty for the current one.
        namespace: where everything happens.

    Raises:
        ClusterUnknown: there is no kubeconfig or context, or it cannot be used.
        ClusterLogin: the context's login program is missing or gave no credentials.
    """
    return KubeCluster(ApiServerAccess(kubeconfig, context), namespace)


class KubeCluster:
    """A namespace of a real cluster.

    Args:
        wire: the way to its API server.
        namespace: where everything happens.
        patience: how long the API server is waited for.
    """

    def __init__(
        self, wire: Transport, namespace: str, patience: RetryPolicy | None = None
    ) -> None:
        self.namespace = namespace
        self._wire = wire
        self._server = RetryingClient(wire, patience or RetryPolicy())
        self._served: dict[str, frozenset[str]] = {}

    @property
    def name(self) -> str:
        return self._wire.name

    def version(self) -> str:
        return str(self._object(self._plain("GET", "/version")).get("gitVersion", ""))

    def require_access(self) -> None:
        if self.find("ConfigMap", ROOT_CA) is None:
            # Older clusters do not put it there, and others only soon: a write that is not carried out tells for sure.
            item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ROOT_CA}}
            call = ApiRequest("POST", self._path("ConfigMap"), (("dryRun", "All"),), item)
            # What else it may be refused for is no matter of the namespace's.
            self._asked(call, ("create",), "ConfigMap", but=_REFUSALS)

    def serves(self, kind: str) -> bool:
        known = KINDS[kind]
        if known.api_version not in self._served:
            self._served[known.api_version] = self._plurals(known.api_version)
        return known.plural in self._served[known.api_version]

    def apply(
        self, item: Object, *, force: bool = False, require: Callable[[], None] = lambda: None
    ) -> Object:
        query = (("fieldManager", FIELD_MANAGER), ("force", str(force).lower()))
        call = ApiRequest("PATCH", self._path(*_named(item)), query, item, _APPLY, require)
        return self._object(self._asked(call, ("create", "patch"), *_named(item)))

    def find(self, kind: str, name: str) -> Object | None:
        answer = self._asked(
            ApiRequest("GET", self._path(kind, name)), ("get",), kind, name, but=(404,)
        )
        return self._object(answer) if answer.is_success else None

    def list(self, kind: str, labels: Mapping[str, str]) -> Objects:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return sorted(
            self._all(kind, "labelSelector", selector),
            key=lambda item: str(item["metadata"]["name"]),
        )

    def create(self, item: Object) -> bool:
        kind, name = _named(item)
        call = ApiRequest("POST", self._path(kind), (("fieldManager", FIELD_MANAGER),), item)
        return self._won(self._asked(call, ("create",), kind, name, but=(409,)), item)

    def replace(self, item: Object) -> bool:
        kind, name = _named(item)
        call = ApiRequest("PUT", self._path(kind, name), (("fieldManager", FIELD_MANAGER),), item)
        return self._won(self._asked(call, ("update",), kind, name, but=(404, 409)), item)

    def delete(self, kind: str, name: str, *, require: Callable[[], None] = lambda: None) -> None:
        call = ApiRequest(
            "DELETE",
            self._path(kind, name),
            (("propagationPolicy", "Background"),),
            require=require,
        )
        self._asked(call, ("delete",), kind, name, but=(404,))

    def events(self, name: str) -> Objects:
        return sorted(self._all("Event", "fieldSelector", f"involvedObject.name={name}"), key=_when)

    def log(self, pod: str, lines: int) -> str:
        found = self.find("Pod", pod)
        if found is None:
            return ""
        names = [str(one["name"]) for one in found["spec"]["containers"]]
        container = "app" if "app" in names else names[0]
        text = self._written(pod, container, lines)
        before = any(
            one["name"] == container and one.get("restartCount")
            for one in found.get("status", {}).get("containerStatuses") or ()
        )
        return (
            self._written(pod, container, lines, ("previous", "true"))
            if before and not text.strip()
            else text
        )

    def is_allowed(self, verb: str, kind: str, part: str = "") -> bool:
        known = KINDS[kind]
        return self._may(verb, known.group, known.plural, part)

    def endpoint(self, kind: str, name: str, port: int) -> Endpoint:
        path = self._path(kind, f"{name}:{port}", "proxy")
        subject = ResourceAttributes(
            (), KINDS[kind].group, f"{KINDS[kind].plural}/proxy", self.namespace, name
        )
        return replace(
            self._wire.endpoint(path),
            gateway=ApiServerGateway(self._wire, self._server, path, subject, self._good),
        )

    # --- asking

    def _asked(
        self,
        call: ApiRequest,
        verbs: tuple[str, ...],
        kind: str,
        name: str = "",
        part: str = "",
        but: tuple[int, ...] = (),
    ) -> ApiResponse:
        """A good answer, or one of those other statuses."""
        known = KINDS[kind]
        subject = ResourceAttributes(
            verbs, known.group, "/".join(filter(None, (known.plural, part))), self.namespace, name
        )
        answer = self._server.send(
            call, f"{verbs} {subject.resource}", _LOG_WITHIN if part == "log" else None
        )
        if answer.status in but and not answer.lacks_namespace:
            return answer
        return self._good(answer, subject)

    def _good(self, answer: ApiResponse, subject: ResourceAttributes) -> ApiResponse:
        if answer.is_success:
            return answer
        raise refusal_error(
            answer, subject, self.name, self._lacking(subject) if answer.status == 403 else ()
        )

    def _plain(
        self, method: str, path: str, body: object = None, but: tuple[int, ...] = ()
    ) -> ApiResponse:
        """As `_asked`, of what every account may ask."""
        answer = self._server.send(ApiRequest(method, path, body=body), path)
        if answer.is_success or answer.status in but:
            return answer
        raise refusal_error(answer, ResourceAttributes((), "", path, self.namespace), self.name)

    def _object(self, answer: ApiResponse) -> Object:
        if not answer.body:
            raise not_an_api_server_error(self.name)
        return dict(answer.body)

    def _all(self, kind: str, key: str, selector: str) -> Objects:
        """The objects of all pages of a list, each told its kind, which the server says once for all."""
        found: Objects = []
        token = ""
        while True:
            query = [(key, selector), ("limit", str(_PAGE)), ("continue", token)]
            call = ApiRequest("GET", self._path(kind), tuple(pair for pair in query if pair[1]))
            answer = self._asked(call, ("list",), kind, but=(404, 410) if token else (404,))
            if answer.status == 410:
                # The rest has become too old to be read on.
                found = []
                token = ""
                continue
            page = self._object(answer) if answer.is_success else {}
            found += [
                {"apiVersion": KINDS[kind].api_version, "kind": kind, **item}
                for item in page.get("items") or ()
            ]
            token = str(page.get("metadata", {}).get("continue") or "")
            if not token:
                return found

    def _plurals(self, api_version: str) -> frozenset[str]:
        """The collections of a group in that version; none if it is not known."""
        answer = self._plain("GET", _root(api_version), but=(404,))
        found = self._object(answer).get("resources") or () if answer.is_success else ()
        return frozenset(str(one.get("name")) for one in found)

    def _written(self, pod: str, container: str, lines: int, *more: tuple[str, str]) -> str:
        query = (("container", container), ("tailLines", str(lines)), *more)
        call = ApiRequest("GET", self._path("Pod", pod, "log"), query)
        answer = self._asked(call, ("get",), "Pod", pod, "log", but=(400, 404, 500, 502, 503, 504))
        if answer.status >= 500:
            # The node is asked for it, and may be away; what is told with the log matters more.
            log.warning(
                "the log of pod %s cannot be read: %s", pod, answer.message or answer.status
            )
        return answer.text if answer.is_success else ""

    # --- permissions

    def _may(self, verb: str, group: str, plural: str, part: str) -> bool:
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": part,
        }
        review = {
            "apiVersion": _REVIEWS,
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._plain("POST", f"{_root(_REVIEWS)}/selfsubjectaccessreviews", review)
        return bool(self._object(answer).get("status", {}).get("allowed"))

    def _lacking(self, subject: ResourceAttributes) -> tuple[str, ...]:
        """The verbs that no role gives to this account; a quota or a policy forbids with the same status."""
        plural, _, part = subject.plural.partition("/")
        try:
            return tuple(
                verb for verb in subject.verbs if not self._may(verb, subject.group, plural, part)
            )
        except ClusterError:
            return subject.verbs

    # --- writes whose answer was lost

    def _won(self, answer: ApiResponse, item: Object) -> bool:
        """Whether an object is as it was sent: the server said so, or did not, and it was us who came first."""
        if answer.is_success or not answer.retried:
            return answer.is_success
        metadata = {key: value for key, value in item["metadata"].items() if key not in _SERVERS}
        return _within({**item, "metadata": metadata}, self.find(*_named(item)))

    # --- naming

    def _path(self, kind: str, *pieces: str) -> str:
        known = KINDS[kind]
        return "/".join(
            (
                _root(known.api_version),
                "namespaces",
                *(quote(piece, safe=":") for piece in (self.namespace, known.plural, *pieces)),
            )
        )


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _named(item: Object) -> tuple[str, str]:
    return str(item["kind"]), str(item["metadata"]["name"])


def _when(event: Object) -> tuple[str, int]:
    """When an event was seen last; within a second, which some do not divide, the order of writing counts."""
    series = event.get("series") or {}
    metadata = event["metadata"]
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        metadata.get("creationTimestamp"),
    )
    version = str(metadata.get("resourceVersion", ""))
    return next((str(time)[:19] for time in times if time), ""), int(
        version
    ) if version.isdecimal() else 0


def _within(part: Any, whole: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether everything that was sent is there; the server adds what was left open, and drops what is empty."""
    if not part and not whole:
        return True
    if isinstance(part, dict):
        inner = {} if whole is None else whole
        return isinstance(inner, dict) and all(
            _within(value, inner.get(key)) for key, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list) and len(part) == len(whole) and all(map(_within, part, whole))
        )
    return bool(part == whole)
