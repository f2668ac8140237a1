"""The options of connections to stores, which are the same for every kind of service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.clients.network import ca_bundle
from deploy.errors import StoreUnreachable

if TYPE_CHECKING:
    from obstore.store import ClientConfig

_TIMEOUT = "2m"
"""For a request with its body: a part of an upload may be slow, but not without end."""
_PEM = b"-----BEGIN CERTIFICATE-----"
_HASHED_NAMES = "*.[0-9]"
"""The names by which OpenSSL finds certificates in a folder."""


def connection_options(*, allow_http: bool = False) -> ClientConfig:
    """Return the library's options: connections trust the CA bundle that requests does, too.

    The library reads the proxies from the environment, as requests does.

    Args:
        allow_http: Whether connections may be without TLS.

    Raises:
        StoreUnreachable: The CA bundle cannot be read.
    """
    options: ClientConfig = {"allow_http": allow_http, "timeout": _TIMEOUT}
    bundle = ca_bundle()
    if bundle:
        options["root_certificate"] = _read_certificates(Path(bundle))
    return options


def is_url(text: str, *schemes: str) -> bool:
    """Return whether a text is a URL with a host and one of some schemes; others end the library.

    Args:
        text: The text.
        schemes: The schemes.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def _read_certificates(bundle: Path) -> bytes:
    """Return the certificates of a file, or of a folder."""
    try:
        files = sorted(bundle.glob(_HASHED_NAMES)) if bundle.is_dir() else [bundle]
        found = b"\n".join(file.read_bytes() for file in files)
    except OSError as error:
        raise _unusable(bundle, str(error.strerror)) from error
    if _PEM not in found:
        raise _unusable(bundle, "it has no certificate in the form PEM")
    return found


def _unusable(bundle: Path, reason: str) -> StoreUnreachable:
    return StoreUnreachable(
        f"the CA bundle cannot be used: {reason}",
        on=str(bundle),
        next="correct REQUESTS_CA_BUNDLE, or else SSL_CERT_FILE",
    )
