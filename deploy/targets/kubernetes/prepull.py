"""Having nodes pull an image before a rollout needs it: a DaemonSet that lives until each of its pods has started."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from deploy import progress
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clock import REAL, Clock
from deploy.errors import ClusterError, RolloutLocked
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.pods import Pod, image_digest

log = logging.getLogger(__name__)

_POLL = 0.5
# A node that has not begun with its pod for so long is away, or has no room for it.
_BEGUN_WITHIN = 30.0


def prepull(
    cluster: Cluster,
    daemons: Object,
    within: float,
    clock: Clock = REAL,
    require: Callable[[], None] = lambda: None,
) -> None:
    """Pulls an image to every node that may run it; a node that does not manage holds up nothing, its replica pulls for itself.

    Args:
        cluster: where.
        daemons: the DaemonSet.
        within: seconds that it may take.
        clock: tells the time.
        require: called before anything is changed, and between two looks.
    """
    name = daemons["metadata"]["name"]
    began = clock.now()
    cluster.apply(daemons, require=require)
    try:
        while not _is_over(cluster, daemons, clock.now() - began, within):
            require()
            clock.sleep(_POLL)
    finally:
        with suppress(ClusterError, RolloutLocked):
            cluster.delete("DaemonSet", name, require=require)


def _is_over(cluster: Cluster, daemons: Object, passed: float, within: float) -> bool:
    found = cluster.find("DaemonSet", daemons["metadata"]["name"]) or {}
    status = found.get("status", {})
    generation = found.get("metadata", {}).get("generation", 1)
    wanted = status.get("desiredNumberScheduled", 0)
    is_current = status.get("observedGeneration", 0) >= generation
    pods = _pods(cluster, daemons)
    started = sum(map(_has_image, pods))
    if is_current and started >= wanted:
        log.info(
            "pull   %s pulled the image, in %s",
            progress.format_count(started, "node"),
            progress.format_seconds(passed),
        )
        return True
    if passed > within or (is_current and _awaited(pods, wanted, passed) <= 0):
        log.warning(
            "pull   %d of %d nodes have the image after %s; going on",
            started,
            wanted,
            progress.format_seconds(passed),
        )
        return True
    progress.report(f"{started} of {wanted} nodes have the image")
    return False


def _awaited(pods: list[Pod], wanted: int, passed: float) -> int:
    """How many nodes may have the image soon: none that cannot pull it, and after a while none that has not begun to."""
    pulling = [pod for pod in pods if not _has_image(pod) and not pod.problem]
    return (
        sum(pod.is_known_to_node for pod in pulling)
        if passed > _BEGUN_WITHIN
        else wanted - len(pods) + len(pulling)
    )


def _has_image(pod: Pod) -> bool:
    return pod.stage in ("started", "loaded", "ready")


def _pods(cluster: Cluster, daemons: Object) -> list[Pod]:
    """Those of this image; others may be left of a warm-up that was killed."""
    found = map(Pod, cluster.list("Pod", daemons["spec"]["selector"]["matchLabels"]))
    image = image_digest(templates.app_container(templates.pod_spec(daemons)))
    return [pod for pod in found if pod.image == image and not pod.ending]
