"""What a cluster knows of an object: the fields that its version lacks are left out or replaced.

Old API servers refuse an object with unknown fields. The object templates use those of current
clusters, and none of them is needed for a release.

Sources: the Kubernetes documentation, "Feature Gates" and "Version Skew Policy".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cached_property

from deploy.clients.kubernetes.protocol import Cluster, Object

Version = tuple[int, int]
"""Major and minor version of an API server."""

_UNHEALTHY_POD_EVICTION_POLICY: Version = (1, 27)
_MATCH_LABEL_KEYS: Version = (1, 27)
# Nodes know it since 1.30, and may be three minor versions older than the API server. One that
# does not know it would not pause at all.
_SLEEP: Version = (1, 33)


class Compatibility:
    """The fields that one cluster knows.

    Args:
        cluster: the cluster; its version is requested once.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @cached_property
    def _version(self) -> Version:
        return parse_version(self._cluster.version())

    def fit(self, item: Object) -> Object:
        """Return an object as this cluster accepts it."""
        return fit(item, self._version)


def parse_version(text: str) -> Version:
    """Return the version in a text such as v1.33.1-eks-1; the lowest one if there is none."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def fit(item: Object, version: Version) -> Object:
    """Return an object as clusters of a version accept it."""
    fitted = deepcopy(item)
    spec = fitted.get("spec", {})
    if fitted["kind"] == "PodDisruptionBudget" and version < _UNHEALTHY_POD_EVICTION_POLICY:
        spec.pop("unhealthyPodEvictionPolicy", None)
    pod = spec.get("template", {}).get("spec", {})
    if version < _MATCH_LABEL_KEYS:
        for spread in pod.get("topologySpreadConstraints", []):
            spread.pop("matchLabelKeys", None)
    if version < _SLEEP:
        for hook in _hooks(pod):
            _replace_sleep(hook)
    return fitted


def _hooks(pod: Object) -> Iterator[Object]:
    for container in (*pod.get("initContainers", []), *pod.get("containers", [])):
        yield from container.get("lifecycle", {}).values()


def _replace_sleep(hook: Object) -> None:
    """Let a program in the image sleep, instead of the node."""
    if "sleep" in hook:
        hook["exec"] = {"command": ["sleep", str(hook.pop("sleep").get("seconds", 0))]}
