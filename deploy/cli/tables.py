"""Records for people and scripts: rows and lines of text, and flat JSON with whole digests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from deploy.machine.doctor import Check
from deploy.model.versions import BrokenVersion
from deploy.pipeline import ReleaseResult
from deploy.plan import Step
from deploy.progress import format_size
from deploy.records import (
    Commit,
    Evidence,
    LogLine,
    Model,
    Release,
    Rollout,
    Verdict,
    short_digest,
)
from deploy.rollout.history import current
from deploy.rollout.target import Target

CHECKS = ("part", "", "")
HISTORY = ("id", "when", "who", "trigger", "commit", "model", "digest", "outcome")
MODELS = ("model", "version", "", "digest")
STEPS = ("stage", "", "why", "moves")


def checks(values: Iterable[Check]) -> list[dict[str, Any]]:
    """Return the parts that a release needs on this machine."""
    return [
        {"part": check.part, "ok": check.ok, "found": check.found, "cure": check.cure}
        for check in values
    ]


def check_rows(values: Iterable[Check]) -> list[list[str]]:
    """Return a row for each part that a release needs on this machine."""
    return [
        [check.part, "ok" if check.ok else "missing", check.found or check.cure] for check in values
    ]


def models(values: Iterable[Model | BrokenVersion], latest: str) -> list[dict[str, Any]]:
    """Return the published versions; `latest` is the version published last.

    A version that cannot be read has a problem in place of a digest.
    """
    return [{**item.model_dump(), "latest": item.version == latest} for item in values]


def model_rows(values: Iterable[Model | BrokenVersion], latest: str) -> list[list[str]]:
    """Return a row for each published version; `latest` is the version published last."""
    return [
        [item.name, item.version, "latest" if item.version == latest else "", _identify(item)]
        for item in values
    ]


def _identify(item: Model | BrokenVersion) -> str:
    """Return the digest of a version, or why it has none."""
    return item.digest if isinstance(item, Model) else f"cannot be read: {item.problem}"


def release(value: Release) -> dict[str, Any]:
    """Return what identifies a release: commit, model, digests."""
    joined = value.image
    return {
        "commit": joined.app.commit.full,
        "model": str(joined.layer.model),
        "model_digest": joined.layer.model.digest,
        "app_digest": joined.app.manifest.digest,
        "digest": joined.digest,
        "reference": value.reference,
    }


def rollout(value: Rollout) -> dict[str, Any]:
    """Return an attempt and how it ended."""
    attempt = value.attempt
    ending = value.ending
    return {
        "id": attempt.id,
        "environment": attempt.environment,
        "trigger": attempt.trigger,
        **release(attempt.release),
        "by": attempt.by,
        "at": attempt.at.isoformat(),
        "ended": ending.at.isoformat() if ending else None,
        "url": attempt.url,
        "run": attempt.run,
        "outcome": value.outcome,
        "why": ending.why if ending else "",
        **evidence((ending and ending.evidence) or Evidence()),
    }


def evidence(value: Evidence) -> dict[str, Any]:
    """Return the golden cases that a failed attempt missed, and the last lines of its replicas."""
    return {"misses": value.misses, "log": [log_line(line) for line in value.log]}


def log_line(value: LogLine) -> dict[str, Any]:
    """Return a line of a log; its time is UTC."""
    return {
        "at": value.at.astimezone(UTC).isoformat(),
        "source": value.source,
        "text": value.text,
    }


def log_text(value: LogLine) -> str:
    """Return when a line was written, and the line."""
    return f"{format_time(value.at)}  {value.text}"


def verdict(value: Verdict) -> dict[str, Any]:
    """Return the golden cases, and whether all passed."""
    return {
        "url": value.url,
        "passed": value.passed,
        "cases": [case.model_dump() for case in value.cases],
    }


def release_result(value: ReleaseResult) -> dict[str, Any]:
    """Return the result of a release, with its proof."""
    return {**rollout(value.rollout), "changed": value.changed, "golden": verdict(value.verdict)}


def prediction(value: Verdict) -> str:
    """Return where a release serves, and one response as proof."""
    first = value.cases[0]
    return f"{value.url}  {first.name} → {first.answer} ({first.milliseconds:.0f} ms)"


def status(target: Target) -> dict[str, Any]:
    """Return what should serve, and what does."""
    history = target.history()
    now = current(history)
    last = history[-1] if history else None
    healthy = now is not None and target.serves(now.attempt.release)
    return {
        "environment": target.environment,
        "url": target.url,
        "serving": rollout(now) if now else None,
        "last": rollout(last) if last else None,
        "healthy": healthy,
        "problem": target.find_endpoint_problem() if now and not healthy else "",
        "replicas": [replica.model_dump() for replica in target.replicas()],
    }


def status_text(found: dict[str, Any], *, has_canaries: bool) -> str:
    """Return the status as lines for people.

    Args:
        found: the status as JSON.
        has_canaries: whether the environment tries releases as canaries.
    """
    now = found["serving"]
    if now is None:
        return f"{found['environment']}: nothing was released here yet"
    at = format_time(datetime.fromisoformat(now["at"]))
    return "\n".join(
        (
            f"{found['url']}  {'serving' if found['healthy'] else 'unhealthy'}",
            f"release {now['id']} by {now['by']} at {at}: {_describe(now)}",
            *([found["problem"]] if found["problem"] else []),
            *map(_replica_line, found["replicas"]),
            *_last_attempt_lines(found, has_canaries=has_canaries),
        )
    )


def _replica_line(replica: dict[str, Any]) -> str:
    return f"  {replica['name']}  {replica['state']}  {short_digest(replica['image'])}"


def _last_attempt_lines(found: dict[str, Any], *, has_canaries: bool) -> list[str]:
    """Return the result of the last attempt, if its release does not serve, and a next step."""
    now = found["serving"]
    last = found["last"]
    images = {replica["image"] for replica in found["replicas"] if replica["state"] == "serving"}
    lines = []
    if last["outcome"] == "unfinished" and len(images) > 1:
        step = (
            "`invoke promote-canary` or `invoke abort` ends a canary"
            if has_canaries
            else "wait; if its deployer is gone, `invoke release` goes on"
        )
        lines += [
            f"release {last['id']} by {last['by']} is in progress: {_describe(last)}",
            f"next: {step}",
        ]
    elif last["id"] != now["id"]:
        why = last["why"] or "its deployer recorded no end"
        lines.append(f"the last attempt, {last['id']}, was {last['outcome']}: {why}")
    if not found["healthy"] and len(images) < 2:
        lines.append(
            f"next: `invoke rollback --to {now['id']}` restores this release, "
            "`invoke release` brings the newest"
        )
    return lines


def _describe(value: dict[str, Any]) -> str:
    """Return what a release consists of."""
    commit = format_commit(value["commit"])
    return f"commit {commit}, model {value['model']}, {short_digest(value['digest'])}"


def format_time(at: datetime) -> str:
    """Return a time in the time zone of this machine."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_commit(commit: str) -> str:
    """Return the short form of a full commit, and whether files differed from it."""
    revision, dirty, _ = commit.partition("-dirty")
    return str(Commit(revision=revision, dirty=bool(dirty)))


def history_rows(history: tuple[Rollout, ...]) -> list[list[str]]:
    """Return a row for each attempt, newest first; the one that serves is marked."""
    now = current(history)
    rows = []
    for value in reversed(history):
        attempt = value.attempt
        joined = value.attempt.release.image
        mark = "*" if now and now.attempt.id == attempt.id else ""
        what = (
            f"{value.outcome}{f': {value.ending.why}' if value.ending and value.ending.why else ''}"
        )
        rows.append(
            [
                f"{attempt.id}{mark}",
                format_time(attempt.at),
                attempt.by,
                attempt.trigger,
                str(joined.app.commit),
                str(joined.layer.model),
                short_digest(joined.digest),
                what,
            ]
        )
    return rows


def attempt_text(value: Rollout) -> str:
    """Return an attempt and how it ended as lines for people, with the evidence of a failure."""
    found = rollout(value)
    ending = value.ending
    at = format_time(value.attempt.at)
    ended = f" at {format_time(ending.at)}" if ending else ""
    why = f": {found['why']}" if found["why"] else ""
    lines = [
        f"{found['trigger']} {found['id']} by {found['by']} at {at}: {_describe(found)}",
        f"{value.outcome}{ended}{why}",
    ]
    if found["run"]:
        lines.append(f"run {found['run']}")
    return "\n".join((*lines, *_evidence_lines((ending and ending.evidence) or Evidence())))


def _evidence_lines(value: Evidence) -> list[str]:
    lines = []
    if value.misses:
        lines += ["golden cases that it missed:"]
        lines += [f"  {name}: {problem}" for name, problem in value.misses.items()]
    if value.log:
        lines += ["the last lines of its replicas:"]
        lines += [f"  {line.source}  {log_text(line)}" for line in value.log]
    return lines


def step_rows(steps: tuple[Step, ...]) -> list[list[str]]:
    """Return a row for each stage of a plan."""
    return [
        [
            step.stage,
            "run" if step.runs else "skip",
            step.why,
            format_size(step.moves) if step.moves else "",
        ]
        for step in steps
    ]
