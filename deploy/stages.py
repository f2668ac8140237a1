"""The stages of a release: each takes records and what it works with, and returns the next record.

`deploy.pipeline` and `deploy.promotion` run them in order; a CI system can run each as a step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from deploy import progress, smoke
from deploy.ci import run as ci_run
from deploy.clients.docker.protocol import Engine
from deploy.clients.docker.throwaway_container import StartContainer
from deploy.clients.stores.protocol import Store
from deploy.errors import ReleaseUnknown
from deploy.image.build import build_app, explain_build, remember_app
from deploy.image.join import join_image
from deploy.image.load import load_image
from deploy.image.pull import fetch_app, fetch_blob
from deploy.image.push import push_image
from deploy.image.repository import Repository
from deploy.machine.host import Host
from deploy.model.fetch import fetch_layer
from deploy.model.golden_cases import Play
from deploy.records import (
    AppImage,
    Image,
    Model,
    ModelLayer,
    Release,
    Rollout,
    Trigger,
    Verdict,
    short_digest,
)
from deploy.rollout import apply as rollouts
from deploy.rollout.history import Choice, current
from deploy.rollout.target import CanaryTarget, Target
from deploy.settings.reading import Settings
from deploy.source.inputs import Inputs

log = logging.getLogger(__name__)


def fetch(wanted: Model, store: Store, repository: Repository) -> ModelLayer:
    """Make sure that a model's layer is in the registry or in the cache, and return it."""
    found = repository.find_layer(wanted)
    if found:
        log.info("model  %s, %s, nothing to fetch", wanted, progress.format_size(found.size))
        return found
    started = time.monotonic()
    fetched = fetch_layer(wanted, store, repository.cache, repository.mount)
    log.info(
        "model  %s, %s, fetched in %s",
        wanted,
        progress.format_size(fetched.size),
        progress.format_seconds(time.monotonic() - started),
    )
    return fetched


def build(
    inputs: Inputs,
    settings: Settings,
    repository: Repository,
    host: Host,
    prepare_engine: Callable[[], Engine],
) -> AppImage:
    """Return the app image of those inputs; build it only if no machine has built it before.

    Args:
        inputs: what the image is made of.
        settings: the settings of the application.
        repository: where an image that another machine built is found.
        host: this machine.
        prepare_engine: returns an engine for the build, started if necessary.
    """
    found = repository.find_app(settings.app.name, inputs)
    if found:
        log.info("code   %s, nothing to build", found.commit)
        return found
    started = time.monotonic()
    why = explain_build(settings.app.name, inputs, repository.cache)
    log.info("code   %s, building: %s", inputs.commit, why)
    app = build_app(inputs, settings, repository.cache, host, prepare_engine())
    remember_app(app, inputs, repository.cache)
    log.info(
        "code   %s, built in %s", app.commit, progress.format_seconds(time.monotonic() - started)
    )
    return app


def join(app: AppImage, layer: ModelLayer, repository: Repository) -> Image:
    """Join an app image and a model's layer into one image; only JSON moves."""
    cache = repository.cache
    if not cache.has(app.manifest.digest, app.manifest.size):
        fetch_app(app, repository.path, repository.registry, cache)
    joined = join_image(app, layer, repository.mount, cache)
    log.info("image  %s", short_digest(joined.digest))
    return joined


def check(
    joined: Image,
    engine: Engine,
    repository: Repository,
    trial: smoke.Trial,
    start_container: StartContainer,
    play: Play,
) -> Verdict:
    """Run exactly the joined image on the engine and play its golden cases.

    Raises:
        SettingsInvalid: a golden case names a variable that the container does not get.
        ModelError: the layer of its model has something else than the model.
    """
    started = time.monotonic()
    cache = repository.cache
    repository.fetch_checked_layer(joined.layer)
    loaded = load_image(
        joined,
        engine,
        cache,
        lambda item: fetch_blob(item, repository.path, repository.registry, cache),
    )
    verdict = smoke.check(
        joined,
        loaded.id,
        repository.read_golden_set(joined),
        start_container,
        trial,
        play,
    )
    log.info(
        "smoke  %s passed in %s",
        progress.format_count(len(verdict.cases), "golden case"),
        progress.format_seconds(time.monotonic() - started),
    )
    return verdict


def push(joined: Image, repository: Repository) -> Release:
    """Make sure that the registry holds the image, and return the release."""
    pushed = push_image(
        joined,
        repository.path,
        repository.registry,
        repository.cache,
        mount_path=repository.mount,
        mount_sources=repository.mount_sources,
    )
    log.info("push   %s@%s", pushed.repository, short_digest(joined.digest))
    return pushed


def deploy(
    release: Release,
    target: Target,
    repository: Repository,
    play: Play,
    trigger: Trigger = "release",
    choice: Choice | None = None,
) -> Rollout:
    """Roll a release out and prove it; undo the rollout if its responses are wrong.

    Args:
        release: what is rolled out.
        target: where.
        repository: where the golden cases of its model are read from.
        play: sends their requests.
        trigger: the reason for the rollout, for the history.
        choice: what the release was chosen by; None if it replaces any other.

    Raises:
        ReleaseUnknown: the release is in another repository.
    """
    repository.require_own(release)
    started = time.monotonic()
    done = rollouts.apply(
        release,
        target,
        repository.read_golden_set(release.image),
        trigger=trigger,
        by=ci_run.current_user(),
        run=ci_run.run_url(),
        choice=choice,
        play=play,
    )
    _log_rollout(done, target, started)
    return done


def take_over(
    release: Release,
    target: CanaryTarget,
    repository: Repository,
    play: Play,
    trigger: Trigger,
) -> Rollout:
    """Give a canary whose deployer is gone all requests, and prove it.

    Args:
        release: the release of the canary.
        target: where it is on hold.
        repository: where the golden cases of its model are read from.
        play: sends their requests.
        trigger: the reason for its rollout, for the history.

    Raises:
        ReleaseUnknown: the release is in another repository.
    """
    repository.require_own(release)
    started = time.monotonic()
    done = rollouts.take_over(
        release,
        target,
        repository.read_golden_set(release.image),
        trigger=trigger,
        by=ci_run.current_user(),
        run=ci_run.run_url(),
        play=play,
    )
    _log_rollout(done, target, started)
    return done


def _log_rollout(done: Rollout, target: Target, started: float) -> None:
    log.info(
        "serves %s, release %d, in %s",
        target.url,
        done.attempt.id,
        progress.format_seconds(time.monotonic() - started),
    )


def verify(target: Target, repository: Repository, play: Play) -> Verdict:
    """Play the golden cases of the current release at the endpoint.

    Raises:
        ReleaseUnknown: nothing was released here.
        VerifyFailed: a response is wrong or missing.
    """
    release = current_rollout(target).attempt.release
    return rollouts.verify(target, repository.read_golden_set(release.image), play)


def current_rollout(target: Target) -> Rollout:
    """Return the rollout whose release should serve.

    Raises:
        ReleaseUnknown: nothing was released here.
    """
    now = current(target.history())
    if now is None:
        raise ReleaseUnknown(
            "nothing has been released here yet",
            on=f"environment {target.environment}",
            next="`invoke release` makes a first release",
        )
    return now
