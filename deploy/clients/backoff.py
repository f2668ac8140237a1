"""How long a server that is busy, or away, is left alone before it is asked again."""

from __future__ import annotations

import random


def delay(attempt: int, retry_after: str, *, asked: float, chosen: float) -> float:
    """As long as the server asks, else longer each time, and never in step with others who wait for it.

    Args:
        attempt: how many were made since the first.
        retry_after: the header of that name; empty if there was none, and only whole seconds are obeyed.
        asked: the most that the server may ask for, in seconds.
        chosen: the most that is waited where it asks for nothing.
    """
    wanted = float(retry_after) if retry_after.isdecimal() else 0.0
    return min(asked, wanted) or min(chosen, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
