"""Promotion of a proven release: to another environment, or from a canary to all replicas."""

from __future__ import annotations

import logging

from deploy import stages
from deploy.ci import run as ci_run
from deploy.context import ReleaseContext
from deploy.errors import CanaryAborted, ReleaseUnknown, RolloutLocked, SettingsInvalid
from deploy.image.push import copy_release
from deploy.pipeline import ReleaseResult, find_serving, roll_out
from deploy.records import Rollout
from deploy.rollout import apply as rollouts
from deploy.rollout.history import Choice
from deploy.rollout.target import CanaryTarget, CanaryVerb

log = logging.getLogger(__name__)


def promote(context: ReleaseContext, source: ReleaseContext) -> ReleaseResult:
    """Roll out what serves in another environment: the same digest, which is never built again.

    Args:
        context: the environment to promote to.
        source: the environment where the release serves.

    Raises:
        ReleaseUnknown: nothing was released in the source, or from another repository.
        RegistryNotFound: the image is no longer in the registry of the source.
        RolloutLocked: another deployer is at work, or has released since this was decided.
    """
    variables = context.variables
    target = context.prepare_target()
    history = target.history()
    proven = stages.current_rollout(source.inspect_target()).attempt.release
    source.repository.require_own(proven)
    source.prepare_registry()
    context.prepare_registry()
    log.info(
        "from   %s: %s with %s",
        source.environment,
        proven.image.app.commit,
        proven.image.layer.model,
    )
    repository = context.repository
    play = context.clients.play
    copied = copy_release(
        proven,
        source.repository.registry,
        repository.path,
        repository.registry,
        repository.cache,
        mount_path=repository.mount,
    )
    serving = find_serving(copied, variables, target, repository, play)
    if serving:
        return serving
    return roll_out(copied, target, repository, play, "promote", Choice(history))


def promote_canary(context: ReleaseContext) -> Rollout:
    """Let the canary on hold take over: instruct its deployer, or do its work if it is gone.

    Raises:
        ReleaseUnknown: no canary is on hold.
        CanaryAborted: its deployer undid the rollout in spite of that.
        SettingsInvalid: its work cannot be done here, because settings or object templates differ.
    """
    target = context.inspect_canary_target()
    found = _decide(target, "promote")
    if found.ending and not found.succeeded:
        raise CanaryAborted(
            f"the canary was taken back: {found.ending.why}",
            on=found.attempt.url,
            next="fix the code or the model, then release again",
        )
    if found.ending:
        return found
    if not target.may_take_over(found.attempt.release):
        raise SettingsInvalid(
            "the canary was made of other settings, variables or object templates than these, "
            "and its deployer is gone",
            on=f"environment {context.environment}",
            next="run this where it was released from, or `invoke release` to try out these; "
            "nothing was changed",
        )
    # Without the registry's login the golden cases cannot be read.
    context.read_login()
    release = found.attempt.release
    play = context.clients.play
    trigger = found.attempt.trigger
    return stages.take_over(release, target, context.repository, play, trigger)


def abort(context: ReleaseContext) -> Rollout:
    """Give up the canary on hold: instruct its deployer, or undo its rollout if it is gone.

    Raises:
        ReleaseUnknown: no canary is on hold, or it took over before its deployer read the decision.
    """
    target = context.inspect_canary_target()
    found = _decide(target, "abort")
    if found.succeeded:
        raise ReleaseUnknown(
            "the canary has taken over already",
            on=found.attempt.url,
            next="`invoke rollback` takes it back",
        )
    return found if found.ending else rollouts.abort(target, ci_run.current_user())


def _decide(target: CanaryTarget, verb: CanaryVerb) -> Rollout:
    """Record a decision on the canary and wait until its deployer is done or gone.

    Returns:
        The attempt as it is then.
    """
    image = target.canary()
    unfinished = [item for item in target.history() if item.ending is None]
    found = next(
        (item for item in reversed(unfinished) if item.attempt.release.image.digest == image), None
    )
    if found is None:
        raise ReleaseUnknown(
            "no canary is on hold",
            on=f"environment {target.environment}",
            next="`invoke status` shows what serves",
        )
    target.decide(verb, ci_run.current_user())
    try:
        with target.lock():
            return next(item for item in target.history() if item.attempt.id == found.attempt.id)
    except RolloutLocked as busy:
        raise RolloutLocked(
            f"{busy.what}; it was instructed to {verb}",
            on=busy.on,
            next="`invoke status` shows the result",
        ) from busy
