"""A release from end to end, and a rollback: the order of the stages, and which are skipped."""

from __future__ import annotations

import logging

from deploy import smoke, stages
from deploy.alternatives import suggest_model
from deploy.context import ReleaseContext
from deploy.errors import RegistryError, RegistryNotFound
from deploy.image import tags
from deploy.image.repository import Repository
from deploy.model import sample
from deploy.model.golden_cases import Play
from deploy.model.manifest import LATEST
from deploy.records import (
    AppImage,
    Image,
    ModelLayer,
    Record,
    Release,
    Rollout,
    Trigger,
    Verdict,
    short_digest,
)
from deploy.rollout import apply as rollouts
from deploy.rollout.history import Choice, Only, choose_rollback, current, is_settled
from deploy.rollout.target import Target
from deploy.source.inputs import read_inputs
from deploy.variables import Variables

log = logging.getLogger(__name__)


class ReleaseResult(Record):
    """What serves after a release, its proof, and whether anything had to change."""

    rollout: Rollout
    verdict: Verdict
    changed: bool


def release(context: ReleaseContext, version: str = LATEST) -> ReleaseResult:
    """Roll out the newest code with a version of the model; skip what is done already."""
    with suggest_model(context, version, "release"):
        return _release(context, version)


def _release(context: ReleaseContext, version: str) -> ReleaseResult:
    # Whatever the cluster, the machine or the settings lack is reported before any work is done.
    variables = context.variables
    target = context.prepare_target()
    context.prepare_engine()
    repository = context.repository
    play = context.clients.play
    layer = fetch(context, version)
    joined = stages.join(build(context), layer, repository)
    wanted = Release(image=joined, repository=repository.name)
    serving = find_serving(wanted, variables, target, repository, play)
    if serving:
        return serving
    check(context, joined)
    return roll_out(push(context, joined), target, repository, play)


def fetch(context: ReleaseContext, version: str) -> ModelLayer:
    """Find a version of the model, and make sure that its layer is in the registry or cached."""
    model = sample.resolve(context.settings.model, version, context.store, context.directory)
    return stages.fetch(model, context.store, context.repository)


def build(context: ReleaseContext) -> AppImage:
    """Return the app image of the files as they are now."""
    settings = context.settings
    inputs = read_inputs(context.directory, settings, context.platform)
    host = context.clients.host
    return stages.build(inputs, settings, context.repository, host, context.prepare_engine)


def check(context: ReleaseContext, joined: Image) -> Verdict:
    """Run an image on this machine's engine and play its golden cases."""
    app = context.settings.app
    env = context.env
    values = context.settings.smoke.env
    trial = smoke.Trial(
        port=app.port,
        ready=app.ready,
        within=env.ready_within,
        limits=env.limits(joined.layer.size),
        variables=Variables(values),
        lacking=sorted((env.env.keys() | env.secrets.keys()) - values.keys()),
    )
    return stages.check(
        joined,
        context.prepare_engine(),
        context.repository,
        trial,
        context.clients.start_container,
        context.clients.play,
    )


def push(context: ReleaseContext, joined: Image) -> Release:
    """Push an image to the environment's registry, which is started if it is a local one."""
    context.prepare_registry()
    return stages.push(joined, context.repository)


def find_serving(
    wanted: Release, variables: Variables, target: Target, repository: Repository, play: Play
) -> ReleaseResult | None:
    """Return the rollout of exactly that release, proven again, if it serves and is healthy.

    Args:
        wanted: the release.
        variables: those that its replicas should have.
        target: where it may serve.
        repository: where the golden cases of its model are read from.
        play: sends their requests.
    """
    history = target.history()
    now = current(history)
    # An attempt that has not ended may have changed what its replicas do not show.
    is_same = now is not None and now.attempt.release == wanted and is_settled(history)
    if now is None or not is_same or not target.serves(wanted):
        return None
    changes = variables.differences(target.variables())
    if changes:
        log.info("changed variables: %s", ", ".join(changes))
        return None
    verdict = rollouts.verify(target, repository.read_golden_set(wanted.image), play)
    log.info("serves %s, release %d already", verdict.url, now.attempt.id)
    return ReleaseResult(rollout=now, verdict=verdict, changed=False)


def roll_out(
    wanted: Release,
    target: Target,
    repository: Repository,
    play: Play,
    trigger: Trigger = "release",
    choice: Choice | None = None,
) -> ReleaseResult:
    """Roll a release out and prove what clients get then; the arguments are those of the stage."""
    done = stages.deploy(wanted, target, repository, play, trigger, choice)
    verdict = stages.verify(target, repository, play)
    return ReleaseResult(rollout=done, verdict=verdict, changed=True)


def rollback(context: ReleaseContext, number: int | None, only: Only | None) -> ReleaseResult:
    """Return to an earlier release, or to its model or its code alone.

    Args:
        context: the environment.
        number: the release to return to; None for the last one that was different.
        only: `model` or `code`, to keep the other half as it is.

    Raises:
        ReleaseUnknown: there is no such release, or it is in another repository.
        RegistryNotFound: its image is no longer in the registry.
        RolloutLocked: another deployer is at work, or has released since this was decided.
    """
    target = context.prepare_target()
    history = target.history()
    context.prepare_registry()
    attempt = choose_rollback(history, number, only).attempt
    chosen = attempt.release
    wanted = chosen if only is None else _combine(context, history, chosen, only)
    context.repository.require_own(wanted)
    if _is_gone(wanted, context.repository):
        raise RegistryNotFound(
            "the image to go back to is no longer in the registry",
            on=wanted.reference,
            next="choose another release, or release that commit again",
        )
    play = context.clients.play
    # With one half as it is now come the variables as they are now.
    choice = Choice(history, attempt.id if only is None else None)
    return roll_out(wanted, target, context.repository, play, "rollback", choice)


def _is_gone(wanted: Release, repository: Repository) -> bool:
    """Return whether the registry says that it no longer has a release.

    If the registry does not answer, the image may still be on the target.
    """
    try:
        return not tags.has_release(wanted, repository.registry)
    except RegistryNotFound:
        return True
    except RegistryError as error:
        log.warning(
            "the registry cannot say whether it has %s: %s",
            short_digest(wanted.image.digest),
            error.what,
        )
        return False


def _combine(
    context: ReleaseContext, history: tuple[Rollout, ...], chosen: Release, only: Only
) -> Release:
    """Return the current release with one half of an earlier one.

    A pair that never served is checked and pushed first.
    """
    served = [item.attempt.release for item in reversed(history) if item.succeeded]
    app = chosen.image.app if only == "code" else served[0].image.app
    layer = chosen.image.layer if only == "model" else served[0].image.layer
    joined = stages.join(app, layer, context.repository)
    known = next((item for item in served if item.image.digest == joined.digest), None)
    if known:
        return known
    check(context, joined)
    return push(context, joined)
