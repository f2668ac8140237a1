"""The status of an environment: what should serve, what does, and what to do about a difference."""

from __future__ import annotations

from deploy.errors import NotServing, ReleaseUnknown
from deploy.records import Record, Rollout
from deploy.rollout.history import choose_rollback, current
from deploy.rollout.target import Replica, ReplicaState, Target


class Status(Record):
    """What an environment is like at one moment.

    Attributes:
        environment: its name.
        url: the address at which clients reach it.
        history: all attempts, oldest first.
        replicas: the replicas that exist.
        wanted: how many replicas are to serve.
        healthy: whether exactly the release that should serve does, as the settings say.
        problem: why clients are not served at the endpoint, as a clause; empty if they are.
    """

    environment: str
    url: str
    history: tuple[Rollout, ...]
    replicas: tuple[Replica, ...]
    wanted: int
    healthy: bool
    problem: str = ""

    @property
    def serving(self) -> Rollout | None:
        """The attempt whose release should serve."""
        return current(self.history)

    @property
    def last(self) -> Rollout | None:
        """The last attempt."""
        return self.history[-1] if self.history else None

    @property
    def is_unfinished(self) -> bool:
        """Whether the last attempt has not ended, so that two releases may serve."""
        return self.last is not None and self.last.ending is None

    @property
    def count(self) -> int:
        """How many replicas serve: during a rollout those of any release, else of the right one."""
        now = self.serving
        digest = now.attempt.release.image.digest if now else ""
        return sum(
            replica.state is ReplicaState.SERVING
            and (self.is_unfinished or replica.image == digest)
            for replica in self.replicas
        )

    @property
    def is_served(self) -> bool:
        """Whether as many replicas serve as should, and clients reach them."""
        return self.serving is not None and self.count >= self.wanted and not self.problem


def read_status(target: Target) -> Status:
    """Return the status of an environment."""
    history = target.history()
    now = current(history)
    healthy = now is not None and target.serves(now.attempt.release)
    return Status(
        environment=target.environment,
        url=target.url,
        history=history,
        replicas=target.replicas(),
        wanted=target.replica_count(),
        healthy=healthy,
        problem=target.find_endpoint_problem() if now and not healthy else "",
    )


def require_served(found: Status, advice: str) -> None:
    """Raise unless as many replicas serve as should.

    Args:
        found: the status.
        advice: what to do if they do not.

    Raises:
        ReleaseUnknown: nothing was released.
        NotServing: too few replicas serve, or clients do not reach them.
    """
    on = f"environment {found.environment}"
    if found.serving is None:
        raise ReleaseUnknown(
            "nothing has been released here yet",
            on=on,
            next="`invoke release` makes a first release",
        )
    if not found.is_served:
        what = f"{found.count} of {found.wanted} replicas serve"
        raise NotServing(
            f"{what}, and {found.problem}" if found.problem else what, on=on, next=advice
        )


def advise(found: Status, *, has_canaries: bool) -> str:
    """Return what to do next; empty if nothing is to be done.

    A release that crashes is never started again by an advice, nor is one that was not proven.

    Args:
        found: the status.
        has_canaries: whether the environment tries releases as canaries.
    """
    now = found.serving
    if now is None or (found.healthy and not found.is_unfinished):
        return ""
    if found.is_unfinished:
        return _advise_during_rollout(found, has_canaries=has_canaries)
    number = now.attempt.id
    if _find_crashed(found):
        return _advise_after_crash(found.history, number)
    if found.is_served:
        return (
            f"`invoke rollback --to {number}` applies the present settings to this release, "
            "`invoke release` to the newest"
        )
    return (
        f"`invoke rollback --to {number}` restores this release, `invoke release` brings the newest"
    )


def _advise_during_rollout(found: Status, *, has_canaries: bool) -> str:
    images = {item.image for item in found.replicas if item.state is ReplicaState.SERVING}
    if has_canaries and len(images) > 1:
        return "`invoke promote-canary` or `invoke abort` ends a canary"
    return "wait; if its deployer is gone, `invoke release` goes on"


def _find_crashed(found: Status) -> Replica | None:
    """Return a replica of the release that should serve, which has ended by itself."""
    broken = (ReplicaState.STARTING, ReplicaState.UNHEALTHY)
    now = found.serving
    return next(
        (
            replica
            for replica in found.replicas
            if now
            and replica.image == now.attempt.release.image.digest
            and replica.state in broken
            and replica.restarts
        ),
        None,
    )


def _advise_after_crash(history: tuple[Rollout, ...], number: int) -> str:
    why = f"`invoke logs --release {number}` shows why it crashes"
    try:
        previous = choose_rollback(history, None, None).attempt
    except ReleaseUnknown:
        return f"{why}; no other release was proven here: fix it, then `invoke release`"
    return f"`invoke rollback` goes back to release {previous.id}, which was proven; {why}"
