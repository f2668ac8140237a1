"""Keeping a lease: renewed in time, made sure of in doubt, and known to be lost."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from deploy.clock import Clock
from deploy.errors import ClusterUnreachable, RolloutLocked
from deploy.targets.kubernetes import lock as module
from deploy.targets.kubernetes.lock import LEASE_SECONDS, Lock
from tests.fakes.kubernetes.api_server import FakeCluster

NAME = "shop-deployer"
FAR = "grace/elsewhere.example/77/1"
GONE = ClusterUnreachable("no answer", on="it", next="again")


@pytest.fixture
def cluster() -> FakeCluster:
    """A namespace."""
    return FakeCluster()


def lease(cluster: FakeCluster) -> Lock:
    """The right of this process to change an environment."""
    return Lock(cluster, NAME, {"app": "shop"}, "staging", cluster.clock)


def found(cluster: FakeCluster) -> dict[str, Any]:
    """The lease itself."""
    return cluster.objects.get("Lease", NAME) or {}


@pytest.fixture
def mine(cluster: FakeCluster) -> Lock:
    """A lease that has just been taken, and that nothing renews but what a test does."""
    taken = lease(cluster)
    taken._take(0)
    return taken


def test_it_may_be_relied_on_for_a_while(cluster: FakeCluster, mine: Lock) -> None:
    """Without asking the API server each time."""
    cluster.asked.clear()
    cluster.objects.later(LEASE_SECONDS / 2)
    mine.require()
    assert cluster.asked == []


def test_renewing_keeps_others_out(cluster: FakeCluster, mine: Lock) -> None:
    """Since when it is held stays as it was."""
    before = dict(found(cluster)["spec"])
    for _ in range(6):
        cluster.objects.later(LEASE_SECONDS / 3)
        mine._renew()
        mine.require()
    after = found(cluster)["spec"]
    assert after["acquireTime"] == before["acquireTime"]
    assert after["renewTime"] > before["renewTime"]


def test_a_lease_that_could_not_be_renewed_is_made_sure_of(
    cluster: FakeCluster, mine: Lock
) -> None:
    """While the API server was away nobody could take it; if nobody has since, it is one's own still."""
    cluster.objects.later(LEASE_SECONDS * 5)
    mine.require()
    cluster.asked.clear()
    mine.require()
    assert cluster.asked == []


@pytest.mark.parametrize("others", [False, True], ids=["nobody", "somebody"])
def test_a_machine_that_slept_makes_sure_of_its_lease(cluster: FakeCluster, others: bool) -> None:
    """Its own clock stood still, that of whoever waited for the lease did not."""
    slept = [1000.0]
    mine = Lock(
        cluster,
        NAME,
        {"app": "shop"},
        "staging",
        Clock(lambda: 0.0, cluster.sleep, lambda: slept[0]),
    )
    mine._take(0)
    cluster.asked.clear()
    mine.require()
    assert cluster.asked == []
    slept[0] += LEASE_SECONDS
    if not others:
        mine.require()
        return
    taken(cluster)
    with pytest.raises(RolloutLocked, match="the lease was lost"):
        mine.require()


def taken(cluster: FakeCluster) -> None:
    """Somebody else takes it."""
    found(cluster)["spec"]["holderIdentity"] = FAR
    cluster.objects.touch(found(cluster))


def removed(cluster: FakeCluster) -> None:
    """Somebody removes it."""
    cluster.delete("Lease", NAME)


@pytest.mark.parametrize("lost", [taken, removed])
def test_a_lease_that_is_lost_stays_lost(
    cluster: FakeCluster, mine: Lock, lost: Callable[[FakeCluster], None]
) -> None:
    """It is told once it is known, and nothing is written over what others have."""
    lost(cluster)
    cluster.objects.later(LEASE_SECONDS)
    for _ in range(2):
        with pytest.raises(RolloutLocked, match="the lease was lost"):
            mine.require()
    mine._give_back()
    assert not found(cluster) or found(cluster)["spec"]["holderIdentity"] == FAR


def test_a_race_for_renewing_is_lost_without_harm(
    cluster: FakeCluster, mine: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for renewed, and is the next time."""
    cluster.objects.later(LEASE_SECONDS)
    monkeypatch.setattr(cluster, "replace", lambda _: False)
    with pytest.raises(RolloutLocked):
        mine.require()
    monkeypatch.undo()
    mine.require()


def test_renewing_counts_from_the_question(
    cluster: FakeCluster, mine: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that comes late may tell of what others have seen long before."""
    replace = cluster.replace

    def slow(item: dict[str, Any]) -> bool:
        done = replace(item)
        cluster.objects.later(LEASE_SECONDS)
        return done

    monkeypatch.setattr(cluster, "replace", slow)
    mine._renew()
    assert mine._is_doubtful()


def test_an_api_server_that_is_away_does_not_end_the_keeper(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries again, and gives it back in the end."""
    monkeypatch.setattr(module, "_RENEWED_EVERY", 0.001)
    answers: list[Exception | None] = [GONE, GONE, None]
    cluster.broken["update", "Lease"] = answers
    with lease(cluster).acquire(0):
        for _ in range(1000):
            if answers:
                Event().wait(0.002)
        assert answers == []
    assert found(cluster)["spec"]["holderIdentity"] == ""


def test_a_lease_that_cannot_be_given_back_expires(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """That is said, and is no error: the work is done."""
    with lease(cluster).acquire(0):
        cluster.broken["update", "Lease"] = [GONE]
    assert "the lease could not be given back, it expires in 30 s: no answer" in caplog.text
