"""What an environment's history says: which release serves, and which one a rollback returns to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploy.errors import ReleaseUnknown
from deploy.records import Rollout

Only = Literal["model", "code"]


@dataclass(frozen=True)
class Choice:
    """What a rollout was chosen by, if that depends on what served.

    Attributes:
        history: the history.
        returns_to: the number of the attempt that is repeated, with its variables; None if the
            rollout repeats none.
    """

    history: tuple[Rollout, ...]
    returns_to: int | None = None


def current(history: tuple[Rollout, ...]) -> Rollout | None:
    """Return the attempt whose release should serve: the last that succeeded."""
    return next((rollout for rollout in reversed(history) if rollout.succeeded), None)


def is_settled(history: tuple[Rollout, ...]) -> bool:
    """Return whether the last attempt has ended; until then it may have changed anything."""
    return not history or history[-1].ending is not None


def find_attempt(history: tuple[Rollout, ...], number: int) -> Rollout:
    """Return an attempt by its id, however it ended.

    Raises:
        ReleaseUnknown: there is none.
    """
    found = next((rollout for rollout in history if rollout.attempt.id == number), None)
    if found is None:
        raise ReleaseUnknown(
            f"the history has no release {number}",
            on="history",
            next="`invoke history` shows the releases that it has",
        )
    return found


def choose_rollback(history: tuple[Rollout, ...], number: int | None, only: Only | None) -> Rollout:
    """Return the attempt to whose release a rollback returns.

    Args:
        history: all attempts, oldest first.
        number: the attempt, or None for the last one that differs from what serves.
        only: roll back the model or the code alone, or None for both.

    Raises:
        ReleaseUnknown: there is no such attempt, or none that differs.
    """
    succeeded = [rollout for rollout in history if rollout.succeeded]
    if not succeeded:
        raise ReleaseUnknown(
            "nothing has been released here yet",
            on="history",
            next="`invoke release` makes a first release",
        )
    if number is not None:
        return _find(succeeded, number)
    return _last_different(succeeded, only)


def _find(succeeded: list[Rollout], number: int) -> Rollout:
    found = next((rollout for rollout in succeeded if rollout.attempt.id == number), None)
    if found is None:
        known = ", ".join(str(rollout.attempt.id) for rollout in succeeded)
        raise ReleaseUnknown(
            f"release {number} never served here",
            on="history",
            next=f"choose one that did: {known}",
        )
    return found


def _last_different(succeeded: list[Rollout], only: Only | None) -> Rollout:
    serving = succeeded[-1]
    for rollout in reversed(_earlier(succeeded, serving, only)):
        if _digests(rollout, only) != _digests(serving, only):
            return rollout
    raise ReleaseUnknown(
        f"there is no earlier {only or 'release'} to go back to",
        on="history",
        next="`invoke history` shows what served here",
    )


def _earlier(succeeded: list[Rollout], serving: Rollout, only: Only | None) -> list[Rollout]:
    """Return what served before the present release was first rolled out.

    So that two rollbacks in a row go two steps back, and not back and forth.
    """
    first = serving
    while first.attempt.trigger == "rollback":
        same = [
            rollout
            for rollout in succeeded
            if rollout.attempt.id < first.attempt.id
            and _digests(rollout, only) == _digests(serving, only)
        ]
        if not same:
            break
        first = same[-1]
    return [rollout for rollout in succeeded if rollout.attempt.id < first.attempt.id]


def _digests(rollout: Rollout, only: Only | None) -> tuple[str, ...]:
    """Return the digest of the model's layer or of the app image, or both."""
    joined = rollout.attempt.release.image
    digests = {"model": joined.layer.digest, "code": joined.app.manifest.digest}
    return (digests[only],) if only else tuple(digests.values())
