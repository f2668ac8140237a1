"""Keeping the lock of an environment: renewing it, checking it, and losing it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from deploy.clock import Clock
from deploy.errors import ClusterUnreachable, RolloutLocked
from deploy.targets.kubernetes import lock as lock_module
from deploy.targets.kubernetes.lock import LEASE_SECONDS, Lock
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.leases import FAR, LEASE, lease, new_lock

UNREACHABLE = ClusterUnreachable("no answer", on="it", next="again")


@pytest.fixture
def lock(cluster: FakeCluster) -> Lock:
    """Return a lock that was just taken and that only the test renews."""
    lock = new_lock(cluster)
    lock.take(0)
    return lock


def test_a_fresh_lock_needs_no_check(cluster: FakeCluster, lock: Lock) -> None:
    """The API server is not asked each time."""
    cluster.requests.clear()
    cluster.objects.advance(LEASE_SECONDS / 2)
    lock.require()
    assert cluster.requests == []


def test_a_renewed_lock_is_kept(cluster: FakeCluster, lock: Lock) -> None:
    """The time since when it is held stays the same."""
    before = dict(lease(cluster)["spec"])
    for _ in range(6):
        cluster.objects.advance(LEASE_SECONDS / 3)
        lock.renew()
        lock.require()
    after = lease(cluster)["spec"]
    assert after["acquireTime"] == before["acquireTime"]
    assert after["renewTime"] > before["renewTime"]


def test_a_lock_that_was_not_renewed_in_time_is_checked(cluster: FakeCluster, lock: Lock) -> None:
    """No other deployer has taken it, so this one still has it."""
    cluster.objects.advance(LEASE_SECONDS * 5)
    lock.require()
    cluster.requests.clear()
    lock.require()
    assert cluster.requests == []


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_a_machine_that_slept_checks_its_lock(cluster: FakeCluster, taken: bool) -> None:
    """Its own clock stood still, but that of other deployers did not."""
    slept = [1000.0]
    lock = new_lock(cluster, Clock(lambda: 0.0, cluster.sleep, lambda: slept[0]))
    lock.take(0)
    cluster.requests.clear()
    lock.require()
    assert cluster.requests == []
    slept[0] += LEASE_SECONDS
    if not taken:
        lock.require()
        return
    take_from_outside(cluster)
    with pytest.raises(RolloutLocked, match="the lock was lost"):
        lock.require()


def take_from_outside(cluster: FakeCluster) -> None:
    """Let another deployer take the lock."""
    lease(cluster)["spec"]["holderIdentity"] = FAR
    cluster.objects.touch(lease(cluster))


def delete_lease(cluster: FakeCluster) -> None:
    """Delete the Lease."""
    cluster.delete("Lease", LEASE)


@pytest.mark.parametrize("lose", [take_from_outside, delete_lease])
def test_a_lost_lock_stays_lost(
    cluster: FakeCluster, lock: Lock, lose: Callable[[FakeCluster], None]
) -> None:
    """The error comes each time, and the Lease of another deployer is not changed."""
    lose(cluster)
    cluster.objects.advance(LEASE_SECONDS)
    for _ in range(2):
        with pytest.raises(RolloutLocked, match="the lock was lost"):
            lock.require()
    lock.release()
    assert not lease(cluster) or lease(cluster)["spec"]["holderIdentity"] == FAR


def test_a_conflict_during_a_renewal_counts_as_no_renewal(
    cluster: FakeCluster, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next renewal may succeed."""
    cluster.objects.advance(LEASE_SECONDS)
    monkeypatch.setattr(cluster, "replace", lambda _: False)
    with pytest.raises(RolloutLocked):
        lock.require()
    monkeypatch.undo()
    lock.require()


def test_a_renewal_counts_from_its_request(
    cluster: FakeCluster, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late response may describe what others have seen long before."""
    replace = cluster.replace

    def slow_replace(item: dict[str, Any]) -> bool:
        done = replace(item)
        cluster.objects.advance(LEASE_SECONDS)
        return done

    monkeypatch.setattr(cluster, "replace", slow_replace)
    lock.renew()
    monkeypatch.undo()
    cluster.requests.clear()
    lock.require()
    assert ("get", "Lease", LEASE) in cluster.requests


def test_an_unreachable_api_server_does_not_end_the_renewals(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal is tried again, and the lock is released in the end."""
    monkeypatch.setattr(lock_module, "RENEW_INTERVAL", 0.001)
    cluster.failures["update", "Lease"] = [UNREACHABLE, UNREACHABLE]
    renewed = Event()
    replace = cluster.replace

    def observed_replace(item: dict[str, Any]) -> bool:
        done = replace(item)
        renewed.set()
        return done

    monkeypatch.setattr(cluster, "replace", observed_replace)
    with new_lock(cluster).acquire(0):
        assert renewed.wait(timeout=30)
    assert lease(cluster)["spec"]["holderIdentity"] == ""


def test_a_lock_that_cannot_be_released_expires(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says so; it is no error, because the work is done."""
    with new_lock(cluster).acquire(0):
        cluster.failures["update", "Lease"] = [UNREACHABLE]
    assert "the lock could not be released, it expires in 30 s: no answer" in caplog.text
