"""The certificate of a service principal: a PEM file with its key, which may have a password.

msal takes both, but its errors do not tell what is wrong with them.
"""

from __future__ import annotations

from pathlib import Path

from deploy.clients.azure.errors import AzureError

_PATH = "AZURE_CLIENT_CERTIFICATE_PATH"
_PASSWORD = "AZURE_CLIENT_CERTIFICATE_PASSWORD"  # noqa: S105 - the name of a variable


def require_certificate(path: Path, password: str) -> None:
    """Raise unless a file has a certificate, and a key that can be used.

    Args:
        path: The file.
        password: Opens the key; empty if it has none.

    Raises:
        AzureError: It does not.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    content = _read(path)
    try:
        load_pem_x509_certificate(content)
        key = load_pem_private_key(content, password.encode() or None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        # Without a cause: it may quote the key.
        raise _unusable_error(path, content, password, error) from None
    if not isinstance(key, RSAPrivateKey):
        what = "the key of the certificate is of another kind than RSA"
        raise AzureError(what, on=str(path), next="Entra takes RSA alone: make such a certificate")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AzureError(
            f"the certificate of the login to Azure cannot be read ({type(error).__name__})",
            on=str(path),
            next=f"check {_PATH}",
        ) from error


def _unusable_error(path: Path, content: bytes, password: str, error: Exception) -> AzureError:
    if isinstance(error, TypeError) and password:
        what = "the key of the certificate has no password"
        cure = f"unset {_PASSWORD}"
    elif isinstance(error, TypeError):
        what = "the key of the certificate has a password"
        cure = f"set {_PASSWORD}"
    elif b"ENCRYPTED" in content:
        what = "the password does not open the key of the certificate"
        cure = f"check {_PASSWORD}"
    else:
        what = "the file has no certificate and key in the PEM format"
        cure = f"check {_PATH}; `openssl pkcs12 -in FILE.pfx -out FILE.pem` makes one of a PFX file"
    return AzureError(what, on=str(path), next=cure)
