"""The logs of an environment on a cluster: those of its pods, whether they run or have ended."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.clients.kubernetes.protocol import Cluster
from deploy.clients.log_lines import TimedLine
from deploy.rollout.logs import LogSource, Window
from deploy.targets.kubernetes.pods import Pod, find_secrets
from deploy.targets.kubernetes.render import Rendering
from deploy.variables import Variables


def find_log_sources(cluster: Cluster, rendering: Rendering) -> tuple[LogSource, ...]:
    """Return the logs of all pods without secrets, by their names without the environment's."""
    return tuple(
        _source(cluster, pod, pod.name.removeprefix(f"{rendering.name}-"))
        for pod in map(Pod, cluster.list("Pod", rendering.labels))
    )


def _source(cluster: Cluster, pod: Pod, name: str) -> LogSource:
    def read(window: Window) -> Iterator[TimedLine]:
        variables = Variables(secrets=find_secrets(cluster, pod))
        for at, text in cluster.read_log(pod.name, window.since, window.lines):
            yield at, variables.hide(text)

    return LogSource(name, pod.image, read)
