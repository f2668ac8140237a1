"""What a release needs of a Kubernetes cluster: objects of one namespace as plain JSON, applied, read and removed.

Whoever implements this waits out an API server that is away for a while once it has answered, and turns refusals into the
errors of this project. Nothing here decides what is deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deploy.clients.http import Endpoint

Object = dict[str, Any]
Objects = list[Object]
FIELD_MANAGER = "twinship"
"""Under this name the fields that a release sets are owned on the cluster."""
IN_CLUSTER = "in-cluster"
"""In place of a kubeconfig: the account of the pod that this runs in."""
ROOT_CA = "kube-root-ca.crt"
"""The ConfigMap that a cluster puts into every namespace, since v1.20, soon after it was made."""


@dataclass(frozen=True)
class Kind:
    """A kind of object: the group and version that it is read and written in, and the name of its collection."""

    api_version: str
    plural: str

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]


KINDS: Mapping[str, Kind] = {
    "ConfigMap": Kind("v1", "configmaps"),
    "DaemonSet": Kind("apps/v1", "daemonsets"),
    "Deployment": Kind("apps/v1", "deployments"),
    "Endpoints": Kind("v1", "endpoints"),
    "Event": Kind("v1", "events"),
    "HorizontalPodAutoscaler": Kind("autoscaling/v2", "horizontalpodautoscalers"),
    "Ingress": Kind("networking.k8s.io/v1", "ingresses"),
    "Lease": Kind("coordination.k8s.io/v1", "leases"),
    "Pod": Kind("v1", "pods"),
    "PodDisruptionBudget": Kind("policy/v1", "poddisruptionbudgets"),
    "ReplicaSet": Kind("apps/v1", "replicasets"),
    "Service": Kind("v1", "services"),
    "ServiceAccount": Kind("v1", "serviceaccounts"),
}


class Cluster(Protocol):
    """One namespace of a cluster. Kinds are named as in KINDS; objects are JSON as the API server gives and takes it.

    Every operation may raise a ClusterError: ClusterUnreachable (no answer, after retries), ClusterLogin (401), ClusterForbidden
    (403, with verb, resource, namespace and the rule to add), NamespaceMissing, ClusterRefused (anything else).
    """

    @property
    def namespace(self) -> str:
        """Where everything happens."""

    @property
    def name(self) -> str:
        """The cluster, for people: its context and server."""

    def version(self) -> str:
        """The version of its API server, such as v1.33.1."""

    def require_access(self) -> None:
        """Makes sure that the API server answers, lets this account in, and has the namespace; nothing is written.

        An account with rights in that namespace alone has none where it is missing, and is told that as ClusterForbidden.
        """

    def serves(self, kind: str) -> bool:
        """Whether the API server knows that kind in the version that KINDS names."""

    def apply(
        self, item: Object, *, force: bool = False, require: Callable[[], None] = lambda: None
    ) -> Object:
        """Server-side apply under our own name: makes the object, or sets exactly the fields that are given; others stay.

        Args:
            item: the object.
            force: take fields that somebody else owns from them.
            require: called before it is asked for, also when that has to be done again after a while; what it raises ends it.

        Raises:
            FieldConflict: somebody else owns a field and wants another value; nothing was changed.
        """

    def find(self, kind: str, name: str) -> Object | None:
        """An object, or None if it is not there, or its kind is not served."""

    def list(self, kind: str, labels: Mapping[str, str]) -> Objects:
        """The objects that carry all those labels, ordered by name; a kind that is not served has none."""

    def create(self, item: Object) -> bool:
        """Makes an object; False if there is one of that name already."""

    def replace(self, item: Object) -> bool:
        """Replaces an object as it was read (metadata.resourceVersion); False if it has changed since, or is gone.

        An object is either replaced or applied: to `apply`, what was replaced belongs to somebody else.
        """

    def delete(self, kind: str, name: str, *, require: Callable[[], None] = lambda: None) -> None:
        """Removes an object and what it owns; one that is gone already is no error.

        Args:
            kind: the object's.
            name: the object's.
            require: as for `apply`.
        """

    def events(self, name: str) -> Objects:
        """The events about the object of that name, oldest first."""

    def log(self, pod: str, lines: int) -> str:
        """The end of what a pod's container wrote, of its last run if the present one has written nothing.

        Empty if there is none, or its node does not give it.
        """

    def is_allowed(self, verb: str, kind: str, part: str = "") -> bool:
        """Whether this account may do that to objects of that kind, or to a part (subresource) of them."""

    def endpoint(self, kind: str, name: str, port: int) -> Endpoint:
        """The way to a port of a Pod or Service through the API server; it needs nothing but access to that.

        Questions there wait for an API server that is away, as all operations do, and raise what these do.
        """
