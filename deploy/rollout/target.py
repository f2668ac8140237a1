"""What a target of rollouts does, and what runs there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from deploy.clients.http import Endpoint
from deploy.errors import RolloutFailed
from deploy.records import Attempt, Ending, Record, Release, Rollout

Trigger = Literal["release", "rollback", "promote"]
Prove = Callable[[Endpoint], None]


class Replica(Record):
    """One copy of the application: what it runs (an image digest), and whether it gets requests."""

    name: str
    image: str
    state: str


class Target(Protocol):
    """A place where releases serve. Every operation may be repeated, and finishes what a killed one began."""

    environment: str

    @property
    def url(self) -> str:
        """The address of the front door, for people."""

    @property
    def endpoint(self) -> Endpoint:
        """How the front door is asked from here."""

    def lock(self) -> AbstractContextManager[None]:
        """Keeps other deployers out, for as long as this process lives at the most.

        Raises:
            RolloutLocked: somebody else is at work, and did not finish in time; the text names them.
        """

    def history(self) -> tuple[Rollout, ...]:
        """All attempts, oldest first."""

    def begin(self, attempt: Attempt) -> None:
        """Writes down that an attempt begins."""

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Writes down how an attempt ended."""

    def replicas(self) -> tuple[Replica, ...]:
        """What runs now."""

    def serves(self, release: Release) -> bool:
        """Whether that release, and nothing else, serves with all its replicas."""

    def shift(self, release: Release, prove: Prove | None = None) -> None:
        """Lets that release have all requests, dropping none; a target that can keeps the others' replicas, without requests.

        Args:
            release: what shall serve.
            prove: plays the golden cases at an endpoint of the new replicas before all requests go there, where the target has
                one; None where the release has proven itself before.

        Raises:
            RolloutFailed: a replica crashed or was not ready in time; the end of its log is in the detail.
            GoldenMiss, CanaryAborted: the new replicas did not prove themselves.
        """

    def settle(self, *keep: Release) -> None:
        """Removes all replicas but those releases', of which the first serves."""


def replica_error(what: str, on: str, log_end: str) -> RolloutFailed:
    """The error of a replica that will not serve, with the end of its log."""
    lines = "\n".join(f"    {line}" for line in log_end.rstrip().splitlines()) or "    (nothing)"
    return RolloutFailed(
        what, on=on, next="the log shows why", detail=f"  its log ends with:\n{lines}"
    )
