"""Taking the lock of an environment, waiting for it, and taking it from a dead deployer."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.ci.run import current_user
from deploy.clock import Clock
from deploy.errors import RolloutLocked
from deploy.machine.process import ProcessId, machine_id
from deploy.targets.kubernetes import lock as lock_module
from deploy.targets.kubernetes.lock import LEASE_SECONDS
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.leases import FAR, LEASE, lease, new_lock


def create_lease(
    cluster: FakeCluster, holder: str, *, on_this_machine: bool = False, **spec: Any
) -> dict[str, Any]:
    """Create a Lease of that holder and return it."""
    annotations = {"twinship.dev/machine": machine_id()} if on_this_machine else {}
    since = {
        "acquireTime": "2026-01-01T11:00:00.000000Z",
        "renewTime": "2026-01-01T11:00:00.000000Z",
    }
    cluster.create(
        {
            "kind": "Lease",
            "metadata": {"name": LEASE, "annotations": annotations},
            "spec": {"holderIdentity": holder, **since, **spec},
        }
    )
    return lease(cluster)


def clock_of_renewals(cluster: FakeCluster, until: float = float("inf")) -> Clock:
    """Return the cluster's clock; the other holder renews as time passes, until it dies."""

    def sleep(seconds: float) -> None:
        cluster.sleep(seconds)
        if cluster.seconds() < until:
            lease(cluster)["spec"]["renewTime"] = str(cluster.seconds())
            cluster.objects.touch(lease(cluster))

    return Clock(cluster.seconds, sleep, cluster.seconds)


def test_the_lock_is_acquired_for_a_block(cluster: FakeCluster) -> None:
    """The Lease says who has it and since when; after the block it is free."""
    before = datetime.now(UTC)
    with new_lock(cluster).acquire(0):
        spec = lease(cluster)["spec"]
        assert spec["holderIdentity"] == str(ProcessId.current())
        assert spec["leaseDurationSeconds"] == LEASE_SECONDS
        assert before <= datetime.fromisoformat(spec["acquireTime"]) <= datetime.now(UTC)
        assert lease(cluster)["metadata"]["labels"] == {"app": "shop"}
    assert lease(cluster)["spec"]["holderIdentity"] == ""
    with new_lock(cluster).acquire(0):
        assert lease(cluster)["spec"]["holderIdentity"] == str(ProcessId.current())


def test_the_lock_is_released_after_an_error(cluster: FakeCluster) -> None:
    """The kind of error does not matter."""
    with pytest.raises(KeyboardInterrupt), new_lock(cluster).acquire(0):
        raise KeyboardInterrupt
    assert lease(cluster)["spec"]["holderIdentity"] == ""


def test_the_error_names_the_deployer_that_has_the_lock(cluster: FakeCluster) -> None:
    """It comes after the allowed wait, with the machine and the time."""
    with (
        new_lock(cluster).acquire(0),
        pytest.raises(RolloutLocked) as caught,
        new_lock(cluster).acquire(5),
    ):
        pytest.fail("both have the lock")
    description = (
        f"another deployer is at work: {current_user()} on {socket.gethostname()} (process "
    )
    assert caught.value.what.startswith(description)
    assert ", since " in caught.value.what
    assert caught.value.on == f"environment staging, Lease {LEASE}"
    assert 5 <= cluster.seconds() < 7


def test_a_deployer_that_finishes_in_time_is_waited_for(cluster: FakeCluster) -> None:
    """Then the lock is acquired."""
    create_lease(cluster, FAR)

    def sleep(seconds: float) -> None:
        cluster.sleep(seconds)
        if cluster.seconds() > 10:
            lease(cluster)["spec"]["holderIdentity"] = ""

    with new_lock(cluster, Clock(cluster.seconds, sleep, cluster.seconds)).acquire(60):
        assert 10 < cluster.seconds() < 12


def test_the_lock_of_a_dead_process_of_this_machine_is_free(cluster: FakeCluster) -> None:
    """There is no wait for its expiry."""
    create_lease(
        cluster, str(ProcessId("grace", socket.gethostname(), 0, "")), on_this_machine=True
    )
    with new_lock(cluster).acquire(0):
        assert cluster.seconds() < 1
        assert lease(cluster)["metadata"]["annotations"]["twinship.dev/machine"] == machine_id()


@pytest.mark.parametrize("machine", ["", "another-machine"])
def test_a_machine_with_the_same_name_may_be_another_one(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    """A missing process may run in another container, or on another machine called `ubuntu`."""
    create_lease(
        cluster, str(ProcessId("grace", socket.gethostname(), 0, "")), on_this_machine=True
    )
    monkeypatch.setattr(lock_module, "machine_id", lambda: machine)
    with (
        pytest.raises(RolloutLocked, match="grace on"),
        new_lock(cluster, clock_of_renewals(cluster)).acquire(5),
    ):
        pytest.fail("another deployer has the lock")


def test_a_machine_without_an_id_is_never_this_one(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two unknown machines are not the same."""
    create_lease(cluster, str(ProcessId("grace", socket.gethostname(), 0, "")))["metadata"][
        "annotations"
    ] = {"twinship.dev/machine": ""}
    monkeypatch.setattr(lock_module, "machine_id", lambda: "")
    with (
        pytest.raises(RolloutLocked, match="grace on"),
        new_lock(cluster, clock_of_renewals(cluster)).acquire(5),
    ):
        pytest.fail("another deployer has the lock")


@pytest.mark.parametrize("wait", [0, 20, 120])
def test_the_lock_of_a_dead_process_of_another_machine_expires(
    cluster: FakeCluster, wait: float
) -> None:
    """Expiry is waited for even if the allowed wait is shorter, or it would never be free."""
    create_lease(cluster, FAR)
    with new_lock(cluster).acquire(wait):
        assert LEASE_SECONDS <= cluster.seconds() < LEASE_SECONDS + 3


@pytest.mark.parametrize("wait", [0, 20])
def test_a_deployer_that_renews_is_waited_for_only_as_long_as_allowed(
    cluster: FakeCluster, wait: float
) -> None:
    """Its Lease does not expire."""
    create_lease(cluster, FAR)
    with (
        pytest.raises(RolloutLocked, match=r"grace on far\.example"),
        new_lock(cluster, clock_of_renewals(cluster)).acquire(wait),
    ):
        pytest.fail("another deployer has the lock")
    assert wait <= cluster.seconds() < wait + 3


def test_the_time_that_this_machine_slept_does_not_count_for_expiry(cluster: FakeCluster) -> None:
    """The holder may have renewed meanwhile."""
    create_lease(cluster, FAR)
    clock = Clock(cluster.seconds, cluster.sleep, lambda: cluster.seconds() * 100)
    with new_lock(cluster, clock).acquire(0):
        assert LEASE_SECONDS <= cluster.seconds() < LEASE_SECONDS + 3


def test_a_deployer_that_dies_meanwhile_loses_the_lock(cluster: FakeCluster) -> None:
    """Expiry counts from the last change of the Lease."""
    create_lease(cluster, FAR)
    with new_lock(cluster, clock_of_renewals(cluster, until=40)).acquire(120):
        assert 40 + LEASE_SECONDS - 2 <= cluster.seconds() < 40 + LEASE_SECONDS + 3


@pytest.mark.parametrize("off", [timedelta(days=-400), timedelta(days=400)])
def test_the_clocks_of_other_machines_do_not_matter(cluster: FakeCluster, off: timedelta) -> None:
    """A time in the far past or future does not say whether the holder is alive."""
    time = (datetime.now(UTC) + off).isoformat()
    create_lease(cluster, FAR, acquireTime=time, renewTime=time)
    with new_lock(cluster).acquire(60):
        assert LEASE_SECONDS <= cluster.seconds() < LEASE_SECONDS + 3


@pytest.mark.parametrize(
    ("spec", "description"),
    [
        ({"acquireTime": None}, "grace on far.example (process 77)"),
        ({"acquireTime": "yesterday"}, "grace on far.example (process 77)"),
        ({"holderIdentity": "another-tool_7"}, "another-tool_7, since "),
        ({"holderIdentity": "a/b/c/d"}, "a/b/c/d, since "),
    ],
)
def test_a_lease_of_another_tool_is_respected(
    cluster: FakeCluster, spec: dict[str, Any], description: str
) -> None:
    """The error shows it as it is, and it expires like any other."""
    create_lease(cluster, FAR, **spec)
    with (
        pytest.raises(RolloutLocked) as caught,
        new_lock(cluster, clock_of_renewals(cluster)).acquire(0),
    ):
        pytest.fail("another deployer has the lock")
    assert caught.value.what.startswith(f"another deployer is at work: {description}")
    with new_lock(cluster).acquire(60):
        pass


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": None}])
def test_a_lease_without_a_holder_is_free(cluster: FakeCluster, spec: Any) -> None:
    """It was released or cleared."""
    cluster.create({"kind": "Lease", "metadata": {"name": LEASE}, "spec": spec})
    with new_lock(cluster).acquire(0):
        assert lease(cluster)["spec"]["holderIdentity"] == str(ProcessId.current())


def test_only_one_of_two_deployers_gets_a_free_lock(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one gets an error that names the first."""
    create_lease(cluster, "")
    replace = cluster.replace

    def replace_too_late(item: dict[str, Any]) -> bool:
        lease(cluster)["spec"]["holderIdentity"] = FAR
        cluster.objects.touch(lease(cluster))
        monkeypatch.setattr(cluster, "replace", replace)
        return replace(item)

    monkeypatch.setattr(cluster, "replace", replace_too_late)
    with (
        pytest.raises(RolloutLocked, match="grace on far"),
        new_lock(cluster, clock_of_renewals(cluster)).acquire(0),
    ):
        pytest.fail("another deployer has the lock")


def test_a_lease_that_is_deleted_meanwhile_is_created_again(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That happens between two requests."""
    create_lease(cluster, FAR)
    create = cluster.create
    tries = [0]

    def create_and_delete(item: dict[str, Any]) -> bool:
        tries[0] += 1
        made = create(item)
        if tries[0] == 1:
            cluster.delete("Lease", LEASE)
        return made

    monkeypatch.setattr(cluster, "create", create_and_delete)
    with new_lock(cluster).acquire(5):
        assert lease(cluster)["spec"]["holderIdentity"] == str(ProcessId.current())
