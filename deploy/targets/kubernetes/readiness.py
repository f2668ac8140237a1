"""The wait until the pods of a Deployment are ready, which ends early where waiting cannot help.

The deadline is the time that one replica may take: to be scheduled, to pull its image, whose size
is known, and to become ready. It restarts with each replica that becomes ready in time. The time
until old replicas make room, or until a new node joins, does not count. A rollout that has passed
its deadline is never reported as a success.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy import progress
from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.clients.kubernetes.transport import one_line
from deploy.clock import REAL, Clock
from deploy.errors import RolloutFailed
from deploy.targets.kubernetes.pod_progress import ExpectedPods, PodProgress, Times
from deploy.targets.kubernetes.pods import (
    Pod,
    event_lines,
    find_condition,
    find_probe_failure,
    log_tail,
)

_POLL = 0.5
_REFUSED_SECONDS = 10.0
# An autoscaler that looks every ten seconds may take that long to react.
_UNSCHEDULABLE_SECONDS = 30.0
# The events of the cluster autoscaler and of Karpenter for a pod for which they add a node, and
# how long the cluster autoscaler waits for that node.
_SCALING_EVENTS = frozenset({"TriggeredScaleUp", "Nominated"})
_NEW_NODE_SECONDS = 900.0


@dataclass(frozen=True)
class ReadinessWait:
    """A wait for the pods of a rollout.

    Args:
        cluster: the namespace of the Deployment.
        expected: the pods that are waited for.
        clock: the clock by which it waits.
    """

    cluster: Cluster
    expected: ExpectedPods
    clock: Clock = REAL

    def until_ready(self, times: Times, each: Callable[[], None] = lambda: None) -> list[Pod]:
        """Wait until every replica runs the image and is ready; return their pods.

        Args:
            times: receives the times of each pod, also if the wait fails.
            each: called between two looks.

        Raises:
            RolloutFailed: a replica cannot become ready, or did not in time; the detail has its
                events and the end of its log.
        """
        started = self.clock.now()
        deployment, all_pods = self._look()
        exit_counts = {pod.name: pod.exit_counts for pod in all_pods}
        rollout = PodProgress(self.expected, self.clock, started, exit_counts, times)
        while True:
            pods = [pod for pod in all_pods if pod.is_active and self._is_expected(pod)]
            rollout.record(pods)
            self.fail_early(rollout, deployment, pods, makes_room=_makes_room(rollout, all_pods))
            if rollout.is_late:
                self._fail_late(pods)
            if _are_ready(pods, deployment):
                return pods
            each()
            self.clock.sleep(_POLL)
            deployment, all_pods = self._look()

    def _look(self) -> tuple[Object, list[Pod]]:
        deployment = self.cluster.find("Deployment", self.expected.deployment) or {}
        return deployment, [Pod(item) for item in self.cluster.list("Pod", self.expected.labels)]

    def _is_expected(self, pod: Pod) -> bool:
        return pod.pod_template == self.expected.pod_template

    # --- early failure

    def fail_early(
        self, rollout: PodProgress, deployment: Object, pods: list[Pod], *, makes_room: bool
    ) -> None:
        """Fail if waiting cannot help.

        Args:
            rollout: the progress so far.
            deployment: the Deployment as it is now; empty if there is none.
            pods: its new pods.
            makes_room: whether another pod is about to go.

        Raises:
            RolloutFailed: a replica cannot become ready, or cannot be created.
        """
        self._fail_if_paused(deployment, pods)
        self._fail_if_refused(rollout, deployment, makes_room=makes_room)
        for pod in pods:
            problem = rollout.problem(pod)
            if problem:
                raise self._pod_failure(problem, pod, self.cluster.events(pod.name))
            if rollout.is_pod_late(pod):
                limit = progress.format_seconds(self.expected.ready_within)
                raise self._not_ready_failure(f"{limit} of its start", pod)
            if pod.scheduling_problem:
                self._wait_for_node(rollout, pod, makes_room=makes_room)

    def _fail_if_paused(self, deployment: Object, pods: list[Pod]) -> None:
        is_paused = deployment.get("spec", {}).get("paused")
        if is_paused and _is_current(deployment) and not pods:
            command = f"kubectl rollout resume deployment/{self.expected.deployment}"
            raise self._failure(
                "the Deployment is paused, so no new replica is created",
                f"`{command}`, then release again",
            )

    def _fail_if_refused(
        self, rollout: PodProgress, deployment: Object, *, makes_room: bool
    ) -> None:
        """Fail if pods may not be created, unless others that use the quota are about to go."""
        refused = find_condition(deployment, "ReplicaFailure")
        name = self.expected.deployment
        if refused.get("status") != "True" or not _is_current(deployment):
            rollout.stop_waiting(name)
        elif makes_room:
            rollout.wait_for_others(name)
        elif rollout.waited(name) > _REFUSED_SECONDS:
            raise self._failure(
                f"the cluster creates no pods: {one_line(refused.get('message'))}",
                "fix what it names (a quota, a policy), then release again",
            )

    def _wait_for_node(self, rollout: PodProgress, pod: Pod, *, makes_room: bool) -> None:
        """Fail if a pod has had no node for too long, unless there will be room or a new node."""
        if makes_room:
            rollout.wait_for_others(pod.name)
            return
        waited = rollout.waited(pod.name)
        if waited <= _UNSCHEDULABLE_SECONDS:
            return
        events = self.cluster.events(pod.name)
        if waited > _NEW_NODE_SECONDS or not _is_node_coming(events):
            what = f"no node can take a replica: {pod.scheduling_problem}"
            raise self._pod_failure(what, pod, events)
        rollout.restart_deadline()

    # --- late failure

    def _fail_late(self, pods: list[Pod]) -> None:
        limit = progress.format_seconds(self.expected.replica_seconds)
        waiting = next((pod for pod in pods if not pod.ready), None)
        if waiting:
            raise self._not_ready_failure(limit, waiting)
        raise self._failure(
            f"the rollout was not complete within {limit}",
            "`kubectl describe` on it shows what it waits for",
            event_lines(self.cluster.events(self.expected.deployment)),
        )

    def _failure(self, what: str, fix: str, detail: str = "") -> RolloutFailed:
        on = f"Deployment {self.expected.deployment}"
        return RolloutFailed(what, on=on, next=fix, detail=detail)

    def _not_ready_failure(self, limit: str, pod: Pod) -> RolloutFailed:
        what = f"a replica was not ready within {limit}"
        events = self.cluster.events(pod.name)
        answer = find_probe_failure(events)
        if not answer:
            return self._pod_failure(what, pod, events)
        fix = "let it answer 200 at the path `ready` of [app] once it can serve; see also its log"
        return self._pod_failure(f"{what}: {answer}", pod, events, fix)

    def _pod_failure(
        self, what: str, pod: Pod, events: list[Object], fix: str = "events and log show why"
    ) -> RolloutFailed:
        events_text = event_lines(events) or "    (none)"
        lines = log_tail(self.cluster, pod)
        return RolloutFailed(
            what,
            on=f"pod {pod.name}",
            next=fix,
            detail=f"  its events end with:\n{events_text}\n  its log ends with:\n{lines}",
        )


def is_complete(deployment: Object) -> bool:
    """Return whether all pods of a Deployment are new and available."""
    if not deployment:
        return False
    status = deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return _is_current(deployment) and all(count == wanted for count in counts)


def _is_node_coming(events: list[Object]) -> bool:
    return any(event.get("reason") in _SCALING_EVENTS for event in events)


def _are_ready(pods: list[Pod], deployment: Object) -> bool:
    """Return whether a Deployment is complete and these are all its pods, ready."""
    return (
        is_complete(deployment)
        and all(pod.ready for pod in pods)
        and len(pods) == deployment["spec"].get("replicas", 1)
    )


def _makes_room(rollout: PodProgress, pods: list[Pod]) -> bool:
    """Return whether a pod is about to go.

    One that exceeds its grace period may be on a lost node and stay forever.
    """
    left = [
        pod.grace_period - rollout.waited(f"{pod.name} to go") for pod in pods if pod.is_terminating
    ]
    return max(left, default=-1.0) >= 0


def _is_current(deployment: Object) -> bool:
    """Return whether the Deployment's controller has seen its last change."""
    return int(deployment.get("status", {}).get("observedGeneration", 0)) >= int(
        deployment["metadata"].get("generation", 0)
    )
