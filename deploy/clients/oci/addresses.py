"""The addresses to which a registry sends a client: of uploads, redirects and login services.

Sources: RFC 9110, section 4.2.3, "http(s) Normalization and Comparison", and section 15.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from deploy.clients.oci.bodies import FileChunk
from deploy.clients.oci.errors import display_url, no_registry_error
from deploy.errors import RegistryRefused

if TYPE_CHECKING:
    import requests

READS = frozenset({"GET", "HEAD"})
_MAX_REDIRECTS = 5
_READ_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# After the others a client may repeat a POST as a GET.
_WRITE_REDIRECTS = frozenset({307, 308})
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")


class Origin(NamedTuple):
    """A server: all URLs of one origin lead to the same one."""

    scheme: str
    host: str
    port: int | None

    @property
    def is_https(self) -> bool:
        """Whether what is sent there is encrypted."""
        return self.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there by plain HTTP stays on this machine."""
        return self.scheme == "http" and is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a host, given without its port, is this machine."""
    return _LOOPBACK.fullmatch(host) is not None


def registry_url(host: str) -> str:
    """Return the URL of a registry at a host and port; only loopback hosts use plain HTTP."""
    scheme = "http" if is_loopback(urlsplit(f"//{host}").hostname or "") else "https"
    return f"{scheme}://{host}"


def find_origin(url: str) -> Origin:
    """Return the server of a URL.

    Raises:
        ValueError: it is not a URL.
    """
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme))


def resolve_url(base: str, location: str) -> str:
    """Return the URL of a `Location`, which may be relative to the URL that it came from.

    Raises:
        RegistryRefused: it is not a URL.
    """
    try:
        url = urljoin(base, location)
        find_origin(url)
    except ValueError as error:
        raise no_registry_error("the registry named an address that is not a URL", base) from error
    return url


def follow(
    method: str,
    url: str,
    send: Callable[[str], requests.Response],
    check: Callable[[str], None],
) -> requests.Response:
    """Return the response at the end of the redirects of a request.

    Args:
        method: The HTTP method, which stays the same.
        url: Where the request goes first.
        send: Sends it to a URL.
        check: Raises if it may not be redirected to a URL.

    Raises:
        RegistryRefused: The redirects have no end.
    """
    redirects = _READ_REDIRECTS if method in READS else _WRITE_REDIRECTS
    for _ in range(_MAX_REDIRECTS + 1):
        response = send(url)
        location = response.headers.get("Location")
        if response.status_code not in redirects or location is None:
            return response
        url = resolve_url(response.url, location)
        check(url)
    raise RegistryRefused(
        "the registry redirects a request again and again",
        on=display_url(url),
        next="check the address of the registry, and the proxies before it",
    )


def prepare_redirect(options: dict[str, Any]) -> None:
    """Let a request be sent to the URL of a redirect, which has the parameters already."""
    rewind_body(options.get("data"))
    options.pop("params", None)


def rewind_body(body: object) -> None:
    """Let the body of a request, if it is a part of a file, be sent again from its start."""
    if isinstance(body, FileChunk):
        body.rewind()
