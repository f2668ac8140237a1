"""Rollouts that have just started on a cluster in memory, and what happens during them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from deploy.clock import Clock
from deploy.records import Release
from deploy.targets.kubernetes.pod_progress import ExpectedPods, PodProgress, Times
from deploy.targets.kubernetes.pods import Pod
from deploy.targets.kubernetes.readiness import ReadinessWait
from tests.fakes.namespaces import NAME, FakeNamespace

TEMPLATE = "7777"


@dataclass
class StartedRollout:
    """A rollout that is waited for.

    Attributes:
        wait: the wait.
        times: the times of its pods.
    """

    wait: ReadinessWait
    times: Times = field(default_factory=dict)

    def until_ready(self, each: Callable[[], None] = lambda: None) -> list[Pod]:
        """Wait until all pods are ready."""
        return self.wait.until_ready(self.times, each)

    def progress(self) -> PodProgress:
        """Return the progress of a rollout that starts now."""
        clock = self.wait.clock
        return PodProgress(self.wait.expected, clock, clock.now(), {}, self.times)


def start_rollout(
    namespace: FakeNamespace,
    release: Release,
    count: int = 2,
    clock: Clock | None = None,
    **seconds: float,
) -> StartedRollout:
    """Start a rollout of a release."""
    rendering = namespace.rendering()
    item = rendering.deployment(release, "main", count, None, 600)
    template = f"{TEMPLATE}{release.image.app.key}"
    item["spec"]["template"]["metadata"]["annotations"]["twinship.dev/template"] = template
    namespace.cluster.apply(item)
    expected = ExpectedPods(
        deployment=NAME,
        labels=rendering.track_labels("main"),
        pod_template=template,
        image_bytes=230_000_000,
        **{"ready_within": 20.0, "replica_seconds": 60.0, **seconds},
    )
    return StartedRollout(
        ReadinessWait(namespace.cluster, expected, clock or namespace.cluster.clock)
    )


def once_after(
    namespace: FakeNamespace, act: Callable[[], object], after: float
) -> Callable[[], None]:
    """Return a function that acts once, when so many seconds have passed."""
    started = namespace.cluster.seconds()
    done = [False]

    def each() -> None:
        if not done[0] and namespace.cluster.seconds() - started >= after:
            done[0] = True
            act()

    return each
