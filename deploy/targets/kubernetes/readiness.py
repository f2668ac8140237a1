"""Watching the pods of a Deployment come up: what each is at, for people, and an early end where waiting is of no use.

The deadline starts anew with each replica that becomes ready in time: it is what one replica may take, from its scheduling over the
pull of its image, whose size is known, to its readiness. The time until old replicas make room for it, or until a node that is being
added takes it, comes on top of that. A rollout that has passed its deadline is never reported as a success.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deploy import progress
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clock import REAL, Clock
from deploy.errors import RolloutFailed
from deploy.targets.kubernetes.pods import STAGES, Pod, event_lines, log_tail

log = logging.getLogger(__name__)

_POLL = 0.5
_REFUSED = 10.0
# As long as an autoscaler that looks every ten seconds may take to say so.
_UNSCHEDULABLE = 30.0
# What the cluster autoscaler and Karpenter say of a pod for which they add a node, and how long the first of them waits for it.
_SCALING = frozenset({"TriggeredScaleUp", "Nominated"})
_NODE_WITHIN = 900.0


@dataclass(frozen=True)
class ExpectedPods:
    """What is waited for.

    Attributes:
        deployment: the Deployment's name.
        labels: those of its pods.
        template: what they shall be made of, in short.
        size: bytes of the image, for people.
        ready_within: seconds that a replica may take from its start until it is ready.
        within: seconds that it may take in all, with finding a node and pulling the image.
    """

    deployment: str
    labels: Mapping[str, str]
    pod_template: str
    size: int
    ready_within: float
    replica_seconds: float


@dataclass
class ReadinessWait:
    """A rollout that is under way.

    Args:
        cluster: where.
        wanted: what is waited for.
        clock: tells the time.

    Attributes:
        times: for each pod, how many seconds after the start of the watch it was first seen in each stage.
    """

    cluster: Cluster
    wanted: ExpectedPods
    clock: Clock = REAL
    times: dict[str, dict[str, float]] = field(default_factory=dict)

    def until_ready(self, each: Callable[[], None] = lambda: None) -> list[Pod]:
        """Waits until every replica runs the image and is ready; returns their pods.

        Args:
            each: called between two looks.

        Raises:
            RolloutFailed: a replica cannot become ready, or did not in time; events and the end of its log are in the detail.
        """
        self._began = self._moved = self.clock.now()
        self._since: dict[str, float] = {}
        self._ends: Mapping[str, Mapping[str, int]] | None = None
        while True:
            deployment = self.cluster.find("Deployment", self.wanted.deployment) or {}
            all_pods = [Pod(item) for item in self.cluster.list("Pod", self.wanted.labels)]
            if self._ends is None:
                # Replicas of before may have been started again at any time of their lives.
                self._ends = {pod.name: pod.exit_counts for pod in all_pods}
            pods = [
                pod
                for pod in all_pods
                if pod.pod_template == self.wanted.pod_template and not pod.ending
            ]
            self._note(pods)
            self._fail_early(deployment, pods, makes_room=self._makes_room(all_pods))
            if self._late():
                self._too_late(pods)
            if (
                _complete(deployment)
                and all(pod.ready for pod in pods)
                and len(pods) == deployment["spec"].get("replicas", 1)
            ):
                return pods
            each()
            self.clock.sleep(_POLL)

    def _makes_room(self, pods: list[Pod]) -> bool:
        """Whether a pod is about to go; one that outstays its time may be on a node that is gone, and stay for ever."""
        left = [
            pod.grace_period - self._waited(f"{pod.name} to go")
            for pod in pods
            if pod.is_terminating
        ]
        return max(left, default=-1.0) >= 0

    def _note(self, pods: list[Pod]) -> None:
        for pod in pods:
            seen = self.times.setdefault(pod.name, {})
            if pod.stage and pod.stage not in seen:
                for stage in STAGES[: STAGES.index(pod.stage) + 1]:
                    seen.setdefault(stage, self._passed())
                log.info("pod    %s %s", pod.name, self._said(pod, seen))
                if pod.ready and not self._late():
                    self._moved = self.clock.now()
        waiting = [pod for pod in pods if not pod.ready]
        if waiting:
            at = progress.format_seconds(self._passed())
            progress.report(
                f"{len(pods) - len(waiting)} of {len(pods)} ready, {at}: {self._doing(waiting[0])}"
            )

    def _late(self) -> bool:
        return self.clock.now() - self._moved > self.wanted.replica_seconds

    def _passed(self) -> float:
        return self.clock.now() - self._began

    def _said(self, pod: Pod, seen: Mapping[str, float]) -> str:
        if pod.stage == "scheduled":
            return f"scheduled, pulling up to {progress.format_size(self.wanted.size)}"
        if len(set(seen.values())) == 1:
            # It was all of that before anybody looked.
            return pod.stage
        steps = itertools.pairwise(STAGES)
        took = ", ".join(
            f"{after} after {progress.format_seconds(seen[after] - seen[before])}"
            for before, after in steps
            if after in seen
        )
        return f"{pod.stage}: {took}"

    def _doing(self, pod: Pod) -> str:
        doing = {
            "": "waiting for a node",
            "scheduled": "pulling",
            "started": "loading the model",
            "loaded": "not ready yet",
        }
        return f"{pod.name} {doing.get(pod.stage, pod.stage)}"

    def _fail_early(self, deployment: Object, pods: list[Pod], *, makes_room: bool) -> None:
        if deployment.get("spec", {}).get("paused") and _is_current(deployment) and not pods:
            cure = (
                f"`kubectl rollout resume deployment/{self.wanted.deployment}`, then release again"
            )
            raise self._stuck("the Deployment is paused, so no replica is made anew", cure)
        self._fail_refused(deployment, makes_room=makes_room)
        for pod in pods:
            problem = pod.problem_since((self._ends or {}).get(pod.name, {}))
            if problem:
                raise self._failed(problem, pod)
            if self._is_late(pod):
                raise self._failed(
                    f"a replica was not ready within {progress.format_seconds(self.wanted.ready_within)} of its start",
                    pod,
                )
            if pod.scheduling_problem:
                self._wait_for_room(pod, makes_room=makes_room)

    def _fail_refused(self, deployment: Object, *, makes_room: bool) -> None:
        """Gives up on pods that may not be made, unless others that count in a quota are about to go, or have only just gone."""
        refused = _condition(deployment, "ReplicaFailure")
        name = self.wanted.deployment
        if refused.get("status") != "True" or not _is_current(deployment):
            self._since.pop(name, None)
        elif makes_room:
            self._wait_anew(name)
        elif self._waited(name) > _REFUSED:
            what = f"the cluster makes no pods: {refused.get('reason', '')}"
            cure = "mend what the message names (a quota, a policy)"
            raise self._stuck(
                what, f"{cure}, then release again", f"    {refused.get('message', '')}"
            )

    def _waited(self, name: str) -> float:
        """For how long something has been waited for."""
        return self.clock.now() - self._since.setdefault(name, self.clock.now())

    def _wait_anew(self, name: str) -> None:
        """Begins to count again what something that waits for others may take; theirs is not among it."""
        self._since.pop(name, None)
        self._moved = self.clock.now()

    def _is_late(self, pod: Pod) -> bool:
        """Whether a pod has been running for too long without ever having been ready."""
        seen = self.times[pod.name]
        return (
            "started" in seen
            and "ready" not in seen
            and self._passed() - seen["started"] > self.wanted.ready_within
        )

    def _wait_for_room(self, pod: Pod, *, makes_room: bool) -> None:
        """Gives up on a pod that found no node for long enough, unless others make room for it, or a node is being added."""
        if makes_room:
            self._wait_anew(pod.name)
            return
        waited = self._waited(pod.name)
        if waited <= _UNSCHEDULABLE:
            return
        if waited > _NODE_WITHIN or not any(
            event.get("reason") in _SCALING for event in self.cluster.events(pod.name)
        ):
            raise self._failed(f"no node can take a replica: {pod.scheduling_problem}", pod)
        self._moved = self.clock.now()

    def _too_late(self, pods: list[Pod]) -> None:
        within = progress.format_seconds(self.wanted.replica_seconds)
        waiting = next((pod for pod in pods if not pod.ready), None)
        if waiting:
            raise self._failed(f"a replica was not ready within {within}", waiting)
        events = event_lines(self.cluster.events(self.wanted.deployment))
        raise self._stuck(
            f"the rollout was not complete within {within}",
            "`kubectl describe` on it shows what it waits for",
            events,
        )

    def _stuck(self, what: str, cure: str, detail: str = "") -> RolloutFailed:
        return RolloutFailed(
            what, on=f"Deployment {self.wanted.deployment}", next=cure, detail=detail
        )

    def _failed(self, what: str, pod: Pod) -> RolloutFailed:
        events = event_lines(self.cluster.events(pod.name)) or "    (none)"
        return RolloutFailed(
            what,
            on=f"pod {pod.name}",
            next="events and log show why",
            detail=f"  its events end with:\n{events}\n  its log ends with:\n{log_tail(self.cluster, pod)}",
        )


def _is_current(deployment: Object) -> bool:
    """Whether the Deployment's controller has seen its last change."""
    return int(deployment.get("status", {}).get("observedGeneration", 0)) >= int(
        deployment["metadata"].get("generation", 0)
    )


def _complete(deployment: Object) -> bool:
    """Whether all pods of a Deployment are new and available."""
    if not deployment:
        return False
    status = deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return _is_current(deployment) and all(count == wanted for count in counts)


def _condition(deployment: Object, kind: str) -> Object:
    return next(
        (
            item
            for item in deployment.get("status", {}).get("conditions") or []
            if item.get("type") == kind
        ),
        {},
    )
