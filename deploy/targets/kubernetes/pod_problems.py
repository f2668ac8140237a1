"""Why a container of a pod cannot become ready any more, such as a failed pull or a crash loop.

Source: the Kubernetes documentation, "Pod Lifecycle", and the reasons of the kubelet.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from deploy.records import Exit

# States that the kubelet has tried and only repeats. `ErrImagePull`, the first failure of a pull,
# is not among them, because it may be temporary.
_FINAL_REASONS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ImageInspectError",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "RunContainerError",
    }
)


# They say no more than the exit code.
_REASONS_OF_A_CODE = ("Error", "Completed")
# The kubelet forgets the crashes of a container that has run for so long.
_SETTLED = timedelta(minutes=10)


def find_problem(status: Mapping[str, Any], known_exits: int | None) -> str:
    """Return why a container cannot become ready any more."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    last_exit = _last_exit(status)
    is_final = waiting.get("reason") in _FINAL_REASONS
    is_new = is_final or count_exits(status) != known_exits
    if last_exit and not status.get("ready") and is_new:
        reason = last_exit.get("reason") or ""
        suffix = f" ({reason})" if reason not in ("", "Error") else ""
        code = last_exit.get("exitCode")
        return f"a replica ended with exit code {code}{suffix} before it was ready"
    if is_final:
        return f"a replica cannot start: {waiting['reason']}{_after_comma(waiting.get('message'))}"
    return ""


def find_last_exit(status: Mapping[str, Any]) -> Exit | None:
    """Return how the last process of a container ended; None if none has."""
    found = _last_exit(status)
    if not found:
        return None
    ended = found.get("finishedAt")
    reason = str(found.get("reason") or "")
    return Exit(
        code=int(found.get("exitCode", 0)),
        at=datetime.fromisoformat(str(ended)) if ended else None,
        reason="" if reason in _REASONS_OF_A_CODE else reason,
    )


def is_crash_looping(status: Mapping[str, Any], now: datetime) -> bool:
    """Return whether a container that runs now has ended again and again.

    It was restarted more than once, its last run was short, and the present one is still short.
    """
    last_run = (status.get("lastState") or {}).get("terminated") or {}
    run = (status.get("state") or {}).get("running") or {}
    times = (last_run.get("startedAt"), last_run.get("finishedAt"), run.get("startedAt"))
    if int(status.get("restartCount", 0)) < 2 or not all(times):
        return False
    last_began, last_ended, began = (datetime.fromisoformat(str(time)) for time in times)
    return last_ended - last_began < _SETTLED and now - began < _SETTLED


def _last_exit(status: Mapping[str, Any]) -> Mapping[str, Any]:
    state = status.get("state") or {}
    last_state = status.get("lastState") or {}
    return state.get("terminated") or last_state.get("terminated") or {}


def count_exits(status: Mapping[str, Any]) -> int:
    """Return how often a container has ended: before each restart, and now if it is not running."""
    has_ended = "running" not in (status.get("state") or {}) and bool(_last_exit(status))
    return int(status.get("restartCount", 0)) + has_ended


def _after_comma(message: object) -> str:
    return f", {message}" if message else ""
