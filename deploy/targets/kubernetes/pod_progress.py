"""The progress of a rollout's pods: when each reached which stage, and what is shown of it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy import progress
from deploy.clock import Clock
from deploy.targets.kubernetes.pods import STAGES, Pod

log = logging.getLogger(__name__)

Times = dict[str, dict[str, float]]
"""For each pod, the seconds after which it was first seen in each stage."""
_ACTIVITIES = {
    "": "waiting for a node",
    "scheduled": "pulling",
    "started": "loading the model",
    "loaded": "not ready yet",
}


@dataclass(frozen=True)
class ExpectedPods:
    """The pods that a rollout is to bring up.

    Attributes:
        deployment: the name of the Deployment.
        labels: the labels of its pods.
        pod_template: the hash of their template.
        image_bytes: the size of the image, for people.
        ready_within: seconds that a replica may take from its start until it is ready.
        replica_seconds: seconds that it may take in all, with scheduling and the pull.
    """

    deployment: str
    labels: Mapping[str, str]
    pod_template: str
    image_bytes: int
    ready_within: float
    replica_seconds: float


@dataclass
class PodProgress:
    """The progress of a rollout since it started.

    Args:
        expected: the pods that are waited for.
        clock: the clock by which the rollout is timed.
        started: when the rollout started.
        exit_counts: the exits of each pod's containers at that time. Replicas of an earlier rollout
            may have been restarted at any time before.
        times: receives the times of each pod.

    Attributes:
        deadline_started: when the deadline started: with the rollout, or later.
    """

    expected: ExpectedPods
    clock: Clock
    started: float
    exit_counts: Mapping[str, Mapping[str, int]]
    times: Times
    deadline_started: float = field(init=False)
    _waiting_since: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.deadline_started = self.started

    @property
    def elapsed(self) -> float:
        """The seconds since the rollout started."""
        return self.clock.now() - self.started

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self.clock.now() - self.deadline_started > self.expected.replica_seconds

    def is_pod_late(self, pod: Pod) -> bool:
        """Return whether a pod has run for too long without ever having been ready."""
        seen = self.times[pod.name]
        return (
            "started" in seen
            and "ready" not in seen
            and self.elapsed - seen["started"] > self.expected.ready_within
        )

    def problem(self, pod: Pod) -> str:
        """Return why a pod cannot become ready any more; empty if it may."""
        return pod.problem_since(self.exit_counts.get(pod.name, {}))

    # --- waiting for others

    def waited(self, name: str) -> float:
        """Return for how many seconds something has been waited for; 0 at the first call."""
        return self.clock.now() - self._waiting_since.setdefault(name, self.clock.now())

    def stop_waiting(self, name: str) -> None:
        """Forget since when something has been waited for."""
        self._waiting_since.pop(name, None)

    def wait_for_others(self, name: str) -> None:
        """Restart a wait and the deadline, because other pods must make room first."""
        self.stop_waiting(name)
        self.restart_deadline()

    def restart_deadline(self) -> None:
        """Restart the deadline."""
        self.deadline_started = self.clock.now()

    # --- recording and showing

    def record(self, pods: list[Pod]) -> None:
        """Record the stages of the pods, log new ones, and report what is waited for."""
        for pod in pods:
            seen = self.times.setdefault(pod.name, {})
            if pod.stage and pod.stage not in seen:
                for stage in STAGES[: STAGES.index(pod.stage) + 1]:
                    seen.setdefault(stage, self.elapsed)
                log.info("pod    %s %s", pod.name, self._stage_text(pod, seen))
                if pod.ready and not self.is_late:
                    self.restart_deadline()
        waiting = [pod for pod in pods if not pod.ready]
        if waiting:
            ready = len(pods) - len(waiting)
            elapsed = progress.format_seconds(self.elapsed)
            activity = _ACTIVITIES[waiting[0].stage]
            progress.report(
                f"{ready} of {len(pods)} ready, {elapsed}: {waiting[0].name} {activity}"
            )

    def _stage_text(self, pod: Pod, seen: Mapping[str, float]) -> str:
        if pod.stage == "scheduled":
            return f"scheduled, pulling up to {progress.format_size(self.expected.image_bytes)}"
        if len(set(seen.values())) == 1:
            # It had reached the stage before the first look, so there are no durations.
            return pod.stage
        durations = ", ".join(
            f"{after} after {progress.format_seconds(seen[after] - seen[before])}"
            for before, after in itertools.pairwise(STAGES)
            if after in seen
        )
        return f"{pod.stage}: {durations}"
