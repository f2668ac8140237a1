"""One pod as its status tells it: how far it has come, whether it can still get there, and what to show of it if not.

Source: the Kubernetes documentation, "Pod Lifecycle", and the API reference, "Pod v1 core".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.errors import ClusterError
from deploy.targets.kubernetes.render import IMAGE_LABEL, TRACK_LABEL

TEMPLATE_ANNOTATION = "twinship.dev/template"
"""On pods: what they were made of, in short; two pods of one image may differ in all else."""
STAGES = ("scheduled", "started", "loaded", "ready")
# What the kubelet has tried and will only try again; a first failure of a pull is not among them, it may be a passing one.
_HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ImageInspectError",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "RunContainerError",
    }
)
_LINES = 15


def image_digest(container: Object) -> str:
    """The digest of the image that a container runs; the whole name of one without."""
    return str(container.get("image", "")).rpartition("@")[2]


@dataclass(frozen=True)
class Pod:
    """A pod of ours."""

    item: Object

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.item["metadata"]["name"])

    @property
    def image(self) -> str:
        """The digest of the image that it was made to run; of several containers the noted one counts, if it is there."""
        runs = [
            image_digest(container)
            for container in self.item.get("spec", {}).get("containers") or []
        ]
        noted = self._annotations.get(IMAGE_LABEL, "")
        return noted if noted in runs else next(iter(runs), "")

    @property
    def pod_template(self) -> str:
        """What it was made of, in short."""
        return str(self._annotations.get(TEMPLATE_ANNOTATION, ""))

    @property
    def track(self) -> str:
        """Which of the two Deployments it belongs to."""
        return str((self.item["metadata"].get("labels") or {}).get(TRACK_LABEL, ""))

    @property
    def is_terminating(self) -> bool:
        """Whether it was asked to go, and is still there."""
        return "deletionTimestamp" in self.item["metadata"]

    @property
    def grace_period(self) -> float:
        """How many seconds it was given to go."""
        return float(self.item["metadata"].get("deletionGracePeriodSeconds") or 0)

    @property
    def ending(self) -> bool:
        """Whether it was asked to go, or has ended."""
        return self.is_terminating or self.item.get("status", {}).get("phase") in (
            "Succeeded",
            "Failed",
        )

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return not self.ending and self._condition("Ready").get("status") == "True"

    @property
    def restarts(self) -> int:
        """How often a container of it was started again."""
        return sum(
            int(status.get("restartCount", 0))
            for status in self._containers("initContainerStatuses", "containerStatuses")
        )

    @property
    def node_address(self) -> str:
        """The address of its node; empty before it has one."""
        return str(self.item.get("status", {}).get("hostIP", ""))

    @property
    def stage(self) -> str:
        """How far it has come: one of STAGES, or empty."""
        containers = self._containers("containerStatuses")
        if self.ready:
            return "ready"
        if containers and all(status.get("started") for status in containers):
            return "loaded"
        if containers and all("running" in (status.get("state") or {}) for status in containers):
            return "started"
        return "scheduled" if self._condition("PodScheduled").get("status") == "True" else ""

    @property
    def is_known_to_node(self) -> bool:
        """Whether its node has taken notice of it; one that is away does not."""
        return bool(self._containers("containerStatuses"))

    @property
    def scheduling_problem(self) -> str:
        """Why no node takes it; empty if one does, or none was asked yet."""
        scheduled = self._condition("PodScheduled")
        return (
            str(scheduled.get("message") or "no node fits")
            if scheduled.get("reason") == "Unschedulable"
            else ""
        )

    @property
    def problem(self) -> str:
        """Why it will not become ready by waiting; empty if it may."""
        return self.problem_since({})

    def problem_since(self, ends: Mapping[str, int]) -> str:
        """The same where its containers had ended that often before: those ends say nothing of what comes after them."""
        statuses = self._containers("initContainerStatuses", "containerStatuses")
        return next(
            filter(None, (_problem(status, ends.get(_name(status))) for status in statuses)), ""
        )

    @property
    def exit_counts(self) -> dict[str, int]:
        """How often each of its containers has ended."""
        return {
            _name(status): _ends(status)
            for status in self._containers("initContainerStatuses", "containerStatuses")
        }

    @property
    def _annotations(self) -> Mapping[str, str]:
        return self.item["metadata"].get("annotations") or {}

    def _condition(self, kind: str) -> Mapping[str, Any]:
        conditions = self.item.get("status", {}).get("conditions") or []
        return next((condition for condition in conditions if condition.get("type") == kind), {})

    def _containers(self, *places: str) -> list[Mapping[str, Any]]:
        status = self.item.get("status", {})
        return [container for place in places for container in status.get(place) or []]


def _problem(status: Mapping[str, Any], ends: int | None) -> str:
    """Why a container will not become ready by waiting."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    ended = _last_end(status)
    hopeless = waiting.get("reason") in _HOPELESS
    if ended and not status.get("ready") and (hopeless or _ends(status) != ends):
        code = ended.get("exitCode")
        reason = ended.get("reason") or ""
        return f"a replica ended with exit code {code}{f' ({reason})' if reason not in ('', 'Error') else ''} before it was ready"
    return (
        f"a replica cannot start: {waiting['reason']}{_after(waiting.get('message'))}"
        if hopeless
        else ""
    )


def _last_end(status: Mapping[str, Any]) -> Mapping[str, Any]:
    now = status.get("state") or {}
    before = status.get("lastState") or {}
    return now.get("terminated") or before.get("terminated") or {}


def _ends(status: Mapping[str, Any]) -> int:
    """How often a container has ended: once before each time that it was started again, and once more if it does not run."""
    stands = "running" not in (status.get("state") or {}) and bool(_last_end(status))
    return int(status.get("restartCount", 0)) + stands


def _name(status: Mapping[str, Any]) -> str:
    return str(status.get("name", ""))


def _after(message: object) -> str:
    return f", {message}" if message else ""


def event_lines(events: list[Object], lines: int = 6) -> str:
    """The last events about a thing, a line each, for people."""
    shown = [
        f"    {event.get('reason', '')}: {' '.join(str(event.get('message', '')).split())}"
        for event in events[-lines:]
    ]
    return "\n".join(shown)


def log_tail(cluster: Cluster, pod: Pod) -> str:
    """The end of what a pod wrote, for people; what went wrong with it is told even where its log may not be read."""
    try:
        lines = cluster.log(pod.name, _LINES).rstrip().splitlines()
    except ClusterError as error:
        lines = [f"(cannot be read: {error.what})"]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"
