"""One pod: its progress, its place, and the events and log for people.

Source: the Kubernetes documentation, "Pod Lifecycle", and the API reference, "Pod v1 core".
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clients.kubernetes.transport import one_line
from deploy.errors import ClusterError, ClusterForbidden, format_log_tail
from deploy.records import Exit
from deploy.targets.kubernetes.pod_problems import (
    count_exits,
    find_last_exit,
    find_problem,
    is_crash_looping,
)
from deploy.targets.kubernetes.pod_variables import read_secrets, secret_sources
from deploy.targets.kubernetes.render import IMAGE_LABEL, TRACK_LABEL
from deploy.variables import Variables

TEMPLATE_ANNOTATION = "twinship.dev/template"
"""On pods: a hash of their template; two pods of one image may differ in everything else."""
STAGES = ("scheduled", "started", "loaded", "ready")
_LOG_LINES = 15


def image_digest(container: Object) -> str:
    """Return the digest of a container's image; the whole name of an image without one."""
    return str(container.get("image", "")).rpartition("@")[2]


@dataclass(frozen=True)
class Pod:
    """A pod of an environment."""

    item: Object

    @property
    def name(self) -> str:
        """The name of the pod."""
        return str(self.item["metadata"]["name"])

    @property
    def image(self) -> str:
        """The digest of the image that it runs.

        Of several containers it is the one in the pod's annotation, if one of them runs it.
        """
        digests = [
            image_digest(container)
            for container in self.item.get("spec", {}).get("containers") or []
        ]
        annotated = self._annotations.get(IMAGE_LABEL, "")
        return annotated if annotated in digests else next(iter(digests), "")

    @property
    def pod_template(self) -> str:
        """The hash of the template that it was created from."""
        return str(self._annotations.get(TEMPLATE_ANNOTATION, ""))

    @property
    def track(self) -> str:
        """The track to which it belongs."""
        return str((self.item["metadata"].get("labels") or {}).get(TRACK_LABEL, ""))

    @property
    def is_terminating(self) -> bool:
        """Whether it was deleted and still exists."""
        return "deletionTimestamp" in self.item["metadata"]

    @property
    def grace_period(self) -> float:
        """The seconds that a terminating pod may take to stop."""
        return float(self.item["metadata"].get("deletionGracePeriodSeconds") or 0)

    @property
    def is_active(self) -> bool:
        """Whether it was not deleted and has not ended."""
        has_ended = self.item.get("status", {}).get("phase") in ("Succeeded", "Failed")
        return not self.is_terminating and not has_ended

    @property
    def ready(self) -> bool:
        """Whether it gets requests."""
        return self.is_active and find_condition(self.item, "Ready").get("status") == "True"

    @property
    def restarts(self) -> int:
        """The number of restarts of its containers."""
        return sum(
            int(status.get("restartCount", 0))
            for status in self._containers("initContainerStatuses", "containerStatuses")
        )

    @property
    def started(self) -> datetime | None:
        """When the youngest process of its containers was started; None if none runs."""
        statuses = self._containers("containerStatuses")
        running = [(status.get("state") or {}).get("running") or {} for status in statuses]
        times = [str(run["startedAt"]) for run in running if run.get("startedAt")]
        return max(map(datetime.fromisoformat, times), default=None)

    @property
    def last_exit(self) -> Exit | None:
        """How the last process of its containers ended; None if none has."""
        found = [find_last_exit(status) for status in self._containers("containerStatuses")]
        return max(filter(None, found), key=_ended_at, default=None)

    @property
    def node_address(self) -> str:
        """The address of its node; empty before it has one."""
        return str(self.item.get("status", {}).get("hostIP", ""))

    @property
    def stage(self) -> str:
        """Its progress: one of STAGES, or empty."""
        containers = self._containers("containerStatuses")
        if self.ready:
            return "ready"
        if containers and all(status.get("started") for status in containers):
            return "loaded"
        if containers and all("running" in (status.get("state") or {}) for status in containers):
            return "started"
        return (
            "scheduled" if find_condition(self.item, "PodScheduled").get("status") == "True" else ""
        )

    @property
    def is_known_to_node(self) -> bool:
        """Whether the kubelet of its node has reported its containers; an absent one does not."""
        return bool(self._containers("containerStatuses"))

    @property
    def scheduling_problem(self) -> str:
        """Why no node takes it; empty if one does, or if the scheduler has not tried yet."""
        scheduled = find_condition(self.item, "PodScheduled")
        return (
            str(scheduled.get("message") or "no node fits")
            if scheduled.get("reason") == "Unschedulable"
            else ""
        )

    @property
    def problem(self) -> str:
        """Why it cannot become ready any more; empty if it may."""
        return self.problem_since({})

    def problem_since(self, exit_counts: Mapping[str, int]) -> str:
        """Return why it cannot become ready, ignoring the exits that were already counted."""
        statuses = self._containers("initContainerStatuses", "containerStatuses")
        problems = (find_problem(status, exit_counts.get(_name(status))) for status in statuses)
        return next(filter(None, problems), "")

    def is_crash_looping(self, now: datetime) -> bool:
        """Return whether one of its containers, which may be ready now, ends again and again."""
        statuses = self._containers("containerStatuses")
        return any(is_crash_looping(status, now) for status in statuses)

    @property
    def exit_counts(self) -> dict[str, int]:
        """The number of exits of each of its containers."""
        return {
            _name(status): count_exits(status)
            for status in self._containers("initContainerStatuses", "containerStatuses")
        }

    @property
    def _annotations(self) -> Mapping[str, str]:
        return self.item["metadata"].get("annotations") or {}

    def _containers(self, *keys: str) -> list[Mapping[str, Any]]:
        status = self.item.get("status", {})
        return [container for key in keys for container in status.get(key) or []]


def _ended_at(value: Exit) -> float:
    return value.at.timestamp() if value.at else 0.0


def find_condition(item: Object, kind: str) -> Object:
    """Return the condition of that kind in the status of a pod or Deployment; empty if none."""
    conditions = item.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def _name(status: Mapping[str, Any]) -> str:
    return str(status.get("name", ""))


def find_probe_failure(events: list[Object]) -> str:
    """Return what the last failed probe reported, such as a status of 404; empty if none failed."""
    messages = [event.get("message") for event in events if event.get("reason") == "Unhealthy"]
    return one_line(messages[-1]) if messages else ""


def event_lines(events: list[Object], count: int = 6) -> str:
    """Return the last events of an object for people, one on a line."""
    lines = [
        f"    {event.get('reason', '')}: {' '.join(str(event.get('message', '')).split())}"
        for event in events[-count:]
    ]
    return "\n".join(lines)


def log_tail(cluster: Cluster, pod: Pod) -> str:
    """Return the last lines of a pod's log for people, or why the log cannot be read.

    The secrets of its variables are left out.
    """
    try:
        text = cluster.log(pod.name, _LOG_LINES)
    except ClusterError as error:
        text = f"(cannot be read: {error.what})"
    return format_log_tail(Variables(secrets=find_secrets(cluster, pod)).hide(text))


def find_secrets(cluster: Cluster, pod: Pod) -> dict[str, str]:
    """Return the secrets that a pod's variables name, as far as this account may read them."""
    found: dict[str, str] = {}
    for source in secret_sources(pod.item):
        # Those that a template names need not be readable.
        with suppress(ClusterForbidden):
            secrets = read_secrets(cluster, source)
            found |= {f"{source}/{key}": value for key, value in secrets.items()}
    return found
