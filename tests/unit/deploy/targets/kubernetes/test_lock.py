"""One deployer at a time: told apart, waited for, and made up for when it died."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.clock import Clock
from deploy.errors import RolloutLocked
from deploy.machine.process import ProcessId, current_user, machine_id
from deploy.targets.kubernetes import lock as module
from deploy.targets.kubernetes.lock import LEASE_SECONDS, Lock
from tests.fakes.kubernetes.api_server import FakeCluster

NAME = "shop-deployer"
FAR = "grace/elsewhere.example/77/1"


@pytest.fixture
def cluster() -> FakeCluster:
    """A namespace."""
    return FakeCluster()


def lease(cluster: FakeCluster, clock: Clock | None = None) -> Lock:
    """The right of this process to change an environment."""
    return Lock(cluster, NAME, {"app": "shop"}, "staging", clock or cluster.clock)


def held_by(cluster: FakeCluster, holder: str, near: bool = False, **spec: Any) -> dict[str, Any]:  # noqa: FBT002 - a flag of the test's
    """Has somebody else hold it; the object as it is held."""
    notes = {"twinship.dev/machine": machine_id()} if near else {}
    since = {
        "acquireTime": "2026-01-01T11:00:00.000000Z",
        "renewTime": "2026-01-01T11:00:00.000000Z",
    }
    cluster.create(
        {
            "kind": "Lease",
            "metadata": {"name": NAME, "annotations": notes},
            "spec": {"holderIdentity": holder, **since, **spec},
        }
    )
    return found(cluster)


def found(cluster: FakeCluster) -> dict[str, Any]:
    """The lease itself."""
    return cluster.objects.get("Lease", NAME) or {}


def renewing(cluster: FakeCluster, until: float = float("inf")) -> Clock:
    """The cluster's clock; as it passes the other holder renews, until it dies."""

    def sleep(seconds: float) -> None:
        cluster.sleep(seconds)
        if cluster.seconds() < until:
            found(cluster)["spec"]["renewTime"] = str(cluster.seconds())
            cluster.objects.touch(found(cluster))

    return Clock(cluster.seconds, sleep, cluster.seconds)


# --- taking it


def test_it_is_held_for_as_long_as_the_block(cluster: FakeCluster) -> None:
    """Whoever looks sees by whom and since when; after it, it is free."""
    before = datetime.now(UTC)
    with lease(cluster).acquire(0):
        spec = found(cluster)["spec"]
        assert spec["holderIdentity"] == str(ProcessId.current())
        assert spec["leaseDurationSeconds"] == LEASE_SECONDS
        assert before <= datetime.fromisoformat(spec["acquireTime"]) <= datetime.now(UTC)
        assert found(cluster)["metadata"]["labels"] == {"app": "shop"}
    assert found(cluster)["spec"]["holderIdentity"] == ""
    with lease(cluster).acquire(0):
        assert found(cluster)["spec"]["holderIdentity"] == str(ProcessId.current())


def test_it_is_free_after_an_error(cluster: FakeCluster) -> None:
    """Whatever it was."""
    with pytest.raises(KeyboardInterrupt), lease(cluster).acquire(0):
        raise KeyboardInterrupt
    assert found(cluster)["spec"]["holderIdentity"] == ""


def test_a_holder_that_lives_is_named(cluster: FakeCluster) -> None:
    """With its machine and since when; after the wait that was allowed, and no longer."""
    with (
        lease(cluster).acquire(0),
        pytest.raises(RolloutLocked) as caught,
        lease(cluster).acquire(5),
    ):
        pytest.fail("two at once")
    shown = f"another deployer is at work: {current_user()} on {socket.gethostname()} (process "
    assert caught.value.what.startswith(shown)
    assert ", since " in caught.value.what
    assert caught.value.on == f"environment staging, Lease {NAME}"
    assert 5 <= cluster.seconds() < 7


def test_a_holder_that_finishes_in_time_is_waited_for(cluster: FakeCluster) -> None:
    """Then it is one's own turn."""
    held_by(cluster, FAR)

    def sleep(seconds: float) -> None:
        cluster.sleep(seconds)
        if cluster.seconds() > 10:
            found(cluster)["spec"]["holderIdentity"] = ""

    with lease(cluster, Clock(cluster.seconds, sleep, cluster.seconds)).acquire(60):
        assert 10 < cluster.seconds() < 12


def test_a_dead_process_of_this_machine_holds_nothing(cluster: FakeCluster) -> None:
    """It is seen at once."""
    held_by(cluster, str(ProcessId("grace", socket.gethostname(), 0, "")), near=True)
    with lease(cluster).acquire(0):
        assert cluster.seconds() < 1
        assert found(cluster)["metadata"]["annotations"]["twinship.dev/machine"] == machine_id()


@pytest.mark.parametrize("here", ["", "the machine of old"])
def test_a_machine_of_the_same_name_is_another_one(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    """A process that is not found here may run in another container, or on another machine called `ubuntu`."""
    held_by(cluster, str(ProcessId("grace", socket.gethostname(), 0, "")), near=True)
    monkeypatch.setattr(module, "machine_id", lambda: here)
    with (
        pytest.raises(RolloutLocked, match="grace on"),
        lease(cluster, renewing(cluster)).acquire(5),
    ):
        pytest.fail("it is held")


def test_a_machine_that_cannot_be_told_is_never_this_one(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of which nothing is known are not the same."""
    held_by(cluster, str(ProcessId("grace", socket.gethostname(), 0, "")))["metadata"][
        "annotations"
    ] = {"twinship.dev/machine": ""}
    monkeypatch.setattr(module, "machine_id", lambda: "")
    with (
        pytest.raises(RolloutLocked, match="grace on"),
        lease(cluster, renewing(cluster)).acquire(5),
    ):
        pytest.fail("it is held")


@pytest.mark.parametrize("wait", [0, 20, 120])
def test_a_dead_holder_elsewhere_loses_it_by_expiry(cluster: FakeCluster, wait: float) -> None:
    """However short the wait for others: whoever is not seen alive is waited for until then, else nobody would ever get it."""
    held_by(cluster, FAR)
    with lease(cluster).acquire(wait):
        assert LEASE_SECONDS <= cluster.seconds() < LEASE_SECONDS + 3


@pytest.mark.parametrize("wait", [0, 20])
def test_a_living_holder_elsewhere_is_told_when_it_was_seen_alive(
    cluster: FakeCluster, wait: float
) -> None:
    """Then there is nothing to wait for but the allowed time."""
    held_by(cluster, FAR)
    with (
        pytest.raises(RolloutLocked, match=r"grace on elsewhere\.example"),
        lease(cluster, renewing(cluster)).acquire(wait),
    ):
        pytest.fail("it is held")
    assert wait <= cluster.seconds() < wait + 3


def test_a_machine_that_slept_has_not_watched_anybody(cluster: FakeCluster) -> None:
    """A holder of whom it saw nothing in that time need not be dead."""
    held_by(cluster, FAR)
    clock = Clock(cluster.seconds, cluster.sleep, lambda: cluster.seconds() * 100)
    with lease(cluster, clock).acquire(0):
        assert LEASE_SECONDS <= cluster.seconds() < LEASE_SECONDS + 3


def test_a_holder_that_dies_while_it_is_waited_for_loses_it(cluster: FakeCluster) -> None:
    """Counted from when it was last seen to change."""
    held_by(cluster, FAR)
    with lease(cluster, renewing(cluster, until=40)).acquire(120):
        assert 40 + LEASE_SECONDS - 2 <= cluster.seconds() < 40 + LEASE_SECONDS + 3


@pytest.mark.parametrize("off", [timedelta(days=-400), timedelta(days=400)])
def test_the_clocks_of_other_machines_do_not_matter(cluster: FakeCluster, off: timedelta) -> None:
    """Neither a time long ago nor one to come says that a holder is dead, or alive."""
    told = (datetime.now(UTC) + off).isoformat()
    held_by(cluster, FAR, acquireTime=told, renewTime=told)
    with lease(cluster).acquire(60):
        assert LEASE_SECONDS <= cluster.seconds() < LEASE_SECONDS + 3


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ({"acquireTime": None}, "grace on elsewhere.example (process 77)"),
        ({"acquireTime": "yesterday"}, "grace on elsewhere.example (process 77)"),
        ({"holderIdentity": "somebody-elses-tool_7"}, "somebody-elses-tool_7, since "),
        ({"holderIdentity": "a/b/c/d"}, "a/b/c/d, since "),
    ],
)
def test_a_lease_that_others_wrote_is_respected(
    cluster: FakeCluster, spec: dict[str, Any], shown: str
) -> None:
    """Whatever it holds: it is told as it is, and expires like any other."""
    held_by(cluster, FAR, **spec)
    with pytest.raises(RolloutLocked) as caught, lease(cluster, renewing(cluster)).acquire(0):
        pytest.fail("it is held")
    assert caught.value.what.startswith(f"another deployer is at work: {shown}")
    with lease(cluster).acquire(60):
        pass


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": None}])
def test_a_lease_without_a_holder_is_free(cluster: FakeCluster, spec: Any) -> None:
    """As after it was given back, or when somebody cleared it."""
    cluster.create({"kind": "Lease", "metadata": {"name": NAME}, "spec": spec})
    with lease(cluster).acquire(0):
        assert found(cluster)["spec"]["holderIdentity"] == str(ProcessId.current())


def test_of_two_who_come_for_a_free_lease_one_gets_it(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is told who was faster."""
    held_by(cluster, "")
    replace = cluster.replace

    def faster(item: dict[str, Any]) -> bool:
        found(cluster)["spec"]["holderIdentity"] = FAR
        cluster.objects.touch(found(cluster))
        monkeypatch.setattr(cluster, "replace", replace)
        return replace(item)

    monkeypatch.setattr(cluster, "replace", faster)
    with (
        pytest.raises(RolloutLocked, match="grace on elsewhere"),
        lease(cluster, renewing(cluster)).acquire(0),
    ):
        pytest.fail("it is held")


def test_a_lease_that_vanishes_meanwhile_is_made_anew(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removed it between two questions."""
    held_by(cluster, FAR)
    create = cluster.create
    tries = [0]

    def late(item: dict[str, Any]) -> bool:
        tries[0] += 1
        made = create(item)
        if tries[0] == 1:
            cluster.delete("Lease", NAME)
        return made

    monkeypatch.setattr(cluster, "create", late)
    with lease(cluster).acquire(5):
        assert found(cluster)["spec"]["holderIdentity"] == str(ProcessId.current())
