"""Making a release serve, proving it at the front door, and taking it back when it does not.

A target that can keeps the previous release's replicas warm until the new one is proven, so that undoing is a switch, not a start.
Rolling back is rolling out an older release: there is one way forward, whichever way it leads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from deploy import interrupts
from deploy.clients.http import Endpoint
from deploy.errors import (
    GoldenMiss,
    ReleaseError,
    ReleaseUnknown,
    RolloutLocked,
    UndoFailed,
    VerifyFailed,
)
from deploy.model import golden
from deploy.records import Attempt, Ending, Release, Rollout, Verdict
from deploy.rollout.history import current
from deploy.rollout.target import Target, Trigger

log = logging.getLogger(__name__)


def apply(  # noqa: PLR0913 - the history tells three of them, and tests choose two
    release: Release,
    target: Target,
    proof: golden.GoldenSet,
    *,
    trigger: Trigger,
    by: str,
    run: str = "",
    hold: bool = True,
    decided_on: tuple[Rollout, ...] | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    play: golden.Play = golden.play,
) -> Rollout:
    """Makes a release serve; a failure puts the previous one back before it is reported.

    Args:
        release: what shall serve.
        target: where.
        proof: the golden cases of its model.
        trigger: what asked for it, for the history.
        by: who asked for it.
        run: the address of the CI run that asked for it.
        hold: whether the target tries the release out on some replicas first, if it can.
        decided_on: the history that this release was chosen by, where it depends on what served; None where it replaces whatever serves.
        clock: tells the time.
        play: asks the front door.

    Raises:
        GoldenMiss, RolloutFailed, CanaryAborted: the new release did not prove itself; the previous one serves again.
        UndoFailed: nor could the previous one be put back.
        RolloutLocked: another deployer is at work, has taken over from this one, or has released since this was decided.
    """
    with target.lock():
        history = target.history()
        previous = current(history)
        if decided_on is not None:
            _require_unchanged(previous, current(decided_on))
        number = history[-1].attempt.id + 1 if history else 1
        attempt = Attempt(
            id=number,
            environment=target.environment,
            trigger=trigger,
            release=release,
            by=by,
            at=clock(),
            url=target.url,
            run=run,
        )
        _clear_unfinished(target, previous, release)
        target.begin(attempt)
        with _undoing(attempt, target, previous, clock):
            target.shift(
                release, (lambda endpoint: _prove(endpoint, proof, release, play)) if hold else None
            )
            _prove(target.endpoint, proof, release, play)
        ending = Ending(outcome="succeeded", at=clock())
        with interrupts.defer_signals("the release is proven, and all but done"):
            with _undoing(attempt, target, previous, clock):
                target.end(attempt, ending)
            _settle(attempt, target)
        return Rollout(attempt=attempt, ending=ending)


def _require_unchanged(now: Rollout | None, before: Rollout | None) -> None:
    """Stops what would take back a release that nobody knew of when it was decided."""
    if now is not None and now != before:
        raise RolloutLocked(
            f"somebody else released meanwhile: {now.attempt.by}, release {now.attempt.id}",
            on=f"environment {now.attempt.environment}",
            next="`invoke status` shows what serves; if that shall be replaced, run again; nothing was changed",
        )


@contextmanager
def _undoing(
    attempt: Attempt, target: Target, previous: Rollout | None, clock: Callable[[], datetime]
) -> Iterator[None]:
    """Puts the previous release back where a `with` block fails, and writes that down."""
    try:
        yield
    except RolloutLocked:
        # Whoever has the lock now finds what is left here, and clears it.
        raise
    except BaseException as error:
        with interrupts.defer_signals("putting the previous release back"):
            target.end(attempt, _undone(_why(error), target, previous, clock))
        raise


def _settle(attempt: Attempt, target: Target) -> None:
    """Removes what served before; a failure does not take the release back, whose success is written down."""
    try:
        target.settle(attempt.release)
    except ReleaseError:
        log.warning(
            "release %d is proven and serves; what it replaced could not all be removed", attempt.id
        )
        raise


def _clear_unfinished(target: Target, previous: Rollout | None, release: Release) -> None:
    """Takes back what a killed deployer left, unless it is what shall be released now."""
    if previous is None or previous.attempt.release.image.digest == release.image.digest:
        return
    back = previous.attempt.release
    # What stands by has been taken back already, or is kept for an instant way back.
    strangers = {replica.image for replica in target.replicas() if replica.state != "standing by"}
    if strangers - {back.image.digest, release.image.digest}:
        log.info(
            "an earlier rollout was never finished: release %d comes back first",
            previous.attempt.id,
        )
        target.shift(back)
        target.settle(back, release)


def _prove(
    endpoint: Endpoint, proof: golden.GoldenSet, release: Release, play: golden.Play
) -> None:
    verdict = play(proof, endpoint)
    if not verdict.passed:
        raise GoldenMiss(
            f"the release missed {len(verdict.misses)} of {len(verdict.cases)} golden cases",
            on=f"{endpoint.url}, {release.image.app.commit} with {release.image.layer.model}",
            next="the previous release serves again; mend the code or the model",
            detail="\n".join(f"  {case.name}: {case.problem}" for case in verdict.misses),
        )
    log.info(
        "proven at %s: %s",
        endpoint.url,
        "; ".join(f"{case.name} → {case.answer}" for case in verdict.cases),
    )


def _why(error: BaseException) -> str:
    """What ended a rollout, for the history."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return error.what if isinstance(error, ReleaseError) else type(error).__name__


def _undone(
    why: str, target: Target, previous: Rollout | None, clock: Callable[[], datetime]
) -> Ending:
    """Puts the previous release back, or leaves nothing where there is none."""
    back = previous.attempt.release if previous else None
    log.warning(
        "%s: %s",
        why,
        f"putting back release {previous.attempt.id}"
        if previous
        else "nothing served before, taking it away",
    )
    try:
        if back:
            target.shift(back)
        target.settle(*([back] if back else []))
    except ReleaseError as failure:
        reason = f": {failure.what}" if failure.what != why else ""
        raise UndoFailed(
            f"{why}; and the previous release could not be put back{reason}",
            on=failure.on,
            next=f"{failure.next}; the next run goes on from where this one stopped",
            detail=failure.detail,
        ) from failure
    return Ending(outcome="undone" if back else "failed", at=clock(), why=why)


def abort(
    target: Target, by: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Rollout:
    """Takes back an attempt whose deployer is gone.

    Raises:
        ReleaseUnknown: the last attempt has ended.
        UndoFailed: the previous release could not be put back.
        RolloutLocked: its deployer is still at work.
    """
    with target.lock():
        history = target.history()
        if not history or history[-1].ending:
            raise ReleaseUnknown(
                "nothing is under way", on="history", next="`invoke status` shows what serves"
            )
        attempt = history[-1].attempt
        ending = _undone(f"given up by {by}", target, current(history), clock)
        target.end(attempt, ending)
        return Rollout(attempt=attempt, ending=ending)


def verify(target: Target, proof: golden.GoldenSet, play: golden.Play = golden.play) -> Verdict:
    """Plays the golden cases through the front door, changing nothing.

    Raises:
        VerifyFailed: an answer is wrong or missing.
    """
    verdict = play(proof, target.endpoint)
    if not verdict.passed:
        raise VerifyFailed(
            f"what serves now missed {len(verdict.misses)} of {len(verdict.cases)} golden cases",
            on=target.url,
            next="`invoke status` shows the replicas; `invoke rollback` takes the release back",
            detail="\n".join(f"  {case.name}: {case.problem}" for case in verdict.misses),
        )
    return verdict
