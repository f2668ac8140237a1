"""What served here before, and which of it a rollback returns to."""

from __future__ import annotations

from typing import Literal

from deploy.errors import ReleaseUnknown
from deploy.records import Rollout

Only = Literal["model", "code"]


def current(history: tuple[Rollout, ...]) -> Rollout | None:
    """The attempt whose release should be serving: the last that succeeded."""
    return next((rollout for rollout in reversed(history) if rollout.succeeded), None)


def choose_rollback(history: tuple[Rollout, ...], number: int | None, only: Only | None) -> Rollout:
    """The attempt that a rollback returns to.

    Args:
        history: all attempts, oldest first.
        number: a particular one, or None for the last that differs in what shall be taken back.
        only: take back the model or the code alone, or None for both.

    Raises:
        ReleaseUnknown: there is no such attempt, or none to go back to.
    """
    now = current(history)
    if now is None:
        raise ReleaseUnknown(
            "nothing has been released here yet",
            on="history",
            next="`invoke release` makes a first release",
        )
    succeeded = [rollout for rollout in history if rollout.succeeded]
    if number is not None:
        chosen = next((rollout for rollout in succeeded if rollout.attempt.id == number), None)
        known = ", ".join(str(rollout.attempt.id) for rollout in succeeded)
        if chosen is None:
            raise ReleaseUnknown(
                f"release {number} never served here",
                on="history",
                next=f"choose one that did: {known}",
            )
        return chosen
    different = (
        rollout
        for rollout in reversed(_before(succeeded, now, only))
        if _half(rollout, only) != _half(now, only)
    )
    found = next(different, None)
    if found is None:
        part = only or "release"
        raise ReleaseUnknown(
            f"there is no earlier {part} to go back to",
            on="history",
            next="`invoke history` shows what served here",
        )
    return found


def _before(succeeded: list[Rollout], now: Rollout, only: Only | None) -> list[Rollout]:
    """What served before the present release, or that half of it, came: rolling back twice goes two steps, not back and forth."""
    first = now
    while first.attempt.trigger == "rollback":
        earlier = [
            rollout
            for rollout in succeeded
            if rollout.attempt.id < first.attempt.id and _half(rollout, only) == _half(now, only)
        ]
        if not earlier:
            break
        first = earlier[-1]
    return [rollout for rollout in succeeded if rollout.attempt.id < first.attempt.id]


def _half(rollout: Rollout, only: Only | None) -> tuple[str, ...]:
    joined = rollout.attempt.release.image
    halves = {"model": joined.layer.digest, "code": joined.app.manifest.digest}
    return (halves[only],) if only else tuple(halves.values())
