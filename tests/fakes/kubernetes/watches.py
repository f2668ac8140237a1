"""Watches of rollouts on a cluster in memory, and what happens in the midst of them."""

from __future__ import annotations

from collections.abc import Callable

from deploy.records import Release
from deploy.targets.kubernetes.readiness import ExpectedPods, ReadinessWait
from tests.fakes.places import NAME, FakeNamespace

TEMPLATE = "7777"


def watch(place: FakeNamespace, release: Release, count: int = 2, **limits: float) -> ReadinessWait:
    """A rollout of a release that has just begun."""
    rendering = place.rendering()
    item = rendering.deployment(release, "main", count, None, 600)
    item["spec"]["template"]["metadata"]["annotations"]["twinship.dev/template"] = (
        f"{TEMPLATE}{release.image.app.key}"
    )
    place.cluster.apply(item)
    seconds = {"ready_within": 20.0, "replica_seconds": 60.0, **limits}
    labels = place.changes()._sides.labels("main")
    wanted = ExpectedPods(
        deployment=NAME,
        labels=labels,
        pod_template=f"{TEMPLATE}{release.image.app.key}",
        size=230_000_000,
        **seconds,
    )
    return ReadinessWait(place.cluster, wanted, place.cluster.clock)


def meanwhile(place: FakeNamespace, act: Callable[[], object], after: float) -> Callable[[], None]:
    """Does something once, when so many seconds have passed."""
    began = place.cluster.seconds()
    done = [False]

    def each() -> None:
        if not done[0] and place.cluster.seconds() - began >= after:
            done[0] = True
            act()

    return each
