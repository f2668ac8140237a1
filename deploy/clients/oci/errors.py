"""The failures of a registry, as errors of this project.

Errors have the host and the path, but neither query nor headers: those may hold tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.clients.oci.responses import is_full
from deploy.errors import (
    RegistryDenied,
    RegistryError,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
)

if TYPE_CHECKING:
    import requests

# After 416 an upload continues at the offset that the registry reports.
_TRANSIENT = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_LOG_IN = (
    "log in with `docker login`, or name the variables that hold user and password "
    "in the environment's settings"
)
_FIXES = {
    413: "a proxy before the registry limits the body; raise its limit",
    429: "the registry limits requests; run again later",
}


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Translate failed connections and broken responses of requests and urllib3."""
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise RegistryUnreachable(
            "the registry's certificate is not trusted",
            on=display_url(url),
            next="name your CA bundle in REQUESTS_CA_BUNDLE",
        ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        unreachable = RegistryUnreachable(
            f"the registry gave no answer ({_reason(error)})",
            on=display_url(url),
            next="check the address and the network; on this machine `invoke up` starts a registry",
        )
        unreachable.transient = True
        raise unreachable from error


def refusal_error(response: requests.Response, method: str, url: str, detail: str) -> RegistryError:
    """Return the error of a response with an unexpected status.

    Args:
        response: The registry's response.
        method: The HTTP method of the request.
        url: The URL of the request.
        detail: The registry's own error messages, without credentials.
    """
    status = response.status_code
    what = f"the registry answered {status} {response.reason} to {method}"
    on = display_url(url)
    if status in (401, 403):
        return RegistryDenied(what, on=on, next=_LOG_IN, detail=detail)
    if status == 404:
        fix = "check registry and repository in pipeline.toml"
        return RegistryNotFound(what, on=on, next=fix, detail=detail)
    if is_full(response):
        return RegistryRefused(
            f"the registry has no space left: it answered {status} to {method}",
            on=on,
            next="free some space where the registry keeps its data, then run again",
            detail=detail,
        )
    fix = _FIXES.get(status, "run again; if it fails again, see the registry's log")
    error = RegistryRefused(what, on=on, next=fix, detail=detail)
    error.transient = status in _TRANSIENT
    error.retry_after = response.headers.get("Retry-After", "")
    return error


def display_url(url: str) -> str:
    """Return the host and the path of a URL, without what may hold credentials."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: BaseException) -> str:
    """Return the innermost reason, without addresses that may hold tokens."""
    while error.__context__ is not None:
        error = error.__context__
    return str(getattr(error, "strerror", None) or type(error).__name__)
