"""The protocol of a target: what rollouts ask of it, and what they read from it.

`tests/contracts/target.py` holds the rules as tests that any target can run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from deploy.clients.http import Endpoint
from deploy.errors import RolloutFailed, format_log_tail
from deploy.records import Attempt, Ending, Exit, Record, Release, Rollout
from deploy.variables import Variables

Prove = Callable[[Endpoint], None]
CanaryVerb = Literal["promote", "abort"]


class ReplicaState(StrEnum):
    """The state of a replica: what it does for clients now.

    Attributes:
        STARTING: it is not ready yet, or was started again after a crash just now.
        STANDBY: it is ready, and gets no requests.
        SERVING: it is ready, and gets requests.
        STOPPED: its process has ended.
        UNHEALTHY: it cannot become ready, is paused, or crashes again and again.
    """

    STARTING = "starting"
    STANDBY = "standby"
    SERVING = "serving"
    STOPPED = "stopped"
    UNHEALTHY = "unhealthy"


class Replica(Record):
    """One copy of the application.

    Attributes:
        name: its name.
        image: the digest of its image.
        state: what it does for clients now.
        restarts: how often its process was started again after it had ended.
        started: when the process that runs now was started; None if none runs.
        last_exit: how its last process ended; None if none has, or it is not known.
    """

    name: str
    image: str
    state: ReplicaState
    restarts: int = 0
    started: datetime | None = None
    last_exit: Exit | None = None


class Target(Protocol):
    """A Docker host, a namespace, or another place in which releases serve.

    A deployer may be killed at any moment, and the next one can be another process on another
    machine. Therefore a target reads what it needs from the place itself, and each method can be
    called again and completes what an interrupted call began.

    One rollout calls, within one `lock`:

    1. `variables_for`, then `begin` with the attempt and these variables;
    2. `serve` with its release (or `take_over`, on a target with canaries);
    3. `end` with the attempt, then `settle` with its release.

    If 2 or the proof after it fails: `restore` and `settle` with the previous release, or `settle`
    without a release if nothing served before; then `end`. `restore` and `settle` are also called
    before 1, to undo an attempt that another deployer did not finish.

    `history`, `replicas`, `replica_count`, `serves`, `variables`, `variables_for`,
    `find_endpoint_problem`, `url` and `endpoint` change nothing. They are called at any time, with
    or without the lock.
    """

    environment: str

    @property
    def url(self) -> str:
        """The address at which clients reach the release, for people."""

    @property
    def endpoint(self) -> Endpoint:
        """The same address as this machine reaches it."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other deployers out during a `with` block; the lock ends with this process.

        Raises:
            RolloutLocked: another deployer has the lock, and did not release it in time; the
                message names the deployer.
        """

    def history(self) -> tuple[Rollout, ...]:
        """Return all attempts, oldest first."""

    def begin(self, attempt: Attempt, variables: Variables | None = None) -> None:
        """Record that an attempt begins, and keep what `restore` needs until it ends.

        If an earlier attempt has not ended, what was kept for that one stays: what serves now
        can be half of it.

        Args:
            attempt: the attempt.
            variables: those of the replicas that `serve` starts; None for those of the settings.
        """

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Record how an attempt ended, in place of an earlier ending of the same attempt."""

    def replicas(self) -> tuple[Replica, ...]:
        """Return the replicas that exist now."""

    def replica_count(self) -> int:
        """Return how many replicas are to serve."""

    def serves(self, release: Release) -> bool:
        """Return whether all replicas of that release serve, as the settings say, and no others.

        Their variables are not compared, because that needs the secrets: `variables` has them.
        """

    def variables(self) -> Variables:
        """Return the variables that what serves was given; none if nothing serves."""

    def variables_for(self, returns_to: int | None) -> Variables:
        """Return the variables for the replicas of a next attempt.

        They are those of the settings, unless the attempt repeats another one, whose variables the
        target still has.

        Args:
            returns_to: the number of the attempt that is repeated, if one is.

        Raises:
            SettingsInvalid: a secret of the settings is needed, and is not there.
        """

    def find_endpoint_problem(self) -> str:
        """Return why clients are not served at the endpoint, as a clause; empty if they are."""

    def serve(self, release: Release, prove: Prove) -> None:
        """Bring a release into service without losing a request.

        The replicas of the previous release stay as standby where the target can keep them, so
        that `restore` need not start any.

        Args:
            release: the release of the attempt that `begin` recorded.
            prove: plays the golden cases at an endpoint of the new replicas, and raises if an
                answer is wrong. A target that can reach new replicas before clients do calls it
                then; another one need not call it.

        Raises:
            RolloutFailed: a replica crashed, or was not ready in time; the detail has the end of
                its log.
            GoldenMiss, CanaryAborted: the new replicas gave wrong or failed responses.
        """

    def restore(self, release: Release) -> None:
        """Bring the previous release back into service, as it was when `begin` was called.

        So are its variables, also those of a replica that has to be started; the settings' take
        their place only if the target no longer has them. Nothing is proven: the release was
        proven when it was rolled out.

        Args:
            release: the release of the last attempt that succeeded.

        Raises:
            RolloutFailed: a replica crashed, or was not ready in time.
        """

    def settle(self, *keep: Release) -> None:
        """Remove all replicas, except those of the given releases, of which the first serves.

        Replicas of the first that have other variables than those that serve are removed as well.
        A target may keep one more release as standby if it was proven here, unless it is the
        release of the attempt that has not ended.
        """


class CanaryTarget(Target, Protocol):
    """A target that can give a new release some of the requests first.

    While a deployer holds a canary in `serve`, another process can read and decide.
    """

    def canary(self) -> str:
        """Return the digest of the image that is on hold as a canary; empty if there is none."""

    def may_take_over(self, release: Release) -> bool:
        """Return whether the canary of a release was made from the present settings."""

    def decide(self, verb: CanaryVerb, by: str) -> None:
        """Instruct the deployer that holds the canary: `promote` or `abort`; needs no lock."""

    def take_over(self, release: Release) -> None:
        """Give the canary all requests, without another hold or proof.

        Args:
            release: the release of the canary, and of the attempt that `begin` recorded.

        Raises:
            RolloutFailed: a replica crashed, or was not ready in time.
        """


def replica_error(what: str, on: str, log_end: str) -> RolloutFailed:
    """Return the error of a replica that does not become ready, with the end of its log."""
    detail = f"  its log ends with:\n{format_log_tail(log_end)}"
    return RolloutFailed(what, on=on, next="the log shows why", detail=detail)
