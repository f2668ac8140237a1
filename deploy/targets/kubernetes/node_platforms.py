"""The check that the nodes of a cluster can run the programs of an image."""

from __future__ import annotations

import json
import logging

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import SettingsInvalid
from deploy.platforms import format_platform, is_platform

log = logging.getLogger(__name__)

_SELECTORS = ("kubernetes.io/arch", "beta.kubernetes.io/arch")
_KEPT_AWAY = ("NoSchedule", "NoExecute")


def require_node_platform(cluster: Cluster, pod: Object, platform: str) -> None:
    """Raise if no node on which pods may run has the platform of their image.

    Nothing is checked where this account may not read nodes, and where the pods select nodes by
    their processor themselves: such nodes may be added when a pod needs one.

    Args:
        cluster: the cluster.
        pod: the specification of the pods.
        platform: the platform of their image; empty if it is not known.

    Raises:
        SettingsInvalid: each node has another platform.
    """
    selector = pod.get("nodeSelector") or {}
    if not platform or _names_processor(selector, pod):
        return
    nodes = [node for node in cluster.nodes() or () if _is_selected(node, selector)]
    others = [node for node in nodes if not is_platform(platform, _platform(node))]
    if nodes and len(others) == len(nodes):
        found = " and ".join(sorted(set(map(_platform, others))))
        raise SettingsInvalid(
            f"the image is for {platform}, and the nodes are {found}",
            on=cluster.name,
            next=f'set `platform = "{found.partition(" ")[0]}"` in [image], or add other nodes',
        )
    open_others = [node for node in others if not _is_kept_free(node)]
    if open_others:
        log.warning(
            "the image is for %s, and %d of %d nodes are not; "
            "a node selector for %s in the Deployment's template keeps replicas away from them",
            platform,
            len(open_others),
            len(nodes),
            _SELECTORS[0],
        )


def _names_processor(selector: Object, pod: Object) -> bool:
    """Return whether pods require the processor of their nodes, by selector or affinity."""
    affinity = pod.get("affinity", {}).get("nodeAffinity", {})
    # As text, because only the API server checks the shape of the terms.
    terms = json.dumps(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"))
    return any(label in selector or f'"{label}"' in terms for label in _SELECTORS)


def _is_selected(node: Object, selector: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    return bool(selector.items() <= labels.items())


def _platform(node: Object) -> str:
    info = node.get("status", {}).get("nodeInfo", {})
    labels = node["metadata"].get("labels") or {}
    return format_platform(
        labels.get("kubernetes.io/os") or info.get("operatingSystem") or "linux",
        labels.get(_SELECTORS[0]) or info.get("architecture") or "",
    )


def _is_kept_free(node: Object) -> bool:
    """Return whether a taint keeps pods away that do not tolerate it."""
    taints = node.get("spec", {}).get("taints") or ()
    return any(taint.get("effect") in _KEPT_AWAY for taint in taints)
