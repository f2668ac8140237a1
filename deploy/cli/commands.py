"""The functions that tasks run: read records, call a stage, write its record, print the result."""

from __future__ import annotations

import json as jsonlib
import logging
from pathlib import Path
from typing import cast

from deploy import pipeline, progress, promotion, stages
from deploy.alternatives import suggest_model
from deploy.cli import output, record_files, tables
from deploy.cli.log_view import LogView
from deploy.cli.values import read_duration, read_id
from deploy.clients.stores.protocol import Store
from deploy.comparison import compare
from deploy.context import ReleaseContext
from deploy.errors import InputMissing, ManifestInvalid, SettingsInvalid
from deploy.machine import setup
from deploy.machine.doctor import check_machine
from deploy.model import sample as samples
from deploy.model.manifest import LATEST
from deploy.model.publish import publish_model
from deploy.model.versions import find_latest_version, list_versions, read_model_manifest
from deploy.nearest import suggest
from deploy.plan import make_plan
from deploy.records import AppImage, Image, ModelLayer, Release, Rollout
from deploy.rollout.history import Only, current, find_attempt
from deploy.rollout.log_query import LogQuery, find_lines
from deploy.rollout.status import advise, read_status, require_served

log = logging.getLogger(__name__)

_HALVES = ("model", "code")


def init(folder: Path) -> None:
    """Write the files that a repository needs to be released, and say what is left to do."""
    from deploy.init import files, writing
    from deploy.init.repository import read_repository

    repository = read_repository(folder)
    written, kept = writing.write_files(folder, files.make_files(repository))
    for path in written:
        output.result(f"wrote {path}")
    for path in kept:
        output.result(f"kept  {path}")
    for number, step in enumerate(files.explain_rest(repository), start=1):
        output.result(f"{number}. {step}")


def doctor(context: ReleaseContext, *, json: bool) -> None:
    """Print what a release needs here, and what is missing."""
    checks = (
        *check_machine(context.settings, context.environment, context.host, context.directory),
        *context.azure_doctor().checks(),
    )
    if json:
        output.as_json(tables.checks(checks))
    else:
        output.table(tables.check_rows(checks), tables.CHECKS)


def up(context: ReleaseContext) -> None:
    """Start what a release needs here."""
    engine = context.prepare_engine()
    output.result(f"ready: {engine.product} {engine.version}, registry {context.env.registry}")


def down(context: ReleaseContext, *, purge: bool) -> None:
    """Stop what was started here."""
    stopped = setup.down(context.settings, purge=purge, host=context.clients.host)
    verb = "removed" if purge else "stopped"
    names = ", ".join(dict.fromkeys(stopped))
    output.result(f"{verb}: {names}" if stopped else "nothing was running")


def publish(
    context: ReleaseContext,
    directory: str,
    sample: str | bool,  # noqa: FBT001 - Invoke passes True for `--sample` alone
    *,
    new_name: bool,
) -> None:
    """Publish a directory, or a version of the sample; a bare `--sample` means the first one.

    Args:
        context: the application.
        directory: an author's directory.
        sample: a version of the sample.
        new_name: whether the model may have another name than the one in the settings.
    """
    version = samples.FIRST if sample is True else sample
    if bool(directory) == bool(version):
        raise SettingsInvalid(
            "say what to publish",
            on="model.publish",
            next="give a directory, or --sample with a version of the sample",
        )
    model = context.settings.model
    if version:
        published = samples.publish(model, version, context.store, context.directory)
    else:
        name = "" if new_name else model.name
        published = publish_model(Path(directory), context.store, name=name)
    output.result(f"{published} {published.digest}")


def list_models(context: ReleaseContext, *, json: bool) -> None:
    """Print the published versions."""
    name = context.settings.model.name
    found = list_versions(name, context.store)
    latest = _find_latest(name, context.store)
    if json:
        output.as_json(tables.models(found, latest))
    else:
        output.table(tables.model_rows(found, latest), tables.MODELS)


def _find_latest(name: str, store: Store) -> str:
    """Return the version that was published last; empty if there is none, or if it is unknown."""
    try:
        return find_latest_version(name, store) or ""
    except ManifestInvalid as error:
        log.warning("%s: %s", error.what, error.next)
        return ""


def show_model(context: ReleaseContext, version: str) -> None:
    """Print the manifest of a model."""
    found = read_model_manifest(context.settings.model.name, version, context.store)
    output.as_json(jsonlib.loads(found.text))


def fetch(context: ReleaseContext, named: str, records: Path) -> None:
    """Fetch a model, and write the record of its layer."""
    version = _read_version(context, named)
    with suggest_model(context, version, "fetch"):
        layer = pipeline.fetch(context, version)
    record_files.write(records, "model", layer)
    output.result(f"{layer.model} {layer.digest}")


def build(context: ReleaseContext, records: Path) -> None:
    """Build the app image, and write its record."""
    app = pipeline.build(context)
    record_files.write(records, "app", app)
    output.result(f"{app.name} {app.commit} {app.manifest.digest}")


def smoke(context: ReleaseContext, records: Path) -> None:
    """Join app and model, check the image, and write its record."""
    app = record_files.read(records, "app", AppImage)
    layer = record_files.read(records, "model", ModelLayer)
    joined = stages.join(app, layer, context.repository)
    with suggest_model(context, layer.model.version, "fetch"):
        verdict = pipeline.check(context, joined)
    record_files.write(records, "image", joined)
    count = progress.format_count(len(verdict.cases), "golden case")
    output.result(f"{joined.digest} passed {count}")


def push(context: ReleaseContext, records: Path) -> None:
    """Push the image, and write the record of the release."""
    release = pipeline.push(context, record_files.read(records, "image", Image))
    record_files.write(records, "release", release)
    output.result(release.reference)


def deploy(context: ReleaseContext, records: Path, *, json: bool) -> None:
    """Roll the release out, and write the record of the rollout."""
    release = _read_release(context, records)
    target = context.prepare_target()
    done = stages.deploy(release, target, context.repository, context.clients.play)
    record_files.write(records, "rollout", done)
    if json:
        output.as_json(tables.rollout(done))
    else:
        output.result(f"{done.attempt.url} release {done.attempt.id}")


def verify(context: ReleaseContext, *, json: bool) -> None:
    """Play the golden cases of what serves."""
    target = context.inspect_target()
    verdict = stages.verify(target, context.repository, context.clients.play)
    if json:
        output.as_json(tables.verdict(verdict))
    else:
        output.result(tables.prediction(verdict))


def release(context: ReleaseContext, named: str, *, dry_run: bool, json: bool) -> None:
    """Run all stages, or print what they would do."""
    version = _read_version(context, named)
    if not dry_run:
        _print_release(pipeline.release(context, version), json=json)
        return
    with suggest_model(context, version, "release"):
        steps = make_plan(context, version)
    if json:
        output.as_json([step.model_dump() for step in steps])
    else:
        output.table(tables.step_rows(steps), tables.STEPS)


def rollback(context: ReleaseContext, to: str, only: str, *, json: bool) -> None:
    """Roll back, and prove what serves then.

    Args:
        context: the environment.
        to: the id of a release; empty for the last one that differs.
        only: `model` or `code`; empty for both.
        json: print JSON.
    """
    if only not in ("", *_HALVES):
        raise SettingsInvalid(
            f"--only takes model or code, not {only!r}",
            on="rollback",
            next=f"leave it out to take back both; {suggest(only, _HALVES)}",
        )
    number = read_id(to, "--to") if to else None
    done = pipeline.rollback(context, number, cast("Only", only) or None)
    _print_release(done, json=json)


def promote(context: ReleaseContext, source: ReleaseContext, *, json: bool) -> None:
    """Roll out what serves in another environment, and prove it here."""
    if context.environment == source.environment:
        raise SettingsInvalid(
            "a release cannot be promoted to where it serves",
            on="promote",
            next="give two environments: --from A --to B",
        )
    _print_release(promotion.promote(context, source), json=json)


def _print_release(done: pipeline.ReleaseResult, *, json: bool) -> None:
    if json:
        output.as_json(tables.release_result(done))
    else:
        output.result(tables.prediction(done.verdict))


def promote_canary(context: ReleaseContext, *, json: bool) -> None:
    """Let the canary that is on hold take over."""
    _print_canary(promotion.promote_canary(context), json=json)


def abort(context: ReleaseContext, *, json: bool) -> None:
    """Give up the canary that is on hold."""
    _print_canary(promotion.abort(context), json=json)


def _print_canary(done: Rollout, *, json: bool) -> None:
    if json:
        output.as_json(tables.rollout(done))
    else:
        output.result(f"{done.attempt.url} release {done.attempt.id} {done.outcome}")


def render(context: ReleaseContext, records: str) -> None:
    """Print the objects of the environment as YAML.

    Args:
        context: the environment.
        records: a folder with the record of a pushed release; empty for the one that should serve.
    """
    from deploy.targets.kubernetes.yaml_text import to_yaml

    target = context.inspect_rendered_target()
    history = target.history()
    if records:
        wanted = _read_release(context, context.directory / records)
        attempt = None
    elif history:
        attempt = (current(history) or history[-1]).attempt
        wanted = attempt.release
    else:
        raise InputMissing(
            "there is no release to render",
            on=f"environment {context.environment}",
            next="release to it, or give `--records` with the release.json of `invoke push`",
        )
    output.as_yaml(to_yaml(target.rendered(wanted, attempt)))


def history(context: ReleaseContext, release: str, *, json: bool) -> None:
    """Print all attempts, newest first; or one of them, with what is known of its failure.

    Args:
        context: the environment.
        release: the id of the one attempt; empty for all.
        json: print JSON.
    """
    number = read_id(release, "--release") if release else None
    found = context.inspect_target().history()
    if number is not None:
        _print_attempt(find_attempt(found, number), json=json)
    elif json:
        output.as_json([tables.rollout(item) for item in reversed(found)])
    elif found:
        output.table(tables.history_rows(found), tables.HISTORY)
    else:
        output.result("nothing was released here yet")


def _print_attempt(found: Rollout, *, json: bool) -> None:
    if json:
        output.as_json(tables.rollout(found))
    else:
        output.result(tables.attempt_text(found))


def status(context: ReleaseContext, *, check: bool, json: bool) -> None:
    """Print what serves.

    Args:
        context: the environment.
        check: whether it is an error if fewer replicas serve than should.
        json: print JSON.
    """
    found = read_status(context.inspect_target())
    advice = advise(found, has_canaries=context.env.has_canaries)
    if json:
        output.as_json(tables.status(found, advice))
    else:
        output.result(tables.status_text(found, context.clients.clock.utc(), advice))
    if check:
        require_served(found, advice)


def logs(context: ReleaseContext, release: str, since: str, *, follow: bool, json: bool) -> None:
    """Print what replicas and proxy wrote, in order of time; JSON is one object a line.

    Args:
        context: the environment.
        release: the id of the only release whose replicas are of interest; empty for all.
        since: how long ago the first line was written; empty for the last lines of each.
        follow: whether to go on with what is written from then on.
        json: print JSON.
    """
    clock = context.clients.clock
    query = LogQuery(
        release=read_id(release, "--release") if release else None,
        since=clock.utc() - read_duration(since, "--since") if since else None,
        follow=follow,
    )
    LogView(json=json).show(find_lines(context.inspect_target(), query, clock))


def diff(context: ReleaseContext, first: str, second: str, *, json: bool) -> None:
    """Print two releases of the history side by side.

    Args:
        context: the environment.
        first: the id of one release, as a rule the older one.
        second: the id of the other one.
        json: print JSON.
    """
    numbers = (read_id(first, "--first"), read_id(second, "--second"))
    history = context.inspect_target().history()
    one, other = (find_attempt(history, number) for number in numbers)
    found = compare(one, other, context.directory, context.settings, context.repository)
    if json:
        output.as_json(tables.comparison(one, other, found))
        return
    output.table(tables.comparison_rows(found), ("", *map(str, numbers)))
    more = tables.comparison_text(*numbers, found)
    if more:
        output.result(more)


def _read_release(context: ReleaseContext, records: Path) -> Release:
    """Return the release that was pushed for this application to this environment's repository."""
    return record_files.read_release(records, context.settings.app.name, context.repository.name)


def _read_version(context: ReleaseContext, named: str) -> str:
    """Return the version in NAME@VERSION; the name must be that of the application's model."""
    name, _, version = named.partition("@")
    own = context.settings.model.name
    if name and name != own:
        raise SettingsInvalid(
            f"this application serves {own!r}, not {name!r}",
            on="--model",
            next=f"for a version say @{name}; for another model change [model] name"
            if "@" not in named
            else "leave the name out",
        )
    if "@" in named and not version:
        raise SettingsInvalid(
            f"there is no version after the @ of {named!r}",
            on="--model",
            next=f"say {own}@{LATEST}, or a version; a variable in its place may be empty",
        )
    return version or LATEST
