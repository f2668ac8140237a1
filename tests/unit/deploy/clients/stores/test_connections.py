"""The options of connections to stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.clients.stores.connections import connection_options
from deploy.errors import StoreUnreachable

PEM = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def _without_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_bundle_the_system_is_trusted() -> None:
    """Connections have TLS, and parts of an upload have time on a slow network."""
    assert connection_options() == {"allow_http": False, "timeout": "2m"}


def test_a_connection_without_tls_is_asked_for() -> None:
    """By its URL, for example."""
    assert connection_options(allow_http=True)["allow_http"]


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_bundle_of_this_machine_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The same variables count for all that is reached over HTTPS."""
    (tmp_path / "ca.pem").write_bytes(PEM)
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    assert connection_options()["root_certificate"] == PEM


def test_a_folder_is_read_by_the_names_of_openssl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else is in it."""
    (tmp_path / "key.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "1.0").write_bytes(PEM)
    (tmp_path / "2.1").write_bytes(PEM)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert connection_options()["root_certificate"] == PEM + b"\n" + PEM


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """The library would say that of the store's URL."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(StoreUnreachable, match="the CA bundle cannot be used") as caught:
        connection_options()
    assert caught.value.on == str(path)
    assert "SSL_CERT_FILE" in caught.value.next
