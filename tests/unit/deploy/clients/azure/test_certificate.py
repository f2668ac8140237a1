"""The certificate of a service principal, and what is wrong with those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.clients.azure.errors import AzureError
from tests.fakes.azure.certificates import Pair, make_certificate, write_pem
from tests.fakes.azure.logins import PRINCIPAL, identity_on
from tests.fakes.azure.stand_in import StandIn
from tests.fakes.azure.tokens import Signer

STORAGE = "https://storage.azure.com"
PATH = "AZURE_CLIENT_CERTIFICATE_PATH"
PASSWORD = "AZURE_CLIENT_CERTIFICATE_PASSWORD"


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Return a key and its certificate."""
    return make_certificate("shop")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of the certificate's file."""
    return tmp_path / "client.pem"


def log_in(azure: StandIn, file: Path, password: str = "") -> str:
    """Return a token for which the certificate logs in."""
    environ = {**PRINCIPAL, PATH: str(file), PASSWORD: password}
    return identity_on(azure, environ).token(STORAGE).value


def failure_of(azure: StandIn, file: Path, password: str = "") -> AzureError:
    """Return the failure of a login, which asks no service."""
    with pytest.raises(AzureError) as caught:
        log_in(azure, file, password)
    assert "/oauth2/v2.0/token" not in [one.path for one in azure.asked]
    assert caught.value.on == str(file)
    return caught.value


@pytest.mark.parametrize("password", ["", "planted-password"])
def test_a_certificate_logs_in(azure: StandIn, pair: Pair, file: Path, password: str) -> None:
    """Key and certificate are in one PEM file, and the key may have a password."""
    azure.client_key = Signer(pair[0])
    write_pem(file, *pair, password=password)
    assert azure.accepts(log_in(azure, file, password), STORAGE)


def test_a_password_that_is_missing_is_told(azure: StandIn, pair: Pair, file: Path) -> None:
    """The advice names the variable."""
    write_pem(file, *pair, password="planted-password")
    error = failure_of(azure, file)
    assert error.what == "the key of the certificate has a password"
    assert error.next == f"set {PASSWORD}"


def test_a_wrong_password_is_told(azure: StandIn, pair: Pair, file: Path) -> None:
    """It is not shown."""
    write_pem(file, *pair, password="planted-password")
    error = failure_of(azure, file, "planted-other")
    assert error.what == "the password does not open the key of the certificate"
    assert error.next == f"check {PASSWORD}"
    assert "planted" not in f"{error.what}{error.next}{error.detail}{error.__cause__}"


def test_a_password_that_is_not_needed_is_told(azure: StandIn, pair: Pair, file: Path) -> None:
    """It may belong to another file."""
    write_pem(file, *pair)
    error = failure_of(azure, file, "planted-password")
    assert error.what == "the key of the certificate has no password"
    assert error.next == f"unset {PASSWORD}"


@pytest.mark.parametrize("parts", [(), (0,), (1,)], ids=["neither", "key", "certificate"])
def test_a_file_that_lacks_one_of_the_two_is_told(
    azure: StandIn, pair: Pair, file: Path, parts: tuple[int, ...]
) -> None:
    """As does one of another format."""
    write_pem(file, *(pair[index] for index in parts))
    error = failure_of(azure, file)
    assert error.what == "the file has no certificate and key in the PEM format"
    assert PATH in error.next
    assert "openssl pkcs12" in error.next


def test_a_missing_file_is_told(azure: StandIn, file: Path) -> None:
    """The advice names the variable."""
    error = failure_of(azure, file)
    assert error.what.endswith("cannot be read (FileNotFoundError)")
    assert error.next == f"check {PATH}"


def test_a_key_of_another_kind_is_told(azure: StandIn, pair: Pair, file: Path) -> None:
    """The login service takes signatures by RSA alone."""
    write_pem(file, pair[1])
    key = ec.generate_private_key(ec.SECP256R1())
    with file.open("ab") as pem:
        pem.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "another kind than RSA" in failure_of(azure, file).what
