"""What a target on a cluster does, on a cluster in memory or a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.records import Attempt, Ending, Release
from deploy.rollout.target import Prove, ReplicaState
from deploy.targets.kubernetes.ownership import applied_fields
from deploy.targets.kubernetes.target import KubernetesTarget
from tests.contracts.target import Place, Places, states, trust
from tests.fakes.releases import attempt


class Deployer(KubernetesTarget):
    """A target that takes the lease for each change by itself, where a rollout would hold it over all of them."""

    _held = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        with super().lock():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextmanager
    def _with_lease(self) -> Iterator[None]:
        if self._held:
            yield
        else:
            with self.lock():
                yield

    def serve(self, release: Release, prove: Prove) -> None:
        with self._with_lease():
            super().serve(release, prove)

    def restore(self, release: Release) -> None:
        with self._with_lease():
            super().restore(release)

    def take_over(self, release: Release) -> None:
        with self._with_lease():
            super().take_over(release)

    def settle(self, *keep: Release) -> None:
        with self._with_lease():
            super().settle(*keep)

    def begin(self, attempt: Attempt) -> None:
        with self._with_lease():
            super().begin(attempt)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        with self._with_lease():
            super().end(attempt, ending)


def environment(**changed: Any) -> dict[str, Any]:
    """The settings of an environment that is quick to give up."""
    return {
        "target": "kubernetes",
        "standby": False,
        "ready_within": 20.0,
        "drain_within": 5.0,
        "lock_wait": 0.0,
        **changed,
    }


class OnCluster(Protocol):
    """A place on a cluster."""

    cluster: Cluster


def around(place: Place) -> dict[str, list[Object]]:
    """What was applied of all that stands around replicas."""
    cluster = cast("OnCluster", place).cluster
    ours = {"app.kubernetes.io/instance": "local"}
    return {
        kind: [applied_fields(item) for item in cluster.list(kind, ours)]
        for kind in ("Service", "Ingress", "Deployment")
    }


class AroundContract(Places):
    """What a target on a cluster keeps that changes more than replicas."""

    def test_what_a_release_has_changed_around_replicas_is_put_back_by_whoever_comes_next(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """Though its deployer was killed, and has removed or changed it all; settings of whoever comes next do not count."""
        first = attempt(1, a)
        target = place.target(host="shop.example")
        target.begin(first)
        target.serve(a, trust)
        target.end(first, Ending(outcome="succeeded", at=first.at))
        was = around(place)
        killed = place.target(
            host="other.example", service="ClusterIP", resources={"cpu": "20m", "memory": "64Mi"}
        )
        killed.begin(attempt(2, b))
        killed.serve(b, trust)
        assert (b.image.digest, ReplicaState.SERVING) in states(killed)
        assert {kind for kind, items in around(place).items() if items != was[kind]} >= {
            "Ingress",
            "Deployment",
        }
        place.target(service="ClusterIP", replicas=1).restore(a)
        place.target(service="ClusterIP", replicas=1).settle(a)
        serving = around(place)
        serving["Deployment"] = [item for item in serving["Deployment"] if item["spec"]["replicas"]]
        assert serving == was
        assert place.answers() == {"a"}
        assert place.target(host="shop.example").serves(a)
