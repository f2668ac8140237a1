"""Certificates of an authority of a test."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

Pair = tuple[rsa.RSAPrivateKey, x509.Certificate]


def make_certificate(name: str, hosts: Sequence[str] = (), authority: Pair | None = None) -> Pair:
    """Return a key and its certificate.

    Args:
        name: the common name.
        hosts: the DNS names, with `*` for any first part, and the addresses that it is for.
        authority: signs it; None makes an authority, which signs itself.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = authority[1].subject if authority else subject
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signing = authority[0] if authority else key
    return key, builder.sign(signing, hashes.SHA256())


def write_pem(path: Path, *parts: rsa.RSAPrivateKey | x509.Certificate, password: str = "") -> None:
    """Write keys and certificates to one file; the keys with a password if there is one."""
    path.write_bytes(b"".join(_pem(part, password) for part in parts))


def _pem(part: rsa.RSAPrivateKey | x509.Certificate, password: str) -> bytes:
    if isinstance(part, x509.Certificate):
        return part.public_bytes(Encoding.PEM)
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return part.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
