"""Records as people and scripts want to read them: flat, in their words, with whole digests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from deploy.pipeline import ReleaseResult
from deploy.plan import Step
from deploy.progress import format_size
from deploy.records import Commit, Release, Rollout, Verdict
from deploy.rollout.history import current
from deploy.rollout.target import Target


def release(value: Release) -> dict[str, Any]:
    """Who a release is: commit, model, digests."""
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
    """An attempt and how it ended."""
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
    }


def verdict(value: Verdict) -> dict[str, Any]:
    """The golden cases, and whether all were hit."""
    return {
        "url": value.url,
        "passed": value.passed,
        "cases": [case.model_dump() for case in value.cases],
    }


def released(value: ReleaseResult) -> dict[str, Any]:
    """What a release came to."""
    return {**rollout(value.rollout), "changed": value.changed, "golden": verdict(value.verdict)}


def prediction(value: Verdict) -> str:
    """Where it serves, and an answer as proof."""
    first = value.cases[0]
    return f"{value.url}  {first.name} → {first.answer} ({first.milliseconds:.0f} ms)"


def status(target: Target) -> dict[str, Any]:
    """What should serve, and what does."""
    history = target.history()
    now = current(history)
    last = history[-1] if history else None
    return {
        "environment": target.environment,
        "url": target.url,
        "serving": rollout(now) if now else None,
        "last": rollout(last) if last else None,
        "healthy": bool(now) and target.serves(now.attempt.release) if now else False,
        "replicas": [replica.model_dump() for replica in target.replicas()],
    }


def when(at: datetime) -> str:
    """A time as the clocks on this machine show it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short(commit: str) -> str:
    """A commit that is told in full, as people read it: its head, and whether there were changes beside it."""
    revision, dirty, _ = commit.partition("-dirty")
    return str(Commit(revision=revision, dirty=bool(dirty)))


def history_rows(history: tuple[Rollout, ...]) -> list[list[str]]:
    """A line an attempt, newest first; the one that serves is marked."""
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
                when(attempt.at),
                attempt.by,
                attempt.trigger,
                str(joined.app.commit),
                str(joined.layer.model),
                joined.digest[7:19],
                what,
            ]
        )
    return rows


HISTORY = ("id", "when", "who", "trigger", "commit", "model", "digest", "outcome")


def step_rows(steps: tuple[Step, ...]) -> list[list[str]]:
    """A line a stage of a plan."""
    return [
        [
            step.stage,
            "run" if step.runs else "skip",
            step.why,
            format_size(step.moves) if step.moves else "",
        ]
        for step in steps
    ]


STEPS = ("stage", "", "why", "moves")
