"""The pre-pull of an image before a rollout: a DaemonSet that is removed when its pods run."""

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
# A node that has not started its pod by then is lost, or has no room for it.
_START_SECONDS = 30.0


def prepull(
    cluster: Cluster,
    daemon_set: Object,
    seconds: float,
    clock: Clock = REAL,
    require: Callable[[], None] = lambda: None,
) -> None:
    """Pull an image to every node that may run it.

    A node that cannot pull it delays nothing: its replica pulls the image itself.

    Args:
        cluster: the namespace of the environment.
        daemon_set: the DaemonSet whose pods have the image.
        seconds: the time limit.
        clock: the clock by which it waits.
        require: called before each write, and between two looks.
    """
    name = daemon_set["metadata"]["name"]
    started = clock.now()
    cluster.apply(daemon_set, require=require)
    try:
        while not _is_over(cluster, daemon_set, clock.now() - started, seconds):
            require()
            clock.sleep(_POLL)
    finally:
        with suppress(ClusterError, RolloutLocked):
            cluster.delete("DaemonSet", name, require=require)


def _is_over(cluster: Cluster, daemon_set: Object, elapsed: float, limit: float) -> bool:
    found = cluster.find("DaemonSet", daemon_set["metadata"]["name"]) or {}
    status = found.get("status", {})
    generation = found.get("metadata", {}).get("generation", 1)
    nodes = status.get("desiredNumberScheduled", 0)
    is_current = status.get("observedGeneration", 0) >= generation
    pods = _pods(cluster, daemon_set)
    done = sum(map(_has_image, pods))
    duration = progress.format_seconds(elapsed)
    if is_current and done >= nodes:
        log.info("pull   %s pulled the image, in %s", progress.format_count(done, "node"), duration)
        return True
    if elapsed > limit or (is_current and _pending_nodes(pods, nodes, elapsed) <= 0):
        message = "pull   %d of %d nodes have the image after %s; going on"
        log.warning(message, done, nodes, duration)
        return True
    progress.report(f"{done} of {nodes} nodes have the image")
    return False


def _pending_nodes(pods: list[Pod], nodes: int, elapsed: float) -> int:
    """Return how many nodes may have the image soon.

    A node that cannot pull it does not count, and after a while one that has not started either.
    """
    pulling = [pod for pod in pods if not _has_image(pod) and not pod.problem]
    if elapsed > _START_SECONDS:
        return sum(pod.is_known_to_node for pod in pulling)
    return nodes - len(pods) + len(pulling)


def _has_image(pod: Pod) -> bool:
    return pod.stage in ("started", "loaded", "ready")


def _pods(cluster: Cluster, daemon_set: Object) -> list[Pod]:
    """Return the pods with this image; a killed deployer may have left others."""
    pods = map(Pod, cluster.list("Pod", daemon_set["spec"]["selector"]["matchLabels"]))
    image = image_digest(templates.app_container(templates.pod_spec(daemon_set)))
    return [pod for pod in pods if pod.image == image and pod.is_active]
