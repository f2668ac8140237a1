"""What is asked of the logs of an environment, and the lines that answer it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from deploy.clock import Clock
from deploy.errors import SettingsInvalid
from deploy.records import LogLine, Rollout
from deploy.rollout.history import current, find_attempt
from deploy.rollout.logs import LogSource, LogTarget, Window, follow_logs, merge_logs
from deploy.rollout.target import Target

_LINES = 100


@dataclass(frozen=True)
class LogQuery:
    """Which lines are asked for.

    Attributes:
        release: the id of the only release whose replicas are asked for; None for all, and the
            proxy.
        since: the time of the first line; None for the last lines of each log.
        follow: whether lines are asked for that are written from now on.
    """

    release: int | None = None
    since: datetime | None = None
    follow: bool = False


def find_lines(target: Target, query: LogQuery, clock: Clock) -> Iterator[LogLine]:
    """Yield the lines in order of time, and among them those that the history has kept.

    A log that is followed begins with its own last lines.

    Raises:
        ReleaseUnknown: the history has no such release.
        SettingsInvalid: the logs of this kind of target cannot be read.
    """
    if not isinstance(target, LogTarget):
        raise SettingsInvalid(
            "the logs of a target of this kind cannot be read",
            on=f"environment {target.environment}",
            next="see where its replicas run",
        )
    history = target.history()
    asked = None if query.release is None else find_attempt(history, query.release)
    window = Window(query.since, None if query.since else _LINES)

    def find_sources() -> tuple[LogSource, ...]:
        sources = target.log_sources()
        if asked is None:
            return sources
        digest = asked.attempt.release.image.digest
        return tuple(source for source in sources if source.image == digest)

    if query.follow:
        return follow_logs(find_sources, window, clock)
    kept = _kept_lines(history, asked, query.since)
    return heapq.merge(kept, merge_logs(find_sources(), window), key=lambda line: line.at)


def _kept_lines(
    history: tuple[Rollout, ...], asked: Rollout | None, since: datetime | None
) -> list[LogLine]:
    """Return what was kept of an attempt, or of all that failed after the one that serves."""
    now = current(history)
    first = now.attempt.id if now and since is None else 0
    attempts = [asked] if asked else [item for item in history if item.attempt.id > first]
    lines = [
        line.model_copy(update={"source": f"{line.source} of {item.attempt.id}"})
        for item in attempts
        for line in (item.ending and item.ending.evidence and item.ending.evidence.log) or ()
    ]
    return sorted(
        (line for line in lines if since is None or line.at >= since), key=lambda line: line.at
    )
