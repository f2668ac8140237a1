"""Taking over what was proven already: in another environment, or on some of the replicas of this one."""

from __future__ import annotations

import logging
from typing import Literal

from deploy import pipeline
from deploy.context import ReleaseContext
from deploy.errors import CanaryAborted, ReleaseUnknown, RolloutLocked, SettingsInvalid
from deploy.image.push import copy_release
from deploy.machine import process as owner
from deploy.pipeline import ReleaseResult
from deploy.records import Rollout
from deploy.rollout import apply as rollout

log = logging.getLogger(__name__)


def promote(site: ReleaseContext, source: ReleaseContext) -> ReleaseResult:
    """Ships what serves in another environment: the same digest, copied where the registries differ, and never built again.

    Args:
        site: where to.
        source: where it serves.

    Raises:
        ReleaseUnknown: nothing was released there.
        RegistryNotFound: its image is no longer in that environment's registry.
        RolloutLocked: somebody else is at work here, or has released here since this was decided.
    """
    before = site.target.history()
    proven = pipeline.current_rollout(source).attempt.release
    source.start_registry()
    site.start_registry()
    log.info(
        "from   %s: %s with %s",
        source.environment,
        proven.image.app.commit,
        proven.image.layer.model,
    )
    mount = site.settings.model.mount
    copied = copy_release(
        proven, source.registry, site.repository, site.registry, site.cache, mount_path=mount
    )
    already = pipeline.find_serving(site, copied)
    if already:
        return already
    done = pipeline.deploy(site, copied, "promote", decided_on=before)
    return ReleaseResult(rollout=done, verdict=pipeline.verify(site), changed=True)


def promote_canary(site: ReleaseContext) -> Rollout:
    """Has the canary that is held take over now: its deployer is told, or its work is done here if it is gone.

    Raises:
        ReleaseUnknown: no canary is held.
        CanaryAborted: its deployer took it back in spite of that.
        SettingsInvalid: its work cannot be done here, where settings or manifests are others.
    """
    begun = _decided(site, "promote")
    if begun.ending and not begun.succeeded:
        raise CanaryAborted(
            f"the canary was taken back: {begun.ending.why}",
            on=begun.attempt.url,
            next="release again when it is mended",
        )
    if begun.ending:
        return begun
    if not site.on_cluster.may_take_over(begun.attempt.release):
        raise SettingsInvalid(
            "the canary was made of other settings or manifests than these, and its deployer is gone",
            on=f"environment {site.environment}",
            next="run this where it was released from, or `invoke release` to try out these; nothing was changed",
        )
    return pipeline.deploy(site, begun.attempt.release, begun.attempt.trigger, hold=False)


def abort(site: ReleaseContext) -> Rollout:
    """Gives the canary that is held up: its deployer is told, or the previous release is put back here if it is gone.

    Raises:
        ReleaseUnknown: no canary is held, or it has taken over before its deployer heard of it.
    """
    begun = _decided(site, "abort")
    if begun.succeeded:
        raise ReleaseUnknown(
            "the canary has taken over already",
            on=begun.attempt.url,
            next="`invoke rollback` takes it back",
        )
    return begun if begun.ending else rollout.abort(site.on_cluster, owner.current_user())


def _decided(site: ReleaseContext, verb: Literal["promote", "abort"]) -> Rollout:
    """Leaves word about the canary, and waits until its deployer is done or gone; returns the attempt as it is then."""
    target = site.on_cluster
    held = target.canary()
    open_ = [item for item in target.history() if item.ending is None]
    begun = next(
        (item for item in reversed(open_) if item.attempt.release.image.digest == held), None
    )
    if begun is None:
        raise ReleaseUnknown(
            "no canary is held",
            on=f"environment {site.environment}",
            next="`invoke status` shows what serves",
        )
    target.decide(verb, owner.current_user())
    try:
        with target.lock():
            return next(item for item in target.history() if item.attempt.id == begun.attempt.id)
    except RolloutLocked as busy:
        raise RolloutLocked(
            f"{busy.what}; it was told to {verb}",
            on=busy.on,
            next="`invoke status` shows what comes of it",
        ) from busy
