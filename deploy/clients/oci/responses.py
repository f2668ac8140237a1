"""The small responses of a registry, read up to a limit, and their error messages.

Source: OCI distribution specification 1.1, "Error Codes"; the distribution project's "Token
Authentication Specification", and the errors of its file system driver.
"""

from __future__ import annotations

import errno
import json
import time
from typing import TYPE_CHECKING, Any

from deploy.clients.http import read_body

if TYPE_CHECKING:
    import requests

MAX_BYTES = 1 << 20
_MAX_TEXT = 500


def load_body(response: requests.Response, timeout: float) -> None:
    """Load a response's body, or the start of one that is too long to be of use.

    Requests itself would read a body without end.
    """
    if isinstance(response._content, bytes):  # noqa: SLF001 - requests has no limit of its own
        return
    response._content = b""  # noqa: SLF001 - as above
    try:
        response._content = read_body(response.raw, MAX_BYTES, time.monotonic() + timeout)  # noqa: SLF001 - as above
    finally:
        # A connection whose body has ended is in the pool again, and stays there.
        response.close()


def error_text(response: requests.Response) -> str:
    """Return the codes and messages of the registry's own error body."""
    return "\n".join(
        f"  {error.get('code', '')}: {error.get('message', '')}{_detail(error)}"
        for error in _errors(response)
    )[:_MAX_TEXT]


def _detail(error: dict[str, Any]) -> str:
    return f" {json.dumps(error['detail'])}" if error.get("detail") else ""


def is_full(response: requests.Response) -> bool:
    """Return whether the registry has no space left.

    Its status says so, or the error number of the operating system below its driver.
    """
    numbers = [
        detail["Enclosed"].get("Err")
        for error in _errors(response)
        if isinstance(detail := error.get("detail"), dict)
        and isinstance(detail.get("Enclosed"), dict)
    ]
    return response.status_code == 507 or any(
        number in (errno.ENOSPC, errno.EDQUOT) for number in numbers
    )


def _errors(response: requests.Response) -> list[dict[str, Any]]:
    try:
        return [error for error in response.json()["errors"] if isinstance(error, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def parse_token(response: requests.Response) -> str | None:
    """Return the token in the response of a login service, or None if it has none."""
    try:
        found = response.json()
        token = found.get("token") or found.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        return None
    return token if isinstance(token, str) else None


def stored_digest(response: requests.Response, digest: str) -> str:
    """Return the digest that the registry reports, or the expected one if it reports none."""
    return str(response.headers.get("Docker-Content-Digest", digest))
