"""The pods to which a Service sends requests, as the controllers of the cluster record them.

They are in EndpointSlices. Endpoints, which hold the same, are deprecated since Kubernetes 1.33.

Source: the Kubernetes documentation, "EndpointSlices".
"""

from __future__ import annotations

import logging

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterForbidden

log = logging.getLogger(__name__)

SERVICE_LABEL = "kubernetes.io/service-name"


class RoutedPods:
    """A reader of the pods to which one Service sends requests.

    Args:
        cluster: the namespace of the Service.
        service: its name.
    """

    def __init__(self, cluster: Cluster, service: str) -> None:
        self._cluster = cluster
        self._service = service
        self._may_list_slices = True

    def names(self) -> set[str]:
        """Return the names of the pods that get requests; empty for one that is not a pod.

        Raises:
            ClusterForbidden: this account may read neither EndpointSlices nor Endpoints.
        """
        if not (self._may_list_slices and self._cluster.serves("EndpointSlice")):
            return self._in_endpoints()
        try:
            return self._in_slices()
        except ClusterForbidden as forbidden:
            return self._in_place_of_slices(forbidden)

    def _in_slices(self) -> set[str]:
        slices = self._cluster.list("EndpointSlice", {SERVICE_LABEL: self._service})
        endpoints = [endpoint for item in slices for endpoint in item.get("endpoints") or []]
        return {_pod_name(endpoint) for endpoint in endpoints if _is_ready(endpoint)}

    def _in_place_of_slices(self, forbidden: ClusterForbidden) -> set[str]:
        """Return the pods for an account whose role was written before slices were read."""
        try:
            found = self._in_endpoints()
        except ClusterForbidden:
            raise forbidden from None
        log.warning(
            "%s: Endpoints are read, which newer clusters may not have; "
            "deploy/manifests/rbac.yaml has the rule to add",
            forbidden.what,
        )
        self._may_list_slices = False
        return found

    def _in_endpoints(self) -> set[str]:
        found = self._cluster.find("Endpoints", self._service) or {}
        subsets = found.get("subsets") or []
        return {
            _pod_name(address) for subset in subsets for address in subset.get("addresses") or []
        }


def _is_ready(endpoint: Object) -> bool:
    """Return whether an endpoint gets requests; one whose readiness is unknown does."""
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _pod_name(endpoint: Object) -> str:
    return str((endpoint.get("targetRef") or {}).get("name", ""))
