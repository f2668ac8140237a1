"""What tasks do between the command line and a stage: read records, call one function, write the record, print a line."""

from __future__ import annotations

import json as jsonlib
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from deploy import pipeline, progress, promotion
from deploy.cache import translate_full_disk
from deploy.cli import output, tables
from deploy.context import ReleaseContext
from deploy.errors import InputMissing, SettingsInvalid
from deploy.machine import setup
from deploy.model import fetch as model
from deploy.plan import make_plan
from deploy.records import AppImage, Image, ModelLayer, Record, Release, Rollout
from deploy.rollout.apply import current
from deploy.rollout.history import Only
from deploy.settings.environments import Kubernetes
from deploy.targets.kubernetes.yaml_text import to_yaml

_Record = TypeVar("_Record", bound=Record)

_WRITERS = {"app": "build", "model": "fetch", "image": "smoke", "release": "push"}


def doctor(site: ReleaseContext, *, json: bool) -> None:
    """Prints what a release needs here, and what is missing."""
    checks = setup.doctor(site.settings, site.environment, site.here, site.directory)
    if json:
        output.as_json(
            [
                {"part": check.part, "ok": check.ok, "found": check.found, "cure": check.cure}
                for check in checks
            ]
        )
        return
    output.result(
        output.table(
            (
                [check.part, "ok" if check.ok else "missing", check.found or check.cure]
                for check in checks
            ),
            ("part", "", ""),
        )
    )


def up(site: ReleaseContext) -> None:
    """Starts what a release needs here."""
    engine = setup.up(site.settings, site.environment, site.here)
    output.result(f"ready: Docker {engine.version}, registry {site.env.registry}")


def down(site: ReleaseContext, *, purge: bool) -> None:
    """Stops what was started here."""
    stopped = setup.down(site.settings, purge=purge, here=site.here)
    output.result(
        f"{'removed' if purge else 'stopped'}: {', '.join(dict.fromkeys(stopped))}"
        if stopped
        else "nothing was running"
    )


def publish(site: ReleaseContext, directory: str, sample: str | bool) -> None:  # noqa: FBT001 - what Invoke makes of `--sample` alone
    """Publishes a directory or a version of the sample; a bare `--sample` arrives as True and means the first."""
    version = "1" if sample is True else sample
    if bool(directory) == bool(version):
        raise SettingsInvalid(
            "say what to publish",
            on="model.publish",
            next="give a directory, or --sample with a version of the sample",
        )
    published = (
        site.publish_sample(version) if version else model.publish(Path(directory), site.store)
    )
    output.result(f"{published} {published.digest}")


def list_models(site: ReleaseContext, *, json: bool) -> None:
    """Prints the published versions."""
    latest = model.latest(site.settings.model.name, site.store)
    found = model.versions(site.settings.model.name, site.store)
    if json:
        output.as_json([{**item.model_dump(), "latest": item.version == latest} for item in found])
        return
    rows = (
        [item.name, item.version, "latest" if item.version == latest else "", item.digest]
        for item in found
    )
    output.result(output.table(rows, ("model", "version", "", "digest")))


def show_model(site: ReleaseContext, version: str) -> None:
    """Prints a manifest."""
    output.as_json(
        jsonlib.loads(model.read_manifest(site.store, site.settings.model.name, version).text)
    )


def fetch(site: ReleaseContext, named: str, records: Path) -> None:
    """Runs the stage and keeps its record."""
    layer = pipeline.fetch(site, _version(site, named))
    _keep(records, "model", layer)
    output.result(f"{layer.model} {layer.digest}")


def build(site: ReleaseContext, records: Path) -> None:
    """Runs the stage and keeps its record."""
    app = pipeline.build(site)
    _keep(records, "app", app)
    output.result(f"{app.name} {app.commit} {app.manifest.digest}")


def smoke(site: ReleaseContext, records: Path) -> None:
    """Joins, runs the stage and keeps the image's record."""
    joined = pipeline.join(
        site, _kept(records, "app", AppImage), _kept(records, "model", ModelLayer)
    )
    verdict = pipeline.check(site, joined)
    _keep(records, "image", joined)
    output.result(
        f"{joined.digest} passed {progress.format_count(len(verdict.cases), 'golden case')}"
    )


def push(site: ReleaseContext, records: Path) -> None:
    """Runs the stage and keeps its record."""
    release = pipeline.push(site, _kept(records, "image", Image))
    _keep(records, "release", release)
    output.result(release.reference)


def deploy(site: ReleaseContext, records: Path, *, json: bool) -> None:
    """Runs the stage and keeps its record."""
    done = pipeline.deploy(site, _pushed(site, records))
    _keep(records, "rollout", done)
    output.as_json(tables.rollout(done)) if json else output.result(
        f"{done.attempt.url} release {done.attempt.id}"
    )


def verify(site: ReleaseContext, *, json: bool) -> None:
    """Runs the stage."""
    verdict = pipeline.verify(site)
    output.as_json(tables.verdict(verdict)) if json else output.result(tables.prediction(verdict))


def release(site: ReleaseContext, named: str, *, dry_run: bool, json: bool) -> None:
    """Runs all stages, or tells what they would do."""
    version = _version(site, named)
    if dry_run:
        steps = make_plan(site, version)
        text = output.table(tables.step_rows(steps), tables.STEPS)
        output.as_json([step.model_dump() for step in steps]) if json else output.result(text)
        return
    done = pipeline.release(site, version)
    output.as_json(tables.released(done)) if json else output.result(
        tables.prediction(done.verdict)
    )


def rollback(site: ReleaseContext, number: int, only: str, *, json: bool) -> None:
    """Rolls back and proves what serves then."""
    if only not in ("", "model", "code"):
        raise SettingsInvalid(
            f"--only takes model or code, not {only!r}",
            on="rollback",
            next="leave it out to take back both",
        )
    done = pipeline.rollback(site, number or None, cast("Only", only) or None)
    output.as_json(tables.released(done)) if json else output.result(
        tables.prediction(done.verdict)
    )


def promote(site: ReleaseContext, source: ReleaseContext, *, json: bool) -> None:
    """Ships what serves elsewhere and proves it here."""
    if site.environment == source.environment:
        raise SettingsInvalid(
            "a release cannot be promoted to where it serves",
            on="promote",
            next="give two environments: --from A --to B",
        )
    done = promotion.promote(site, source)
    output.as_json(tables.released(done)) if json else output.result(
        tables.prediction(done.verdict)
    )


def promote_canary(site: ReleaseContext, *, json: bool) -> None:
    """Ends the hold of a canary in its favour."""
    _told_of_canary(promotion.promote_canary(site), json=json)


def abort(site: ReleaseContext, *, json: bool) -> None:
    """Ends the hold of a canary against it."""
    _told_of_canary(promotion.abort(site), json=json)


def _told_of_canary(done: Rollout, *, json: bool) -> None:
    output.as_json(tables.rollout(done)) if json else output.result(
        f"{done.attempt.url} release {done.attempt.id} {done.outcome}"
    )


def render(site: ReleaseContext, records: str) -> None:
    """Prints the objects of the environment as YAML: of the pushed release in that folder of records, else of the one that should serve."""
    target = site.on_cluster
    history = target.history()
    if records:
        wanted = _pushed(site, site.directory / records)
        attempt = None
    elif history:
        attempt = (current(history) or history[-1]).attempt
        wanted = attempt.release
    else:
        raise InputMissing(
            "there is no release to render",
            on=f"environment {site.environment}",
            next="release to it, or give `--records` with the release.json of `invoke push`",
        )
    output.result(to_yaml(target.rendered(wanted, attempt)))


def history(site: ReleaseContext, *, json: bool) -> None:
    """Prints all attempts, newest first."""
    found = site.view.history()
    if json:
        output.as_json([tables.rollout(item) for item in reversed(found)])
        return
    output.result(
        output.table(tables.history_rows(found), tables.HISTORY)
        if found
        else "nothing was released here yet"
    )


def status(site: ReleaseContext, *, json: bool) -> None:
    """Prints what serves."""
    found = tables.status(site.view)
    if json:
        output.as_json(found)
        return
    held = isinstance(site.env, Kubernetes) and site.env.strategy == "canary"
    ends = (
        "`invoke promote-canary` or `invoke abort` ends a canary"
        if held
        else "wait; if its deployer is gone, `invoke release` goes on"
    )
    output.result(_told(found, ends))


def _told(found: dict[str, Any], ends: str) -> str:
    now = found["serving"]
    if now is None:
        return f"{found['environment']}: nothing was released here yet"
    lines = [
        f"{found['url']}  {'serving' if found['healthy'] else 'not as it should be'}",
        f"release {now['id']} by {now['by']} at {tables.when(datetime.fromisoformat(now['at']))}: {_of(now)}",
        *(
            f"  {replica['name']}  {replica['state']}  {replica['image'][:19]}"
            for replica in found["replicas"]
        ),
    ]
    last = found["last"]
    images = {replica["image"] for replica in found["replicas"] if replica["state"] == "serving"}
    if last["outcome"] == "unfinished" and len(images) > 1:
        lines += [
            f"release {last['id']} by {last['by']} is under way beside it: {_of(last)}",
            f"next: {ends}",
        ]
    elif last["id"] != now["id"]:
        lines.append(
            f"the last attempt, {last['id']}, was {last['outcome']}: {last['why'] or 'no end was recorded'}"
        )
    if not found["healthy"] and len(images) < 2:
        lines.append(
            f"next: `invoke rollback --to {now['id']}` puts this release right, `invoke release` brings the newest"
        )
    return "\n".join(lines)


def _of(release: dict[str, Any]) -> str:
    """What a release consists of."""
    return f"commit {tables.short(release['commit'])}, model {release['model']}, {release['digest'][:19]}"


def _version(site: ReleaseContext, named: str) -> str:
    """The version that NAME@VERSION asks for; the name must be the one that this application serves."""
    name, _, version = named.partition("@")
    if name and name != site.settings.model.name:
        raise SettingsInvalid(
            f"this application serves {site.settings.model.name!r}, not {name!r}",
            on="--model",
            next=f"for a version say @{name}; for another model change [model] name"
            if "@" not in named
            else "leave the name out",
        )
    return version or model.LATEST


def _keep(records: Path, name: str, record: Record) -> None:
    with translate_full_disk(records):
        records.mkdir(parents=True, exist_ok=True)
        (records / f"{name}.json").write_text(record.to_json() + "\n", encoding="utf-8")


def _pushed(site: ReleaseContext, records: Path) -> Release:
    """The release that was pushed, which must be one of this application."""
    found = _kept(records, "release", Release)
    name = site.settings.app.name
    if found.image.app.name != name:
        raise InputMissing(
            f"these are the records of another application: {found.image.app.name}",
            on=str(records / "release.json"),
            next=f"run `invoke push` for {name} first, or give its folder of records",
        )
    return found


def _kept(records: Path, name: str, kind: type[_Record]) -> _Record:
    path = records / f"{name}.json"
    try:
        return kind.from_json(path.read_bytes())
    except FileNotFoundError:
        raise InputMissing(
            "a stage's input is missing", on=str(path), next=f"run `invoke {_WRITERS[name]}` first"
        ) from None
    except ValidationError as error:
        raise InputMissing(
            "a stage's input is not what that stage writes",
            on=str(path),
            next=f"run `invoke {_WRITERS[name]}` again",
            detail=f"  {error}",
        ) from None
