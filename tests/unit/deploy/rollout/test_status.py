"""What an environment's status says, and what it advises."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.errors import NotServing, ReleaseUnknown
from deploy.records import Release, Rollout
from deploy.rollout.status import Status, advise, read_status, require_served
from deploy.rollout.target import Replica, ReplicaState
from tests.fakes.releases import release, rollout
from tests.fakes.target import MemoryTarget

A = release("a")
B = release("b")
SERVING = ReplicaState.SERVING
WAIT = "wait; if its deployer is gone, `invoke release` goes on"


def replica(value: Release, state: ReplicaState = SERVING, restarts: int = 0) -> Replica:
    """Return a replica of a release."""
    return Replica(name="local-1", image=value.image.digest, state=state, restarts=restarts)


def status(history: list[Rollout], *replicas: Replica, **changed: Any) -> Status:
    """Return the status of an environment with two replicas."""
    known = {
        "environment": "local",
        "url": "http://shop.example",
        "history": tuple(history),
        "replicas": replicas,
        "wanted": 2,
        "healthy": False,
    }
    return Status.model_validate({**known, **changed})


def advice(found: Status, *, has_canaries: bool = False) -> str:
    """Return what is advised."""
    return advise(found, has_canaries=has_canaries)


CRASHED = replica(B, ReplicaState.STARTING, restarts=3)


def test_what_is_healthy_needs_no_advice() -> None:
    """Nor does an environment without a release."""
    assert advice(status([rollout(1, A)], replica(A), replica(A), healthy=True)) == ""
    assert advice(status([])) == ""


def test_a_release_that_crashes_is_left_for_the_last_that_was_proven() -> None:
    """It is not started again: it would crash again."""
    found = status([rollout(1, A), rollout(2, B)], replica(B), CRASHED)
    assert advice(found) == (
        "`invoke rollback` goes back to release 1, which was proven; "
        "`invoke logs --release 2` shows why it crashes"
    )


@pytest.mark.parametrize("outcome", ["undone", "failed"])
def test_a_release_that_was_never_proven_is_not_advised(outcome: Any) -> None:
    """There is nothing to go back to."""
    found = status([rollout(1, A, outcome), rollout(2, B)], CRASHED)
    assert "rollback" not in advice(found)
    assert "`invoke logs --release 2` shows why it crashes" in advice(found)


def test_a_release_that_was_rolled_back_is_not_advised() -> None:
    """It was left for a reason."""
    history = [rollout(1, A), rollout(2, B), rollout(3, A, trigger="rollback")]
    crashed = replica(A, ReplicaState.UNHEALTHY, restarts=3)
    assert "rollback" not in advice(status(history, crashed))


def test_a_replica_that_was_stopped_is_started_again() -> None:
    """It did not crash; nor did one that is missing, or that is not ready yet."""
    history = [rollout(1, A), rollout(2, B)]
    restore = "`invoke rollback --to 2` restores this release, `invoke release` brings the newest"
    assert advice(status(history, replica(B, ReplicaState.STOPPED))) == restore
    assert advice(status(history, replica(B))) == restore
    assert advice(status(history, replica(B, ReplicaState.STARTING))) == restore
    assert advice(status(history, replica(B), replica(B), problem="it is closed")) == restore


def test_a_release_that_serves_by_other_settings_gets_the_present_ones() -> None:
    """All its replicas serve, so nothing has to be restored."""
    found = status([rollout(1, A)], replica(A), replica(A))
    assert advice(found).startswith("`invoke rollback --to 1` applies the present settings")


@pytest.mark.parametrize("replicas", [(replica(A),), (replica(A), replica(B)), (CRASHED,)])
def test_a_rollout_in_progress_is_left_alone(replicas: tuple[Replica, ...]) -> None:
    """Its deployer undoes it, or the next one does."""
    assert advice(status([rollout(1, A), rollout(2, B, "unfinished")], *replicas)) == WAIT


def test_a_canary_is_decided() -> None:
    """While both releases serve; before that, it has not begun."""
    history = [rollout(1, A), rollout(2, B, "unfinished")]
    both = status(history, replica(A), replica(B))
    assert advice(both, has_canaries=True) == (
        "`invoke promote-canary` or `invoke abort` ends a canary"
    )
    assert advice(status(history, replica(A)), has_canaries=True) == WAIT


# --- for a monitor


def test_all_replicas_that_should_serve_are_enough() -> None:
    """Those of another release do not count, nor do those on standby."""
    history = [rollout(1, A)]
    assert status(history, replica(A), replica(A)).is_served
    assert not status(history, replica(A), replica(B)).is_served
    assert not status(history, replica(A), replica(A, ReplicaState.STANDBY)).is_served
    assert not status(history, replica(A), replica(A), problem="it is closed").is_served


def test_during_a_rollout_replicas_of_both_releases_are_enough() -> None:
    """A monitor raises no alarm at each release."""
    history = [rollout(1, A), rollout(2, B, "unfinished")]
    assert status(history, replica(A), replica(B)).is_served
    assert not status(history, replica(A)).is_served


def test_too_few_replicas_are_an_error_of_their_own() -> None:
    """It says how many serve, and what to do."""
    found = status([rollout(1, A)], replica(A), problem="the endpoint refuses connections")
    with pytest.raises(NotServing) as caught:
        require_served(found, "do this")
    assert caught.value.what == "1 of 2 replicas serve, and the endpoint refuses connections"
    assert (caught.value.next, caught.value.exit_code) == ("do this", 67)
    with pytest.raises(ReleaseUnknown):
        require_served(status([]), "")
    require_served(status([rollout(1, A)], replica(A), replica(A)), "")


def test_the_status_is_read_from_the_target() -> None:
    """The endpoint is asked if the release does not serve."""
    target = MemoryTarget()
    target.add_history(rollout(1, A))
    found = read_status(target)
    assert (found.healthy, found.count, found.wanted, found.problem) == (True, 2, 2, "")
    target.endpoint_problem = "the endpoint refuses connections"
    found = read_status(target)
    assert (found.healthy, found.is_served) == (False, False)
    assert found.problem == "the endpoint refuses connections"
