"""The time between two attempts to reach a server that is busy or unavailable."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime


def delay(
    attempt: int, retry_after: str, *, retry_after_limit: float, backoff_limit: float
) -> float:
    """Return the seconds until the next attempt.

    They are those of the header Retry-After, else an exponential backoff with jitter.

    Args:
        attempt: The number of attempts since the first.
        retry_after: The header of that name, with seconds or a date; empty if it is missing.
        retry_after_limit: The most seconds that the server may request.
        backoff_limit: The most seconds of the exponential backoff.
    """
    requested = _seconds(retry_after)
    backoff = min(backoff_limit, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    return min(retry_after_limit, requested) or backoff


def _seconds(retry_after: str) -> float:
    """Return the seconds of a header Retry-After (RFC 9110, section 10.2.3); 0 if it has none."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
