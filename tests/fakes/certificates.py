"""Certificates for tests, made by the program of OpenSSL."""

from __future__ import annotations

import subprocess
from pathlib import Path


def write_certificate(folder: Path, *alternative_names: str) -> tuple[Path, Path]:
    """Write a certificate that is its own authority, and its key; return the paths of both.

    Args:
        folder: where they are written, as `crt` and `key`.
        alternative_names: whom it is for, such as DNS:shop.example or IP:127.0.0.1.
    """
    names = ("-addext", f"subjectAltName={','.join(alternative_names)}")
    new_key = ("-newkey", "rsa:2048", "-nodes", "-keyout", "key")
    command = ("openssl", "req", "-x509", *new_key, "-out", "crt", "-days", "2")
    subprocess.run(
        (*command, "-subj", "/CN=test", *(names if alternative_names else ())),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "crt", folder / "key"
