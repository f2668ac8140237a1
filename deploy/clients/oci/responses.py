"""The small answers of a registry: read with a bound, and what they say in its own words.

Source: OCI distribution specification 1.1, "Error Codes"; the distribution project's "Token Authentication Specification",
and the errors of its file system driver.
"""

from __future__ import annotations

import errno
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

MAX_BYTES = 1 << 20
_SHOWN = 500


def read_body(raw: Any, most: int, within: float) -> bytes:  # noqa: ANN401 - urllib3 is imported lazily
    """A body as far as `most` bytes.

    Args:
        raw: urllib3's response.
        most: how much is read.
        within: seconds for all of it: a timeout for each read alone would let a trickle last for ever.

    Raises:
        TimeoutError: it took longer.
    """
    content = b""
    deadline = time.monotonic() + within
    while len(content) < most and (piece := raw.read1(most - len(content), decode_content=True)):
        content += piece
        if time.monotonic() > deadline:
            raise TimeoutError
    return content


def load_body(answer: requests.Response, within: float) -> None:
    """Takes an answer's body, or the start of one that is too long to mean anything; requests alone would read on without end."""
    if isinstance(answer._content, bytes):  # noqa: SLF001 - requests has no limit of its own
        return
    answer._content = b""  # noqa: SLF001 - as above
    try:
        answer._content = read_body(answer.raw, MAX_BYTES, within)  # noqa: SLF001 - as above
    finally:
        # A connection on which the body ended is in the pool again, and stays there.
        answer.close()


def error_text(answer: requests.Response) -> str:
    """The codes and messages of the registry's own error body."""
    return "\n".join(
        f"  {error.get('code', '')}: {error.get('message', '')}{_detail(error)}"
        for error in _errors(answer)
    )[:_SHOWN]


def _detail(error: dict[str, Any]) -> str:
    return f" {json.dumps(error['detail'])}" if error.get("detail") else ""


def is_full(answer: requests.Response) -> bool:
    """Whether the registry says that it has no space left: by its status, or by the error of the system below its driver."""
    numbers = [
        detail["Enclosed"].get("Err")
        for error in _errors(answer)
        if isinstance(detail := error.get("detail"), dict)
        and isinstance(detail.get("Enclosed"), dict)
    ]
    return answer.status_code == 507 or any(
        number in (errno.ENOSPC, errno.EDQUOT) for number in numbers
    )


def _errors(answer: requests.Response) -> list[dict[str, Any]]:
    try:
        return [error for error in answer.json()["errors"] if isinstance(error, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def parse_token(answer: requests.Response) -> str | None:
    """What a login service gave, if it is a token."""
    try:
        found = answer.json()
        given = found.get("token") or found.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        return None
    return given if isinstance(given, str) else None
