"""The lock of an environment on a cluster in memory, and its Lease."""

from __future__ import annotations

from deploy.clients.kubernetes.protocol import Object
from deploy.clock import Clock
from deploy.targets.kubernetes.lock import Lock
from tests.fakes.kubernetes.api_server import FakeCluster

LEASE = "shop-deployer"
FAR = "grace/far.example/77/1"
"""A deployer on another machine, as a holder of the Lease."""


def new_lock(cluster: FakeCluster, clock: Clock | None = None) -> Lock:
    """Return the lock of an environment for this process."""
    return Lock(cluster, LEASE, {"app": "shop"}, "staging", clock or cluster.clock)


def lease(cluster: FakeCluster) -> Object:
    """Return the Lease object itself; empty if there is none."""
    return cluster.objects.get("Lease", LEASE) or {}
