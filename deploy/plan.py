"""The plan of a release: what it would do and why; nothing is changed to find that out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from deploy import progress, stages
from deploy.context import ReleaseContext
from deploy.errors import ModelUnknown, PlatformError
from deploy.image.build import explain_build
from deploy.image.push import find_missing
from deploy.image.repository import Repository
from deploy.machine import doctor
from deploy.model import sample
from deploy.model.manifest import LATEST
from deploy.model.versions import read_model_manifest, resolve_version
from deploy.records import Image, Model, ModelLayer, Record, Release, Rollout
from deploy.rollout.history import current, is_settled
from deploy.rollout.target import Target
from deploy.source.inputs import read_inputs
from deploy.variables import Variables


class Step(Record):
    """A stage of a plan: whether and why it will run, and how many bytes it will move, if known."""

    stage: str
    runs: bool
    why: str
    moves: int | None = None


def make_plan(context: ReleaseContext, version: str = LATEST) -> tuple[Step, ...]:
    """Return the stages that a release of the newest code with a version of the model would have.

    Raises:
        ReleaseError: a release could not start with this code, this model or these settings.
    """
    return tuple(_steps(context, version))


def _steps(context: ReleaseContext, version: str) -> Iterator[Step]:
    repository = context.repository
    # An unreachable cluster is reported before the store and the registry are read.
    variables = context.variables
    target, history = _read_target(context)
    yield from _missing_parts(context)
    wanted = _find_model(context, version)
    layer = repository.find_layer(wanted) if wanted else None
    yield _fetch(context, wanted, layer)
    name = context.settings.app.name
    inputs = read_inputs(context.directory, context.settings, context.platform)
    app = repository.find_app(name, inputs)
    why = f"{app.commit} is built already" if app else explain_build(name, inputs, repository.cache)
    yield Step(stage="build", runs=app is None, why=why)
    joined = stages.join(app, layer, repository) if app and layer else None
    yield from _after_join(joined, variables, target, history, repository)


def _read_target(context: ReleaseContext) -> tuple[Target | None, tuple[Rollout, ...]]:
    """Return the target and its history; None and no history if no engine answers yet."""
    with suppress(PlatformError):
        target = context.inspect_target()
        return target, target.history()
    return None, ()


def _missing_parts(context: ReleaseContext) -> Iterator[Step]:
    checks = doctor.check_machine(
        context.settings, context.environment, context.host, context.directory
    )
    for check in checks:
        if not check.ok:
            yield Step(stage="up", runs=True, why=f"{check.part} is missing: {check.cure}")


def _find_model(context: ReleaseContext, version: str) -> Model | None:
    """Return the model to release, or None if the sample will be published first."""
    model = context.settings.model
    try:
        return resolve_version(model.name, version, context.store)
    except ModelUnknown:
        if not sample.fills_store(model, version, context.store):
            raise
        return None


def _fetch(context: ReleaseContext, wanted: Model | None, layer: ModelLayer | None) -> Step:
    if wanted is None:
        why = "the store is empty: the sample model will be made and published"
        return Step(stage="fetch", runs=True, why=why)
    if layer:
        return Step(stage="fetch", runs=False, why=f"{wanted} is here already")
    found = read_model_manifest(wanted.name, wanted.version, context.store)
    size = sum(file.size for file in found.files)
    return Step(stage="fetch", runs=True, why=f"{wanted} is new here", moves=size)


def _after_join(
    joined: Image | None,
    variables: Variables,
    target: Target | None,
    history: tuple[Rollout, ...],
    repository: Repository,
) -> Iterator[Step]:
    """Yield the stages after the join; what is not known before the build says so."""
    wanted = Release(image=joined, repository=repository.name) if joined else None
    now = current(history)
    is_same = now is not None and now.attempt.release == wanted
    changes = variables.differences(target.variables()) if target and now else ()
    is_settled_here = is_same and is_settled(history) and not changes
    if target and now and wanted and is_settled_here and target.serves(wanted):
        why = f"release {now.attempt.id} serves exactly this image"
        for stage in ("smoke", "push", "deploy"):
            yield Step(stage=stage, runs=False, why=why)
        return
    smoke = "this image is tried out again" if is_same else "this image does not serve yet"
    yield Step(stage="smoke", runs=True, why=smoke)
    yield _push(joined, repository)
    why = _explain_deploy(history, now, changes, is_same=is_same)
    yield Step(stage="deploy", runs=True, why=why)


def _explain_deploy(
    history: tuple[Rollout, ...], now: Rollout | None, changes: tuple[str, ...], *, is_same: bool
) -> str:
    if now is None:
        return "nothing was released here yet"
    changed = f"changed variables: {', '.join(changes)}" if changes else ""
    if not is_same:
        other = f"release {now.attempt.id} serves another image"
        return f"{other}; {changed}" if changed else other
    if changed:
        return changed
    if not is_settled(history):
        return f"release {history[-1].attempt.id} is unfinished"
    return f"release {now.attempt.id} does not match the settings and object templates"


def _push(joined: Image | None, repository: Repository) -> Step:
    if joined is None:
        return Step(stage="push", runs=True, why="what the registry lacks is known after the build")
    if not repository.is_up():
        return Step(stage="push", runs=True, why="the registry is not up yet")
    manifests = (repository.cache.read(joined.digest),)
    missing = find_missing(manifests, repository.path, repository.registry)
    size = sum(item.size for item in missing)
    why = (
        f"the registry lacks {progress.format_count(len(missing), 'blob')}"
        if missing
        else "the registry has all of it"
    )
    return Step(stage="push", runs=bool(missing), why=why, moves=size)
