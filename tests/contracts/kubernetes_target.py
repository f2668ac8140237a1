"""The rules of a target on a cluster, on a cluster in memory or a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.records import Attempt, Ending, Release
from deploy.rollout.target import Prove, ReplicaState
from deploy.targets.kubernetes.ownership import applied_fields
from deploy.targets.kubernetes.target import KubernetesTarget
from deploy.variables import Variables
from tests.contracts.target import Place, Places, states, trust
from tests.fakes.releases import attempt


class Deployer(KubernetesTarget):
    """A target that takes the lock for each change, where a rollout holds it for all of them."""

    _locked = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        with super().lock():
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    @contextmanager
    def _in_lock(self) -> Iterator[None]:
        if self._locked:
            yield
        else:
            with self.lock():
                yield

    def serve(self, release: Release, prove: Prove) -> None:
        with self._in_lock():
            super().serve(release, prove)

    def restore(self, release: Release) -> None:
        with self._in_lock():
            super().restore(release)

    def take_over(self, release: Release) -> None:
        with self._in_lock():
            super().take_over(release)

    def settle(self, *keep: Release) -> None:
        with self._in_lock():
            super().settle(*keep)

    def begin(self, attempt: Attempt, variables: Variables | None = None) -> None:
        with self._in_lock():
            super().begin(attempt, variables)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        with self._in_lock():
            super().end(attempt, ending)


def environment(**changed: Any) -> dict[str, Any]:
    """Return the settings of an environment with short times."""
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


def applied_objects(place: Place) -> dict[str, list[Object]]:
    """Return what was applied of the objects that a rollout changes."""
    cluster = cast("OnCluster", place).cluster
    ours = {"app.kubernetes.io/instance": "local"}
    return {
        kind: [applied_fields(item) for item in cluster.list(kind, ours)]
        for kind in ("Service", "Ingress", "Deployment")
    }


class SupportingObjectsContract(Places):
    """The rules of a target that changes other objects than replicas."""

    def test_the_next_deployer_restores_the_supporting_objects_of_a_killed_one(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """Also those that were removed, and whatever the settings of the next deployer say."""
        first = attempt(1, a)
        target = place.target(host="shop.example")
        target.begin(first)
        target.serve(a, trust)
        target.end(first, Ending(outcome="succeeded", at=first.at))
        was = applied_objects(place)
        killed = place.target(
            host="other.example", service="ClusterIP", resources={"cpu": "20m", "memory": "64Mi"}
        )
        killed.begin(attempt(2, b))
        killed.serve(b, trust)
        assert (b.image.digest, ReplicaState.SERVING) in states(killed)
        assert {kind for kind, items in applied_objects(place).items() if items != was[kind]} >= {
            "Ingress",
            "Deployment",
        }
        place.target(service="ClusterIP", replicas=1).restore(a)
        place.target(service="ClusterIP", replicas=1).settle(a)
        serving = applied_objects(place)
        serving["Deployment"] = [item for item in serving["Deployment"] if item["spec"]["replicas"]]
        assert serving == was
        assert place.answers() == {"a"}
        assert place.target(host="shop.example").serves(a)
