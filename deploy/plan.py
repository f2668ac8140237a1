"""What a release would do and why, found out by looking only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from deploy import pipeline, progress, source
from deploy.context import ReleaseContext
from deploy.errors import ModelUnknown, PlatformError
from deploy.image import join as image
from deploy.image import registry
from deploy.machine import setup
from deploy.model import fetch as model
from deploy.model import manifest
from deploy.records import Image, Model, ModelLayer, Record, Release, Rollout
from deploy.rollout.history import current


class Step(Record):
    """A stage of a plan: whether it will run, why or why not, and how many bytes it will move where that is known."""

    stage: str
    runs: bool
    why: str
    moves: int | None = None


def make_plan(site: ReleaseContext, version: str = model.LATEST) -> tuple[Step, ...]:
    """The stages of a release of the newest code and that model version, as things are now.

    Raises:
        ReleaseError: the code, the model or the settings are such that a release could not start.
    """
    return tuple(_steps(site, version))


def _steps(site: ReleaseContext, version: str) -> Iterator[Step]:
    # A cluster that cannot be asked is told before a store and a registry are.
    now = _now(site)
    yield from _platform(site)
    wanted = _wanted(site, version)
    layer = pipeline.find_layer(site, wanted) if wanted else None
    yield _fetch(site, wanted, layer)
    inputs = source.inputs(site.directory, site.settings)
    app = pipeline.find_app(site, inputs)
    why = (
        f"{app.commit} is built already"
        if app
        else image.why_build(site.settings.app.name, inputs, site.cache)
    )
    yield Step(stage="build", runs=app is None, why=why)
    joined = pipeline.join(site, app, layer) if app and layer else None
    yield from _release(site, now, joined)


def _platform(site: ReleaseContext) -> Iterator[Step]:
    for check in setup.doctor(site.settings, site.environment, site.here, site.directory):
        if not check.ok:
            yield Step(stage="up", runs=True, why=f"{check.part} is missing: {check.cure}")


def _wanted(site: ReleaseContext, version: str) -> Model | None:
    try:
        return model.resolve(site.settings.model.name, version, site.store)
    except ModelUnknown:
        if not site.samples(version):
            raise
        return None


def _fetch(site: ReleaseContext, wanted: Model | None, layer: ModelLayer | None) -> Step:
    if wanted is None:
        return Step(
            stage="fetch",
            runs=True,
            why="the store is empty: the sample model will be made and published",
        )
    if layer:
        return Step(stage="fetch", runs=False, why=f"{wanted} is here already")
    described = model.read_manifest(site.store, wanted.name, wanted.version)
    return Step(stage="fetch", runs=True, why=f"{wanted} is new here", moves=_size(described))


def _size(described: manifest.ModelManifest) -> int:
    return sum(file.size for file in described.files)


def _release(site: ReleaseContext, now: Rollout | None, joined: Image | None) -> Iterator[Step]:
    """The stages after the join; what cannot be known before the build says so."""
    wanted = Release(image=joined, repository=site.images) if joined else None
    if now and now.attempt.release == wanted and site.view.serves(wanted):
        for stage in ("smoke", "push", "deploy"):
            yield Step(
                stage=stage, runs=False, why=f"release {now.attempt.id} serves exactly this image"
            )
        return
    same = now is not None and now.attempt.release == wanted
    yield Step(
        stage="smoke",
        runs=True,
        why="this image is tried out again" if same else "this image does not serve yet",
    )
    yield _push(site, joined)
    changed = "is not as the settings and manifests say" if same else "serves another image"
    yield Step(
        stage="deploy",
        runs=True,
        why=f"release {now.attempt.id} {changed}" if now else "nothing was released here yet",
    )


def _push(site: ReleaseContext, joined: Image | None) -> Step:
    if joined is None:
        return Step(stage="push", runs=True, why="what the registry lacks is known after the build")
    if not site.registry_is_up:
        return Step(stage="push", runs=True, why="the registry is not up yet")
    lacking = registry.find_missing(site.cache.read(joined.digest), site.repository, site.registry)
    moves = sum(item.size for item in lacking)
    why = (
        f"the registry lacks {progress.format_count(len(lacking), 'blob')}"
        if lacking
        else "the registry has all of it"
    )
    return Step(stage="push", runs=bool(lacking), why=why, moves=moves)


def _now(site: ReleaseContext) -> Rollout | None:
    with suppress(PlatformError):
        return current(site.view.history())
    return None
