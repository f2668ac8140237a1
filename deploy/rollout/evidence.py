"""The evidence of a failed attempt: what its record keeps to say why it failed."""

from __future__ import annotations

from deploy.errors import GoldenMiss
from deploy.records import Attempt, Evidence
from deploy.rollout.logs import read_last_lines
from deploy.text import escape_line

_KEPT_CASES = 10
_KEPT_LENGTH = 600


def find_evidence(error: BaseException | None, attempt: Attempt, target: object) -> Evidence:
    """Return the evidence, while the attempt's replicas are still there; it is bounded.

    Args:
        error: what ended the attempt; None if a person did.
        attempt: the attempt.
        target: where it was rolled out.
    """
    missed = error.misses if isinstance(error, GoldenMiss) else {}
    return Evidence(
        misses={
            escape_line(name): escape_line(problem)[:_KEPT_LENGTH]
            for name, problem in list(missed.items())[:_KEPT_CASES]
        },
        log=read_last_lines(target, attempt.release.image.digest),
    )
