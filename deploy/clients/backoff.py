"""The time between two attempts to reach a server that is busy or unavailable."""

from __future__ import annotations

import random


def delay(
    attempt: int, retry_after: str, *, retry_after_limit: float, backoff_limit: float
) -> float:
    """Return the seconds until the next attempt.

    They are those of the header Retry-After, else an exponential backoff with jitter.

    Args:
        attempt: The number of attempts since the first.
        retry_after: The header of that name; only whole seconds count, and it is empty if missing.
        retry_after_limit: The most seconds that the server may request.
        backoff_limit: The most seconds of the exponential backoff.
    """
    requested = float(retry_after) if retry_after.isdecimal() else 0.0
    backoff = min(backoff_limit, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    return min(retry_after_limit, requested) or backoff
