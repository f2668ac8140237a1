"""Failed TLS connections to a registry, and what can be done about each."""

from __future__ import annotations

import ssl

import pytest
import requests
import urllib3

from deploy.clients.oci.errors import translate_errors
from deploy.errors import RegistryUnreachable


def certificate_error(code: int) -> ssl.SSLError:
    """Return the error of a certificate that OpenSSL refuses with a code."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    error.verify_message = "as OpenSSL says"
    return error


def protocol_error(reason: str) -> ssl.SSLError:
    """Return the error of another failure, by the name of OpenSSL's reason."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


def wrap(error: ssl.SSLError) -> requests.exceptions.SSLError:
    """Return an error as urllib3 and requests raise it."""
    inner = urllib3.exceptions.SSLError(error)
    outer = requests.exceptions.SSLError(inner)
    inner.__cause__ = error
    outer.__cause__ = inner
    return outer


def translate(error: ssl.SSLError) -> RegistryUnreachable:
    """Return what becomes of an error of a connection."""
    with (
        pytest.raises(RegistryUnreachable) as caught,
        translate_errors("https://a.example/v2/?x=secret"),
    ):
        raise wrap(error)
    return caught.value


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (certificate_error(18), "self-signed", "REQUESTS_CA_BUNDLE"),
        (certificate_error(19), "an authority that is not trusted", "REQUESTS_CA_BUNDLE"),
        (certificate_error(20), "an authority that is not trusted", "REQUESTS_CA_BUNDLE"),
        (certificate_error(21), "an authority that is not trusted", "REQUESTS_CA_BUNDLE"),
        (certificate_error(10), "has expired", "renewed"),
        (certificate_error(9), "not valid yet", "clocks"),
        (certificate_error(62), "for another name", "`registry`"),
        (certificate_error(64), "for another name", "`registry`"),
        (certificate_error(23), "not trusted: as OpenSSL says", "REQUESTS_CA_BUNDLE"),
        (protocol_error("WRONG_VERSION_NUMBER"), "does not speak HTTPS", "127.0.0.1"),
        (protocol_error("RECORD_LAYER_FAILURE"), "does not speak HTTPS", "127.0.0.1"),
        (protocol_error("TLSV1_ALERT_PROTOCOL_VERSION"), "PROTOCOL_VERSION", "versions of TLS"),
    ],
)
def test_the_error_says_why_there_is_no_tls(error: ssl.SSLError, what: str, fix: str) -> None:
    """Each reason has another fix; none is a reason for another attempt."""
    found = translate(error)
    assert what in found.what
    assert fix in found.next
    assert found.on == "a.example/v2/"
    assert not found.transient
