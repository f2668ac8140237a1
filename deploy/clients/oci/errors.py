"""The failures of a registry, as errors of this project.

Errors have the host and the path, but neither query nor headers: those may hold tokens.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.clients.causes import causes
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
    "log in with `docker login` (or `az login` for a registry on Azure), or name the variables "
    "that hold user and password in the environment's settings"
)
_FIXES = {
    413: "a proxy before the registry limits the body; raise its limit",
    429: "the registry limits requests; run again later",
}


_NOT_TLS = (
    "the registry does not speak HTTPS",
    (
        "put HTTPS in front of it; or reach it through this machine (`ssh -L`, `kubectl "
        "port-forward`), with 127.0.0.1 and that port as `registry`: only loopback addresses use "
        "plain HTTP"
    ),
)
# The reasons that OpenSSL gives if the first bytes of a server are no TLS record.
_NOT_TLS_REASONS = frozenset(
    {"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"}
)
_NAME_CA = "name a CA bundle that has {} in REQUESTS_CA_BUNDLE"
_SELF_SIGNED = (
    "the registry's certificate is self-signed, and not trusted here",
    _NAME_CA.format("it"),
)
_UNKNOWN_AUTHORITY = (
    "the registry's certificate is signed by an authority that is not trusted here",
    _NAME_CA.format("that authority's certificate"),
)
_OTHER_NAME = (
    "the registry's certificate is for another name",
    "set `registry` to the name in the certificate, or have a certificate made for this one",
)
_OUTDATED = (
    "the registry's certificate has expired",
    "have it renewed; if it was, check the clock of this machine",
)
_EARLY = ("the registry's certificate is not valid yet", "check the clocks of both machines")
# By the codes of X509_verify_cert (OpenSSL, x509_vfy.h).
_CERTIFICATE_PROBLEMS = {
    2: _UNKNOWN_AUTHORITY,
    9: _EARLY,
    10: _OUTDATED,
    18: _SELF_SIGNED,
    19: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Translate failed connections and broken responses of requests and urllib3."""
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise tls_error(error, url) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        unreachable = RegistryUnreachable(
            f"the registry gave no answer ({_reason(error)})",
            on=display_url(url),
            next="check the address and the network; on this machine `invoke up` starts a registry",
        )
        unreachable.transient = True
        raise unreachable from error
    except ValueError as error:
        # Requests parses the URL of a redirect, whether it is followed or not.
        raise no_registry_error("the registry gave an answer that cannot be read", url) from error


def no_registry_error(what: str, url: str) -> RegistryRefused:
    """Return the error of an answer that may come from another kind of server."""
    return RegistryRefused(what, on=display_url(url), next="see whether a registry answers there")


def tls_error(error: BaseException, url: str) -> RegistryUnreachable:
    """Return the error of a TLS connection that could not be made, with its reason."""
    found = next((cause for cause in causes(error) if isinstance(cause, ssl.SSLError)), None)
    code = getattr(found, "verify_code", 0)
    reason = getattr(found, "reason", "")
    if code in _CERTIFICATE_PROBLEMS:
        what, fix = _CERTIFICATE_PROBLEMS[code]
    elif code:
        what = f"the registry's certificate is not trusted: {getattr(found, 'verify_message', '')}"
        fix = _NAME_CA.format("the right authority")
    elif reason in _NOT_TLS_REASONS:
        what, fix = _NOT_TLS
    else:
        what = f"no TLS connection to the registry can be made ({reason or 'no reason given'})"
        fix = "check which versions of TLS the registry and the proxies before it offer"
    return RegistryUnreachable(what, on=display_url(url), next=fix)


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
