"""What this machine reaches: sockets, DNS names and TLS certificates."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from pathlib import Path

_TIMEOUT = 2.0


def is_reachable(host: str, port: int, timeout: float = _TIMEOUT) -> bool:
    """Return whether a server accepts a connection at a host and port."""
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return True
    except (OSError, UnicodeError):
        return False


def is_taken(address: str, port: int) -> bool:
    """Return whether a program of this machine has a port: it listens there, or has reserved it."""
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def resolves_to(host: str, address: str) -> bool:
    """Return whether DNS resolves a host name to an address, which may itself be a name."""
    return bool(_addresses(host) & _addresses(address))


def has_private_address(host: str) -> bool:
    """Return whether DNS resolves a host name to addresses of private networks alone."""
    found = _addresses(host)
    return bool(found) and all(ipaddress.ip_address(address).is_private for address in found)


def _addresses(host: str) -> frozenset[str]:
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return frozenset()


def tls_problem(host: str, address: str, port: int = 443) -> str:
    """Return why no TLS connection to a host can be made at an address; empty if one can."""
    import certifi
    import urllib3.util

    trusted = Path(ca_bundle() or certifi.where())
    # The same context as for golden cases: urllib3 may be stricter with certificates than Python.
    context = urllib3.util.create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    try:
        context.load_verify_locations(**{"capath" if trusted.is_dir() else "cafile": str(trusted)})
    except OSError as error:
        return f"{trusted} cannot be used ({_reason(error)})"
    try:
        with (
            socket.create_connection((address, port), timeout=_TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except (OSError, UnicodeError) as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    """Return the shortest description of an error that it has."""
    texts = (getattr(error, name, None) for name in ("verify_message", "reason", "strerror"))
    return str(next(filter(None, texts), type(error).__name__))


def ca_bundle() -> str:
    """Return the CA bundle that this machine's environment names; empty if it names none."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or ""
