"""The interface to a Kubernetes cluster: the objects of one namespace, as plain JSON.

An implementation retries while an API server that has answered before is away, and turns refusals
into this project's errors. Nothing here decides what is deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from deploy.clients.http import Endpoint
from deploy.clients.log_lines import TimedLine

Object = dict[str, Any]
Objects = list[Object]
FIELD_MANAGER = "twinship"
"""The field manager that owns the fields which a release sets."""
IN_CLUSTER = "in-cluster"
"""The value of `kubeconfig` that means the account of the pod that this runs in."""
ROOT_CA = "kube-root-ca.crt"
"""The ConfigMap that a cluster puts into each new namespace, since v1.20."""


@dataclass(frozen=True)
class Kind:
    """A kind of object: its group and version, and the name of its collection.

    Attributes:
        api_version: the group and the version.
        plural: the name of the collection.
        older_version: the group and an older version, for clusters that serve no newer one; empty
            if its objects are not the same where they are read.
    """

    api_version: str
    plural: str
    older_version: str = ""

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]


KINDS: Mapping[str, Kind] = {
    "ConfigMap": Kind("v1", "configmaps"),
    "DaemonSet": Kind("apps/v1", "daemonsets"),
    "Deployment": Kind("apps/v1", "deployments"),
    "EndpointSlice": Kind(
        "discovery.k8s.io/v1", "endpointslices", older_version="discovery.k8s.io/v1beta1"
    ),
    "Endpoints": Kind("v1", "endpoints"),
    "Event": Kind("v1", "events"),
    "HorizontalPodAutoscaler": Kind("autoscaling/v2", "horizontalpodautoscalers"),
    "Ingress": Kind("networking.k8s.io/v1", "ingresses"),
    "Lease": Kind("coordination.k8s.io/v1", "leases"),
    "Pod": Kind("v1", "pods"),
    "PodDisruptionBudget": Kind("policy/v1", "poddisruptionbudgets"),
    "ReplicaSet": Kind("apps/v1", "replicasets"),
    "Secret": Kind("v1", "secrets"),
    "Service": Kind("v1", "services"),
    "ServiceAccount": Kind("v1", "serviceaccounts"),
}


class Cluster(Protocol):
    """One namespace of a cluster.

    Kinds are named as in KINDS; objects are JSON as the API server returns and accepts it. Each
    operation may raise a ClusterError: ClusterUnreachable (no response, after retries),
    ClusterLogin (401), ClusterForbidden (403, with verb, resource, namespace and the rule to add),
    NamespaceMissing, ClusterRefused (anything else).
    """

    @property
    def namespace(self) -> str:
        """The name of the namespace."""

    @property
    def name(self) -> str:
        """The cluster's name for people: its context and server."""

    def version(self) -> str:
        """Return the version of the API server, such as v1.33.1."""

    def require_access(self) -> None:
        """Raise unless the API server answers, accepts this account, and has the namespace.

        Nothing is written. Where the namespace is missing, an account with rights in that namespace
        alone has no rights at all, so that the error is ClusterForbidden.
        """

    def serves(self, kind: str) -> bool:
        """Return whether the API server knows the kind in a version that KINDS names."""

    def apply(
        self, item: Object, *, force: bool = False, require: Callable[[], None] = lambda: None
    ) -> Object:
        """Create the object, or set exactly the given fields of it, by server-side apply.

        Args:
            item: the object.
            force: also take over fields that another field manager owns.
            require: called before each attempt; an exception that it raises ends the attempts.

        Raises:
            FieldConflict: another manager owns a field with another value; nothing was changed.
        """

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object, or None if it does not exist, or its kind is not served."""

    def list(self, kind: str, labels: Mapping[str, str]) -> Objects:
        """Return the objects with all these labels, ordered by name; none of an unknown kind."""

    def create(self, item: Object) -> bool:
        """Create an object; return False if there is already one of that name."""

    def replace(self, item: Object) -> bool:
        """Replace an object; return False if it has changed since it was read, or is gone.

        `metadata.resourceVersion` of the object names the version that was read. Do not replace and
        apply the same object: for `apply`, another manager owns the fields of a replaced object.
        """

    def delete(self, kind: str, name: str, *, require: Callable[[], None] = lambda: None) -> None:
        """Delete an object and its dependents; do nothing if it does not exist.

        Args:
            kind: the object's kind.
            name: the object's name.
            require: as for `apply`.
        """

    def events(self, name: str) -> Objects:
        """Return the events about the object of that name, oldest first."""

    def log(self, pod: str, lines: int) -> str:
        """Return the last log lines of a pod's container.

        They are those of the previous run if the current one has logged nothing, and empty if there
        are none, or the node cannot be reached.
        """

    def read_log(
        self, pod: str, since: datetime | None = None, lines: int | None = None
    ) -> Iterator[TimedLine]:
        """Yield the log lines of a pod's container with their times, after those of its last run.

        There are none if the pod is gone or has not started, or its node cannot be reached.

        Args:
            pod: the name of the pod.
            since: the time of the first line; the last whole second before it may be the limit.
            lines: the number of lines at the end of each run that are enough.
        """

    def nodes(self) -> Objects | None:
        """Return the nodes of the whole cluster, or None if this account may not read them."""

    def is_allowed(self, verb: str, kind: str, subresource: str = "") -> bool:
        """Return whether this account may do this to objects of the kind, or to a subresource."""

    def endpoint(self, kind: str, name: str, port: int) -> Endpoint:
        """Return the endpoint of a port of a Pod or Service, through the API server.

        Requests there are retried while the API server is away, and raise the same errors, as those
        of all other operations.
        """
