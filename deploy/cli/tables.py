"""Records for people and scripts: rows and lines of text, and flat JSON with whole digests."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy import progress
from deploy.comparison import Comparison
from deploy.machine.doctor import Check
from deploy.model.versions import BrokenVersion
from deploy.pipeline import ReleaseResult
from deploy.plan import Step
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
from deploy.rollout.status import Status
from deploy.rollout.target import Replica

CHECKS = ("part", "", "")
HISTORY = ("id", "when", "who", "trigger", "commit", "model", "digest", "outcome")
MODELS = ("model", "version", "", "digest")
_MOST_LETTERS = 60
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


def status(found: Status, advice: str) -> dict[str, Any]:
    """Return what should serve, what does, and what to do next.

    It is the same as long as nothing happens: a replica has the time of its start, and no age.

    Args:
        found: the status.
        advice: what to do next; empty for nothing.
    """
    return {
        "environment": found.environment,
        "url": found.url,
        "serving": rollout(found.serving) if found.serving else None,
        "last": rollout(found.last) if found.last else None,
        "healthy": found.healthy,
        "served": found.is_served,
        "problem": found.problem,
        "count": found.count,
        "wanted": found.wanted,
        "replicas": [item.model_dump(mode="json") for item in found.replicas],
        "next": advice,
    }


def status_text(found: Status, now: datetime, advice: str) -> str:
    """Return the status as lines for people.

    Args:
        found: the status.
        now: the time of it.
        advice: what to do next; empty for nothing.
    """
    serving = found.serving
    if serving is None:
        return f"{found.environment}: nothing was released here yet"
    word = "serving" if found.healthy else "unhealthy"
    count = progress.format_count(found.wanted, "replica")
    attempt = serving.attempt
    by = f"{attempt.by} at {format_time(attempt.at)}"
    return "\n".join(
        (
            f"{found.url}  {word}, {found.count} of {count}",
            f"release {attempt.id} by {by}: {_describe(rollout(serving))}",
            *([found.problem] if found.problem else []),
            *(_replica_line(item, now) for item in found.replicas),
            *_last_attempt_lines(found),
            *([f"next: {advice}"] if advice else []),
        )
    )


def _replica_line(value: Replica, now: datetime) -> str:
    facts = [
        f"up {format_age(now - value.started)}" if value.started else "",
        progress.format_count(value.restarts, "restart") if value.restarts else "",
        f"last {value.last_exit}" if value.last_exit else "",
    ]
    known = ", ".join(filter(None, facts))
    line = f"  {value.name}  {value.state}  {short_digest(value.image)}"
    return f"{line}  {known}" if known else line


def _last_attempt_lines(found: Status) -> list[str]:
    """Return the result of the last attempt, if its release does not serve."""
    now = found.serving
    last = found.last
    if not now or not last or last.attempt.id == now.attempt.id:
        return []
    number = last.attempt.id
    if last.ending is None and not found.healthy:
        return [
            f"release {number} by {last.attempt.by} is in progress: {_describe(rollout(last))}",
        ]
    why = (last.ending and last.ending.why) or "its deployer recorded no end"
    return [
        f"the last attempt, {number}, was {last.outcome}: {why}",
        *([f"`invoke history --release {number}` shows more"] if _has_evidence(last) else []),
    ]


def _has_evidence(value: Rollout) -> bool:
    found = value.ending and value.ending.evidence
    return bool(found and (found.misses or found.log))


def _describe(value: dict[str, Any]) -> str:
    """Return what a release consists of."""
    commit = format_commit(value["commit"])
    return f"commit {commit}, model {value['model']}, {short_digest(value['digest'])}"


def format_time(at: datetime) -> str:
    """Return a time in the time zone of this machine."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_age(age: timedelta) -> str:
    """Return a duration in its largest unit: `45 s`, `12 min`, `3 h`, `5 d`."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86_400)):
        if seconds < limit:
            return f"{seconds // size} {unit}"
    return f"{seconds // 86_400} d"


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


def comparison(first: Rollout, second: Rollout, value: Comparison) -> dict[str, Any]:
    """Return two attempts and all that is known of the differences between their releases."""
    return {"first": rollout(first), "second": rollout(second), **value.model_dump(mode="json")}


def comparison_rows(value: Comparison) -> list[list[str]]:
    """Return a row for each thing that two releases have; `=` for one that is the same."""
    return [
        [item.what, _shorten(item.first), "=" if item.is_same else _shorten(item.second)]
        for item in value.values
    ]


def comparison_text(first: int, second: int, value: Comparison) -> str:
    """Return commits, files, and what is not known, as lines for people.

    Args:
        first: the id of one release.
        second: the id of the other one.
        value: what is known of the two.
    """
    files = [f"{letter} {path}" for path, letter in sorted(value.files.items())]
    sections = (
        (f"commits that came with {second}:", value.added),
        (f"commits that only {first} has:", value.removed),
        ("files of the application:", files),
        ("not known:", value.unknown),
    )
    filled = ((title, *(f"  {line}" for line in lines)) for title, lines in sections if lines)
    return "\n".join(itertools.chain.from_iterable(filled))


def _shorten(text: str) -> str:
    digest = short_digest(text) if text.startswith("sha256:") else text
    return digest if len(digest) <= _MOST_LETTERS else f"{digest[:_MOST_LETTERS]}..."


def step_rows(steps: tuple[Step, ...]) -> list[list[str]]:
    """Return a row for each stage of a plan."""
    return [
        [
            step.stage,
            "run" if step.runs else "skip",
            step.why,
            progress.format_size(step.moves) if step.moves else "",
        ]
        for step in steps
    ]
