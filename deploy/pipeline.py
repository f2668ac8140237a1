"""The only place that knows the order of the stages, and what may be skipped.

Each function takes a site and records, runs one stage, and returns the next record; `release` runs them all.
"""

from __future__ import annotations

import logging
import time

from deploy import progress, smoke, source
from deploy.clients.docker import buildkit
from deploy.context import ReleaseContext
from deploy.errors import RegistryError, RegistryNotFound, ReleaseUnknown
from deploy.image import join as image
from deploy.image import registry
from deploy.image.export import export_image
from deploy.image.wheels import download
from deploy.machine import process as owner
from deploy.machine import services
from deploy.model import fetch as model
from deploy.model import golden
from deploy.records import AppImage, Image, Model, ModelLayer, Record, Release, Rollout, Verdict
from deploy.rollout import apply as rollout
from deploy.rollout.history import Only, choose_rollback, current
from deploy.rollout.target import Trigger

log = logging.getLogger(__name__)


class ReleaseResult(Record):
    """What a release came to: the rollout that serves, its proof, and whether anything had to change."""

    rollout: Rollout
    verdict: Verdict
    changed: bool


# --- stages


def fetch(site: ReleaseContext, version: str) -> ModelLayer:
    """Resolves a model version and makes sure that its layer is at hand: in the registry, or else in the cache."""
    return _fetched(site, site.resolve(version))


def _fetched(site: ReleaseContext, wanted: Model) -> ModelLayer:
    found = find_layer(site, wanted)
    if found:
        log.info("model  %s, %s, nothing to fetch", wanted, progress.format_size(found.size))
        return found
    started = time.monotonic()
    fetched = model.fetch(wanted, site.store, site.cache, site.settings.model.mount)
    log.info(
        "model  %s, %s, fetched in %s",
        wanted,
        progress.format_size(fetched.size),
        progress.format_seconds(time.monotonic() - started),
    )
    return fetched


def find_layer(site: ReleaseContext, wanted: Model) -> ModelLayer | None:
    """The model's layer, if its bytes are in the cache or the registry."""
    mount = site.settings.model.mount
    cached = model.find_cached_layer(wanted, site.cache, mount)
    if cached and site.cache.has(cached.digest, cached.size):
        return cached
    found = (
        registry.find_layer(wanted, mount, site.repository, site.registry)
        if site.registry_is_up
        else None
    )
    if found:
        model.remember(found, site.cache, mount)
    return found


def build(site: ReleaseContext) -> AppImage:
    """The app image of the files as they are now; it is built only if no machine has built it before."""
    inputs = source.inputs(site.directory, site.settings)
    found = find_app(site, inputs)
    if found:
        log.info("code   %s, nothing to build", found.commit)
        return found
    started = time.monotonic()
    why = image.why_build(site.settings.app.name, inputs, site.cache)
    log.info("code   %s, building: %s", inputs.commit, why)
    built = _built(site, inputs)
    image.remember(built, inputs, site.cache)
    log.info(
        "code   %s, built in %s", built.commit, progress.format_seconds(time.monotonic() - started)
    )
    return built


def find_app(site: ReleaseContext, inputs: source.Inputs) -> AppImage | None:
    """The app image of these inputs, if all of it is in the cache or in the registry."""
    cached = image.find_built(site.settings.app.name, inputs, site.cache)
    if cached:
        config, layers, _ = image.parse_manifest(site.cache.read(cached.manifest.digest))
        if all(site.cache.has(item.digest, item.size) for item in (config, *layers)):
            return cached
    if not site.registry_is_up:
        return None
    found = registry.find_app(
        site.settings.app.name, inputs.key, site.repository, site.registry, site.cache
    )
    if found:
        image.remember(found, inputs, site.cache)
    return found


def _built(site: ReleaseContext, inputs: source.Inputs) -> AppImage:
    settings = site.settings
    engine = site.engine
    base = services.ensure_base_image(engine, settings.image, site.here)
    wheels = settings.image.wheels
    packages = download(wheels, site.directory, engine.architecture, site.cache) if wheels else ()
    tag = f"twinship/{settings.app.name}:app-{inputs.key}"
    modern = settings.image.builder == "buildkit" or (
        settings.image.builder == "auto" and buildkit.find_command() is not None
    )
    builder = buildkit.build if modern else engine.build
    with source.context(inputs, packages) as context:
        builder(
            context,
            dockerfile=settings.image.dockerfile,
            args={"BASE": base},
            tag=tag,
            said=progress.report,
        )
    config, layers = export_image(engine.save(tag), site.cache, tag)
    return image.create_app_image(
        settings.app.name, inputs.key, inputs.commit, config, layers, site.cache
    )


def join(site: ReleaseContext, app: AppImage, layer: ModelLayer) -> Image:
    """Joins the two halves; nothing but JSON moves."""
    if not site.cache.has(app.manifest.digest, app.manifest.size):
        registry.fetch_app(app, site.repository, site.registry, site.cache)
    joined = image.join(app, layer, site.settings.model.mount, site.cache)
    log.info("image  %s", joined.digest[:19])
    return joined


def check(site: ReleaseContext, joined: Image) -> Verdict:
    """Runs exactly the joined image on the engine and plays its golden cases."""
    started = time.monotonic()
    app = site.settings.app
    held = smoke.load(
        joined,
        site.engine,
        site.cache,
        lambda item: registry.fetch_blob(item, site.repository, site.registry, site.cache),
    ).id
    verdict = smoke.check(
        joined,
        held,
        golden_set(site, joined),
        site.trials,
        port=app.port,
        ready=app.ready,
        within=site.env.ready_within,
        play=site.play,
    )
    log.info(
        "smoke  %s passed in %s",
        progress.format_count(len(verdict.cases), "golden case"),
        progress.format_seconds(time.monotonic() - started),
    )
    return verdict


def push(site: ReleaseContext, joined: Image) -> Release:
    """Makes sure that the environment's registry holds the image."""
    site.start_registry()
    mount = site.settings.model.mount
    pushed = registry.push(
        joined, site.repository, site.registry, site.cache, mount=mount, elsewhere=site.elsewhere
    )
    log.info("push   %s@%s", pushed.repository, joined.digest[:19])
    return pushed


def deploy(
    site: ReleaseContext,
    release: Release,
    trigger: Trigger = "release",
    *,
    hold: bool = True,
    decided_on: tuple[Rollout, ...] | None = None,
) -> Rollout:
    """Makes a release serve, proves it, and takes it back if it does not answer as promised."""
    started = time.monotonic()
    cases = golden_set(site, release.image)
    by = owner.current_user()
    run = owner.ci_run_url()
    if hold:
        done = rollout.apply(
            release,
            site.target,
            cases,
            trigger=trigger,
            by=by,
            run=run,
            decided_on=decided_on,
            play=site.play,
        )
    else:
        done = rollout.take_over(
            release, site.on_cluster, cases, trigger=trigger, by=by, run=run, play=site.play
        )
    log.info(
        "serves %s, release %d, in %s",
        site.target.url,
        done.attempt.id,
        progress.format_seconds(time.monotonic() - started),
    )
    return done


def verify(site: ReleaseContext) -> Verdict:
    """Plays the golden cases of what should serve now through the front door.

    Raises:
        ReleaseUnknown: nothing was released here.
    """
    return rollout.verify(
        site.view, golden_set(site, current_rollout(site).attempt.release.image), site.play
    )


def golden_set(site: ReleaseContext, joined: Image) -> golden.GoldenSet:
    """The golden cases of an image's model."""
    return registry.read_golden_set(joined.layer, site.repository, site.registry, site.cache)


# --- whole stories


def release(site: ReleaseContext, version: str = model.LATEST) -> ReleaseResult:
    """Brings the newest code and a model to the front door; what is there already is not done again."""
    site.target, site.engine  # noqa: B018 - all that cluster and machine must have is found, or told missing, before anything else
    layer = fetch(site, version)
    joined = join(site, build(site), layer)
    already = find_serving(site, Release(image=joined, repository=site.images))
    if already:
        return already
    check(site, joined)
    done = deploy(site, push(site, joined))
    return ReleaseResult(rollout=done, verdict=verify(site), changed=True)


def find_serving(site: ReleaseContext, wanted: Release) -> ReleaseResult | None:
    """The rollout of exactly that release, proven again, if it serves as it should."""
    history = site.target.history()
    now = current(history)
    # An attempt that has not ended may have changed what its replicas do not show.
    if (
        now is None
        or history[-1].ending is None
        or now.attempt.release != wanted
        or not site.target.serves(wanted)
    ):
        return None
    verdict = rollout.verify(site.target, golden_set(site, wanted.image), site.play)
    log.info("serves %s, release %d already", verdict.url, now.attempt.id)
    return ReleaseResult(rollout=now, verdict=verdict, changed=False)


def rollback(site: ReleaseContext, number: int | None, only: Only | None) -> ReleaseResult:
    """Goes back to an earlier release, or to its model or its code alone.

    Args:
        site: where.
        number: the release to go back to; None for the last that was different.
        only: `model` or `code`, to keep the other half as it is.

    Raises:
        ReleaseUnknown: there is none to go back to.
        RegistryNotFound: its image is no longer in the registry.
        RolloutLocked: somebody else is at work, or has released since this was decided.
    """
    history = site.target.history()
    site.start_registry()
    chosen = choose_rollback(history, number, only).attempt.release
    target = chosen if only is None else _mixed(site, history, chosen, only)
    if _is_gone(site, target):
        raise RegistryNotFound(
            "the image to go back to is no longer in the registry",
            on=target.reference,
            next="choose another release, or release that commit again",
        )
    done = deploy(site, target, "rollback", decided_on=history)
    return ReleaseResult(rollout=done, verdict=verify(site), changed=True)


def _is_gone(site: ReleaseContext, release: Release) -> bool:
    """Whether the registry says that it has a release no more; where it says nothing, the image may still be where it shall serve."""
    try:
        return not registry.has_release(release, site.registry)
    except RegistryNotFound:
        return True
    except RegistryError as error:
        log.warning(
            "the registry cannot be asked for %s: %s", release.image.digest[:19], error.what
        )
        return False


def _mixed(
    site: ReleaseContext, history: tuple[Rollout, ...], chosen: Release, only: Only
) -> Release:
    """The present release with one half of an earlier one; a pair that never served is tried out and pushed first."""
    served = [item.attempt.release for item in reversed(history) if item.succeeded]
    app = chosen.image.app if only == "code" else served[0].image.app
    layer = chosen.image.layer if only == "model" else served[0].image.layer
    joined = join(site, app, layer)
    known = next((release for release in served if release.image.digest == joined.digest), None)
    if known:
        return known
    check(site, joined)
    return push(site, joined)


def current_rollout(site: ReleaseContext) -> Rollout:
    """The rollout whose release should be serving.

    Raises:
        ReleaseUnknown: nothing was released here.
    """
    now = current(site.view.history())
    if now is None:
        raise ReleaseUnknown(
            "nothing has been released here yet",
            on=f"environment {site.environment}",
            next="`invoke release` makes a first release",
        )
    return now
