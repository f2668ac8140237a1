"""Rollouts: bring a release into service, prove it at the endpoint, and undo it if that fails.

A target that can keeps the replicas of the previous release until the new one is proven, so that
an undo changes where requests go and starts nothing. A rollback is a rollout of an older release.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

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
from deploy.model import golden_cases
from deploy.records import Attempt, Ending, Evidence, Release, Rollout, Trigger, Verdict
from deploy.rollout.evidence import find_evidence
from deploy.rollout.history import Choice, current, is_settled
from deploy.rollout.target import CanaryTarget, Prove, ReplicaState, Target
from deploy.variables import Variables

log = logging.getLogger(__name__)

Now = Callable[[], datetime]


def now() -> datetime:
    """Return the present time, with its zone."""
    return datetime.now(UTC)


def apply(
    release: Release,
    target: Target,
    golden_set: golden_cases.GoldenSet,
    *,
    trigger: Trigger,
    by: str,
    run: str = "",
    choice: Choice | None = None,
    clock: Now = now,
    play: golden_cases.Play = golden_cases.play,
) -> Rollout:
    """Roll a release out; if that fails, restore the previous release before raising.

    Args:
        release: the release to roll out.
        target: where it serves.
        golden_set: the golden cases of its model.
        trigger: the command that asked for it, for the history.
        by: the person or CI job that asked for it.
        run: the address of the CI run that asked for it.
        choice: what this release was chosen by; None if it replaces whatever serves.
        clock: returns the present time.
        play: plays the golden cases at an endpoint.

    Raises:
        SettingsInvalid: a secret is not there, or a golden case names a variable that the
            application does not get; nothing was changed.
        GoldenMiss, RolloutFailed, CanaryAborted: the new release was not proven; the previous one
            serves again.
        UndoFailed: the new release was not proven, and the previous one could not be restored.
        RolloutLocked: another deployer is at work, has taken the lock from this one, or has
            released since this was decided.
    """
    with target.lock():
        history = target.history()
        previous = current(history)
        if choice is not None:
            _require_unchanged(previous, current(choice.history))
        variables = target.variables_for(choice.returns_to if choice else None)
        attempt = _create_attempt(
            release, target, history, clock(), trigger=trigger, by=by, run=run
        )
        prove = _prover(release, variables, target, golden_set, play)
        _undo_unfinished(target, previous, release)
        serve = partial(target.serve, release, prove)
        return _roll_out(attempt, variables, target, previous, serve, prove, clock)


def take_over(
    release: Release,
    target: CanaryTarget,
    golden_set: golden_cases.GoldenSet,
    *,
    trigger: Trigger,
    by: str,
    run: str = "",
    clock: Now = now,
    play: golden_cases.Play = golden_cases.play,
) -> Rollout:
    """Give all requests to a canary whose deployer has ended, and prove it at the endpoint.

    The arguments and errors are those of `apply`; the release is that of the canary.
    """
    with target.lock():
        history = target.history()
        previous = current(history)
        attempt = _create_attempt(
            release, target, history, clock(), trigger=trigger, by=by, run=run
        )
        variables = target.variables_for(None)
        prove = _prover(release, variables, target, golden_set, play)
        _undo_unfinished(target, previous, release)
        serve = partial(target.take_over, release)
        return _roll_out(attempt, variables, target, previous, serve, prove, clock)


def abort(target: Target, by: str, clock: Now = now) -> Rollout:
    """Undo an attempt whose deployer has ended.

    Raises:
        ReleaseUnknown: the last attempt has ended.
        UndoFailed: the previous release could not be restored.
        RolloutLocked: its deployer is still at work.
    """
    with target.lock():
        history = target.history()
        if is_settled(history):
            raise ReleaseUnknown(
                "no rollout is under way", on="history", next="`invoke status` shows what serves"
            )
        attempt = history[-1].attempt
        evidence = find_evidence(None, attempt, target)
        ending = _undo(f"aborted by {by}", evidence, target, current(history), clock)
        target.end(attempt, ending)
        return Rollout(attempt=attempt, ending=ending)


def verify(
    target: Target, golden_set: golden_cases.GoldenSet, play: golden_cases.Play = golden_cases.play
) -> Verdict:
    """Play the golden cases at the endpoint, with the variables of what serves; change nothing.

    Raises:
        SettingsInvalid: a golden case names a variable that the application does not have.
        VerifyFailed: a response is wrong or missing.
    """
    cases = golden_set.with_variables(target.variables(), _tables(target))
    verdict = play(cases, target.endpoint)
    if not verdict.passed:
        raise VerifyFailed(
            f"what serves now missed {len(verdict.misses)} of {len(verdict.cases)} golden cases",
            on=verdict.url,
            next="`invoke status` shows the replicas; `invoke rollback` undoes the release",
            detail=_list_misses(verdict),
        )
    return verdict


def _create_attempt(
    release: Release,
    target: Target,
    history: tuple[Rollout, ...],
    at: datetime,
    *,
    trigger: Trigger,
    by: str,
    run: str,
) -> Attempt:
    return Attempt(
        id=history[-1].attempt.id + 1 if history else 1,
        environment=target.environment,
        trigger=trigger,
        release=release,
        by=by,
        at=at,
        url=target.url,
        run=run,
    )


def _require_unchanged(now: Rollout | None, before: Rollout | None) -> None:
    """Refuse to replace a release that was not there yet when this one was chosen."""
    if now is not None and now != before:
        raise RolloutLocked(
            f"another deployer released in the meantime: {now.attempt.by}, "
            f"release {now.attempt.id}",
            on=f"environment {now.attempt.environment}",
            next="`invoke status` shows what serves; run again to replace it; nothing was changed",
        )


def _undo_unfinished(target: Target, previous: Rollout | None, release: Release) -> None:
    """Undo what a killed deployer left, unless it is the release to roll out now."""
    if previous is None or previous.attempt.release.image.digest == release.image.digest:
        return
    proven = previous.attempt.release
    # Standby replicas get no requests: they were undone already, or are kept for a fast undo.
    images = {
        replica.image for replica in target.replicas() if replica.state is not ReplicaState.STANDBY
    }
    if images - {proven.image.digest, release.image.digest}:
        log.info(
            "an earlier rollout is unfinished: release %d is restored first", previous.attempt.id
        )
        target.restore(proven)
        target.settle(proven, release)


def _roll_out(
    attempt: Attempt,
    variables: Variables,
    target: Target,
    previous: Rollout | None,
    serve: Callable[[], None],
    prove: Prove,
    clock: Now,
) -> Rollout:
    target.begin(attempt, variables)
    with _undo_on_failure(attempt, target, previous, clock):
        serve()
        prove(target.endpoint)
    ending = Ending(outcome="succeeded", at=clock())
    with interrupts.defer_signals("the release is proven, and almost done"):
        with _undo_on_failure(attempt, target, previous, clock):
            target.end(attempt, ending)
        _settle(attempt, target)
    return Rollout(attempt=attempt, ending=ending)


@contextmanager
def _undo_on_failure(
    attempt: Attempt, target: Target, previous: Rollout | None, clock: Now
) -> Iterator[None]:
    """Restore the previous release if a `with` block fails, and record that."""
    try:
        yield
    except RolloutLocked:
        # The deployer that has the lock now finds what is left here, and undoes it.
        raise
    except BaseException as error:
        with interrupts.defer_signals("restoring the previous release"):
            evidence = find_evidence(error, attempt, target)
            target.end(attempt, _undo(_reason(error), evidence, target, previous, clock))
        raise


def _undo(
    why: str, evidence: Evidence, target: Target, previous: Rollout | None, clock: Now
) -> Ending:
    """Restore the previous release, or leave nothing where nothing served before."""
    if previous:
        log.warning("%s: restoring release %d", why, previous.attempt.id)
    else:
        log.warning("%s: nothing served before, removing the release", why)
    proven = (previous.attempt.release,) if previous else ()
    try:
        for release in proven:
            target.restore(release)
        target.settle(*proven)
    except ReleaseError as failure:
        reason = f": {failure.what}" if failure.what != why else ""
        raise UndoFailed(
            f"{why}; and the previous release could not be restored{reason}",
            on=failure.on,
            next=f"{failure.next}; the next run continues from there",
            detail=failure.detail,
        ) from failure
    outcome = "undone" if previous else "failed"
    return Ending(outcome=outcome, at=clock(), why=why, evidence=evidence)


def _reason(error: BaseException) -> str:
    """Return why a rollout failed, for the history."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return error.what if isinstance(error, ReleaseError) else type(error).__name__


def _settle(attempt: Attempt, target: Target) -> None:
    """Remove what served before; if that fails, the release is recorded as proven and stays."""
    try:
        target.settle(attempt.release)
    except ReleaseError:
        log.warning(
            "release %d is proven and serves; not all that it replaced could be removed",
            attempt.id,
        )
        raise


def _prover(
    release: Release,
    variables: Variables,
    target: Target,
    golden_set: golden_cases.GoldenSet,
    play: golden_cases.Play,
) -> Prove:
    """Return a function that plays the golden cases at an endpoint, and raises GoldenMiss.

    Raises:
        SettingsInvalid: a golden case names a variable that the replicas do not get.
    """
    cases = golden_set.with_variables(variables, _tables(target))

    def prove(endpoint: Endpoint) -> None:
        verdict = play(cases, endpoint)
        if not verdict.passed:
            error = GoldenMiss(
                f"the release missed {len(verdict.misses)} of {len(verdict.cases)} golden cases",
                on=f"{endpoint.url}, {release.image.app.commit} with {release.image.layer.model}",
                next="the previous release serves again; fix the code or the model",
                detail=_list_misses(verdict),
            )
            error.misses = {case.name: case.problem for case in verdict.misses}
            raise error
        answers = "; ".join(f"{case.name} → {case.answer}" for case in verdict.cases)
        log.info("proven at %s: %s", endpoint.url, answers)

    return prove


def _tables(target: Target) -> str:
    """Return which tables of the settings have the variables of a target's environment."""
    table = f"environments.{target.environment}"
    return f"[{table}.env] or [{table}.secrets]"


def _list_misses(verdict: Verdict) -> str:
    return "\n".join(f"  {case.name}: {case.problem}" for case in verdict.misses)
