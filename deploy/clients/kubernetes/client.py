"""The client of a real Kubernetes cluster: the objects of one namespace, as JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from deploy.clients.azure.identity import Identity
from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.auth import ApiServerAccess
from deploy.clients.kubernetes.errors import (
    ResourceAttributes,
    not_an_api_server_error,
    refusal_error,
)
from deploy.clients.kubernetes.gateway import ApiServerGateway
from deploy.clients.kubernetes.protocol import FIELD_MANAGER, KINDS, ROOT_CA, Object, Objects
from deploy.clients.kubernetes.retry import RetryingClient, RetryPolicy
from deploy.clients.kubernetes.transport import ApiRequest, ApiResponse, Transport
from deploy.clients.log_lines import TimedLine, parse_timed_lines
from deploy.errors import ClusterError

log = logging.getLogger(__name__)

_APPLY = "application/apply-patch+yaml"
_PAGE = 250
_NODES = "/api/v1/nodes"
_REVIEWS = "authorization.k8s.io/v1"
_LOG_MAX_WAIT = 2.0
_PREVIOUS = ("previous", "true")
_ERRORS = tuple(range(400, 600))
# The server sets these: a successful write differs from what was sent in these alone.
_SERVER_FIELDS = frozenset(
    {"resourceVersion", "managedFields", "generation", "uid", "creationTimestamp"}
)

SendPage = Callable[[ApiRequest, tuple[int, ...]], ApiResponse]


def connect(
    kubeconfig: str, context: str, namespace: str, identity: Identity | None = None
) -> KubeCluster:
    """Return the client of a namespace of a cluster; no request is sent yet.

    Args:
        kubeconfig: path of a kubeconfig, `in-cluster` for the account of the pod that this runs in,
            `aks:group/name` for a cluster on AKS, or empty for the files that kubectl would read.
        context: name of a context in the kubeconfig; empty for the current one.
        namespace: the namespace.
        identity: logs in to clusters on AKS.

    Raises:
        ClusterUnknown: there is no kubeconfig or context, or it cannot be used.
        ClusterLogin: the context's login program is missing or gave no credentials.
    """
    return KubeCluster(ApiServerAccess(kubeconfig, context, identity), namespace)


class KubeCluster:
    """A namespace of a real cluster.

    Args:
        transport: the connection to its API server.
        namespace: the namespace.
        retry_policy: how long requests are retried while the API server fails.
    """

    def __init__(
        self, transport: Transport, namespace: str, retry_policy: RetryPolicy | None = None
    ) -> None:
        self.namespace = namespace
        self._transport = transport
        self._client = RetryingClient(transport, retry_policy or RetryPolicy())
        self._served_plurals: dict[str, frozenset[str]] = {}

    @property
    def name(self) -> str:
        return self._transport.name

    def version(self) -> str:
        return str(self._object(self._send_open("GET", "/version")).get("gitVersion", ""))

    def require_access(self) -> None:
        if self.find("ConfigMap", ROOT_CA) is None:
            # Old clusters do not create it, and others only after a moment: a dry run is certain.
            item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ROOT_CA}}
            request = ApiRequest("POST", self._path("ConfigMap"), (("dryRun", "All"),), item)
            # Other reasons for a refusal do not concern the namespace.
            self._send(request, ("create",), "ConfigMap", accept=_ERRORS)

    def serves(self, kind: str) -> bool:
        return bool(self._served_version(kind))

    def apply(
        self, item: Object, *, force: bool = False, require: Callable[[], None] = lambda: None
    ) -> Object:
        query = (("fieldManager", FIELD_MANAGER), ("force", str(force).lower()))
        path = self._path(*_identity(item))
        request = ApiRequest("PATCH", path, query, item, _APPLY, require)
        return self._object(self._send(request, ("create", "patch"), *_identity(item)))

    def find(self, kind: str, name: str) -> Object | None:
        request = ApiRequest("GET", self._path(kind, name))
        response = self._send(request, ("get",), kind, name, accept=(404,))
        return self._object(response) if response.is_success else None

    def list(self, kind: str, labels: Mapping[str, str]) -> Objects:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return sorted(
            self._list_all(kind, "labelSelector", selector),
            key=lambda item: str(item["metadata"]["name"]),
        )

    def create(self, item: Object) -> bool:
        kind, name = _identity(item)
        query = (("fieldManager", FIELD_MANAGER),)
        request = ApiRequest("POST", self._path(kind), query, item)
        return self._is_written(self._send(request, ("create",), kind, name, accept=(409,)), item)

    def replace(self, item: Object) -> bool:
        kind, name = _identity(item)
        query = (("fieldManager", FIELD_MANAGER),)
        request = ApiRequest("PUT", self._path(kind, name), query, item)
        response = self._send(request, ("update",), kind, name, accept=(404, 409))
        return self._is_written(response, item)

    def delete(self, kind: str, name: str, *, require: Callable[[], None] = lambda: None) -> None:
        query = (("propagationPolicy", "Background"),)
        request = ApiRequest("DELETE", self._path(kind, name), query, require=require)
        self._send(request, ("delete",), kind, name, accept=(404,))

    def events(self, name: str) -> Objects:
        events = self._list_all("Event", "fieldSelector", f"involvedObject.name={name}")
        return sorted(events, key=_last_seen)

    def log(self, pod: str, lines: int) -> str:
        item = self.find("Pod", pod)
        if item is None:
            return ""
        container = _main_container(item)
        tail = (("tailLines", str(lines)),)
        text = self._read_log(pod, container, *tail)
        if _has_restarted(item, container) and not text.strip():
            return self._read_log(pod, container, *tail, _PREVIOUS)
        return text

    def read_log(
        self, pod: str, since: datetime | None = None, lines: int | None = None
    ) -> Iterator[TimedLine]:
        item = self.find("Pod", pod)
        if item is None:
            return
        container = _main_container(item)
        asked = {
            "timestamps": "true",
            "sinceTime": since and since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tailLines": None if lines is None else str(lines),
        }
        query = tuple((key, value) for key, value in asked.items() if value)
        runs = ((_PREVIOUS,), ()) if _has_restarted(item, container) else ((),)
        for run in runs:
            text = self._read_log(pod, container, *query, *run)
            # A line may have other separators of Unicode in it.
            yield from parse_timed_lines(line.rstrip("\r") for line in text.split("\n"))

    def nodes(self) -> Objects | None:
        resource = ResourceAttributes(("list",), "", "nodes", "")

        def send(request: ApiRequest, accept: tuple[int, ...]) -> ApiResponse:
            response = self._client.send(request, _NODES)
            if response.status in accept:
                return response
            return self._require_success(response, resource)

        return self._read_pages(_NODES, (), send, absent=403)

    def is_allowed(self, verb: str, kind: str, subresource: str = "") -> bool:
        known = KINDS[kind]
        return self._is_allowed(verb, known.group, known.plural, subresource)

    def endpoint(self, kind: str, name: str, port: int) -> Endpoint:
        path = self._path(kind, f"{name}:{port}", "proxy")
        plural = f"{KINDS[kind].plural}/proxy"
        resource = ResourceAttributes((), KINDS[kind].group, plural, self.namespace, name)
        gateway = ApiServerGateway(
            self._transport, self._client, path, resource, self._require_success
        )
        return replace(self._transport.endpoint(path), gateway=gateway)

    # --- requests

    def _send(
        self,
        request: ApiRequest,
        verbs: tuple[str, ...],
        kind: str,
        name: str = "",
        subresource: str = "",
        accept: tuple[int, ...] = (),
    ) -> ApiResponse:
        """Return a response of success, or one with an accepted status; raise otherwise."""
        known = KINDS[kind]
        plural = "/".join(filter(None, (known.plural, subresource)))
        resource = ResourceAttributes(verbs, known.group, plural, self.namespace, name)
        max_wait = _LOG_MAX_WAIT if subresource == "log" else None
        response = self._client.send(request, f"{verbs} {resource.resource}", max_wait)
        if response.status in accept and not response.lacks_namespace:
            return response
        return self._require_success(response, resource)

    def _require_success(self, response: ApiResponse, resource: ResourceAttributes) -> ApiResponse:
        if response.is_success:
            return response
        lacking = self._lacking_verbs(resource) if response.status == 403 else ()
        raise refusal_error(response, resource, self.name, lacking, self._transport.account())

    def _send_open(
        self, method: str, path: str, body: object = None, accept: tuple[int, ...] = ()
    ) -> ApiResponse:
        """Do the same as `_send` for a request that each account is allowed."""
        response = self._client.send(ApiRequest(method, path, body=body), path)
        if response.is_success or response.status in accept:
            return response
        resource = ResourceAttributes((), "", path, self.namespace)
        raise refusal_error(response, resource, self.name, account=self._transport.account())

    def _object(self, response: ApiResponse) -> Object:
        if not response.body:
            raise not_an_api_server_error(self.name)
        return dict(response.body)

    def _list_all(self, kind: str, key: str, selector: str) -> Objects:
        """Return the objects of all pages, each with its kind, which only the list itself has."""

        def send(request: ApiRequest, accept: tuple[int, ...]) -> ApiResponse:
            return self._send(request, ("list",), kind, accept=accept)

        items = self._read_pages(self._path(kind), ((key, selector),), send, absent=404)
        version = self._api_version(kind)
        return [{"apiVersion": version, "kind": kind, **item} for item in items or ()]

    def _read_pages(
        self, path: str, query: tuple[tuple[str, str], ...], send: SendPage, absent: int
    ) -> Objects | None:
        """Return the items of all pages of a list.

        Args:
            path: the path of the list.
            query: the parameters of the list; those that are empty are left out.
            send: returns a response of success, or one with an accepted status.
            absent: the status for which there is no list, and the result is None.
        """
        items: Objects = []
        token = ""
        while True:
            pairs = (*query, ("limit", str(_PAGE)), ("continue", token))
            request = ApiRequest("GET", path, tuple(pair for pair in pairs if pair[1]))
            response = send(request, (absent, 410) if token else (absent,))
            if response.status == absent:
                return None
            if response.status == 410:
                # The server no longer has the rest of this list: start again.
                items = []
                token = ""
                continue
            page = self._object(response)
            items += page.get("items") or ()
            token = str(page.get("metadata", {}).get("continue") or "")
            if not token:
                return items

    def _api_version(self, kind: str) -> str:
        """Return the version in which a kind is read and written here."""
        known = KINDS[kind]
        return (known.older_version and self._served_version(kind)) or known.api_version

    def _served_version(self, kind: str) -> str:
        """Return the newest version in which the server has a kind; empty if it has none."""
        known = KINDS[kind]
        versions = filter(None, (known.api_version, known.older_version))
        return next((version for version in versions if known.plural in self._plurals(version)), "")

    def _plurals(self, api_version: str) -> frozenset[str]:
        """Return the collections of a group in a version; empty if the server does not know it."""
        if api_version not in self._served_plurals:
            response = self._send_open("GET", _root(api_version), accept=(404,))
            resources = self._object(response).get("resources") or () if response.is_success else ()
            self._served_plurals[api_version] = frozenset(
                str(resource.get("name")) for resource in resources
            )
        return self._served_plurals[api_version]

    def _read_log(self, pod: str, container: str, *query: tuple[str, str]) -> str:
        asked = (("container", container), *query)
        request = ApiRequest("GET", self._path("Pod", pod, "log"), asked)
        accept = (400, 404, 500, 502, 503, 504)
        response = self._send(request, ("get",), "Pod", pod, "log", accept)
        if response.status >= 500:
            # The server reads the log from the node, which may be away. The error that the log
            # explains matters more.
            reason = response.message or response.status
            log.warning("the log of pod %s cannot be read: %s", pod, reason)
        return response.text if response.is_success else ""

    # --- permissions

    def _is_allowed(self, verb: str, group: str, plural: str, subresource: str) -> bool:
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": subresource,
        }
        review = {
            "apiVersion": _REVIEWS,
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = f"{_root(_REVIEWS)}/selfsubjectaccessreviews"
        response = self._send_open("POST", path, review)
        return bool(self._object(response).get("status", {}).get("allowed"))

    def _lacking_verbs(self, resource: ResourceAttributes) -> tuple[str, ...]:
        """Return the verbs that no role gives to this account.

        A quota or a policy refuses with the same status.
        """
        plural, _, subresource = resource.plural.partition("/")
        try:
            return tuple(
                verb
                for verb in resource.verbs
                if not self._is_allowed(verb, resource.group, plural, subresource)
            )
        except ClusterError:
            return resource.verbs

    # --- writes whose response was lost

    def _is_written(self, response: ApiResponse, item: Object) -> bool:
        """Return whether the write succeeded, in this attempt or an earlier one."""
        if response.is_success or not response.retried:
            return response.is_success
        metadata = {
            key: value for key, value in item["metadata"].items() if key not in _SERVER_FIELDS
        }
        return _contains(self.find(*_identity(item)), {**item, "metadata": metadata})

    # --- paths

    def _path(self, kind: str, *names: str) -> str:
        known = KINDS[kind]
        return "/".join(
            (
                _root(self._api_version(kind)),
                "namespaces",
                *(quote(name, safe=":") for name in (self.namespace, known.plural, *names)),
            )
        )


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _identity(item: Object) -> tuple[str, str]:
    return str(item["kind"]), str(item["metadata"]["name"])


def _main_container(pod: Object) -> str:
    """Return the name of the container that serves, among those that a webhook has added."""
    names = [str(container["name"]) for container in pod["spec"]["containers"]]
    return "app" if "app" in names else names[0]


def _has_restarted(pod: Object, container: str) -> bool:
    return any(
        status["name"] == container and status.get("restartCount")
        for status in pod.get("status", {}).get("containerStatuses") or ()
    )


def _last_seen(event: Object) -> tuple[str, int]:
    """Return when an event was last seen, and its version, as some times have whole seconds."""
    series = event.get("series") or {}
    metadata = event["metadata"]
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        metadata.get("creationTimestamp"),
    )
    time = next((str(time)[:19] for time in times if time), "")
    version = str(metadata.get("resourceVersion", ""))
    return time, int(version) if version.isdecimal() else 0


def _contains(whole: Any, part: Any) -> bool:  # noqa: ANN401 - JSON
    """Return whether an object has all that was sent; the server adds defaults, drops empties."""
    if not part and not whole:
        return True
    if isinstance(part, dict):
        inner = {} if whole is None else whole
        return isinstance(inner, dict) and all(
            _contains(inner.get(key), value) for key, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list) and len(part) == len(whole) and all(map(_contains, whole, part))
        )
    return bool(part == whole)
