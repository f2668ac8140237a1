"""Logins are read from the configuration of `docker login`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.clients.oci.credentials import Login, find_first_login, find_login, read_login
from deploy.errors import RegistryDenied, SettingsInvalid
from tests.fakes.programs import write_program

HOST = "registry.example:5000"

Configure = Callable[[object], None]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Return a function that writes a Docker configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def write(document: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")

    return write


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that installs a shell script as a credential helper."""

    def write(script: str) -> None:
        write_program(tmp_path / "docker-credential-test", f"read host\n{script}")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return write


def test_without_a_configuration_there_is_no_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Access is anonymous then."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "absent"))
    assert find_login(HOST) is None


def test_a_stored_login_is_found_by_its_host(configure: Configure) -> None:
    """Passwords may contain a colon; other hosts have no login."""
    configure({"auths": {HOST: {"auth": base64.b64encode(b"ada:open:sesame").decode()}}})
    assert find_login(HOST) == Login("ada", "open:sesame")
    assert find_login("other.example") is None


def test_a_credential_helper_gives_a_login(
    configure: Configure, helper: Callable[[str], None]
) -> None:
    """It reads the host, and returns a login."""
    helper(
        r"""printf '{"ServerURL": "%s", "Username": "ada", "Secret": "%s-secret"}' $host $host"""
    )
    configure({"credHelpers": {HOST: "test"}})
    assert find_login(HOST) == Login("ada", f"{HOST}-secret")


def test_a_credential_helper_without_that_login_gives_none(
    configure: Configure, helper: Callable[[str], None]
) -> None:
    """A missing login is not an error."""
    helper("echo 'credentials not found in native keychain'; exit 1")
    configure({"credsStore": "test"})
    assert find_login(HOST) is None


def test_a_failing_credential_helper_is_an_error(
    configure: Configure, helper: Callable[[str], None]
) -> None:
    """Anonymous access would fail later, without the reason."""
    helper("echo 'the keychain is locked'; exit 2")
    configure({"credHelpers": {HOST: "test"}})
    with pytest.raises(RegistryDenied, match=HOST) as caught:
        find_login(HOST)
    assert caught.value.on.endswith("config.json")
    assert "docker login" in caught.value.next


@pytest.mark.parametrize(
    "document", [{"credHelpers": {HOST: "not-installed"}}, {"credsStore": "not-installed"}]
)
def test_a_missing_credential_helper_is_an_error(
    configure: Configure, tmp_path: Path, document: object
) -> None:
    """The error names the program and the configuration that names it."""
    configure(document)
    with pytest.raises(RegistryDenied, match="docker-credential-not-installed") as caught:
        find_login(HOST)
    assert caught.value.on == str(tmp_path / "config.json")


def test_a_login_is_read_from_the_variables_that_are_named() -> None:
    """Without names there is none."""
    environ = {"USER_OF_A": "ada", "PASSWORD_OF_A": "sesame"}
    assert read_login("USER_OF_A", "PASSWORD_OF_A", environ) == Login("ada", "sesame")
    assert read_login("", "", environ) is None


def test_a_variable_that_is_not_set_is_named() -> None:
    """The user sets it."""
    with pytest.raises(SettingsInvalid, match="variable PASSWORD_OF_A is not set") as caught:
        read_login("USER_OF_A", "PASSWORD_OF_A", {"USER_OF_A": "ada"})
    assert caught.value.next == "set PASSWORD_OF_A"


@pytest.mark.parametrize("secret", ["hunter2", "S3cr=t!", "open sesame", "ghp_aB3", "A\0B", "ß"])
def test_a_password_in_place_of_its_variables_name_is_not_shown(secret: str) -> None:
    """The error is printed to the log of a CI system."""
    with pytest.raises(SettingsInvalid) as caught:
        read_login("USER_OF_A", secret, {"USER_OF_A": "ada"})
    error = caught.value
    assert secret not in f"{error}{error.next}"
    assert "value of `password`" in error.what
    assert "not the password itself" in error.next


def test_the_helper_of_another_host_does_not_matter(configure: Configure) -> None:
    """It is not run, and need not be installed."""
    configure({"credHelpers": {"other.example": "not-installed"}})
    assert find_login(HOST) is None


@pytest.mark.parametrize(
    "document",
    [
        {"auths": {HOST: {"auth": "no base64"}}},
        {"auths": {HOST: {"auth": base64.b64encode(b"no colon").decode()}}},
        {"auths": {HOST: {"auth": 1}}},
        {"auths": [HOST]},
        {"auths": {HOST: "x"}},
        ["auths"],
    ],
)
def test_a_broken_configuration_is_an_error(configure: Configure, document: object) -> None:
    """Access without a login would fail later, without the reason."""
    configure(document)
    with pytest.raises(RegistryDenied, match="cannot be read"):
        find_login(HOST)


def test_what_a_helper_says_in_another_form_is_an_error(
    configure: Configure, helper: Callable[[str], None]
) -> None:
    """It may print anything."""
    configure({"credsStore": "test"})
    for said in ("nothing", "[]", "{}"):
        helper(f"echo '{said}'")
        with pytest.raises(RegistryDenied, match="cannot be read"):
            find_login(HOST)


def test_an_identity_token_is_found_in_the_configuration(configure: Configure) -> None:
    """A login to ACR stores one, with a user that says nothing and no password."""
    user = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    configure({"auths": {HOST: {"auth": user, "identitytoken": "identity"}}})
    login = find_login(HOST)
    assert login == Login("<token>", "identity")
    assert login.is_identity_token


def test_an_identity_token_is_found_by_a_helper(
    configure: Configure, helper: Callable[[str], None]
) -> None:
    """The user `<token>` marks it."""
    helper("""echo '{"ServerURL": "x", "Username": "<token>", "Secret": "identity"}'""")
    configure({"credsStore": "test"})
    assert find_login(HOST) == Login("<token>", "identity")


def test_a_place_whose_login_is_refused_is_asked_once() -> None:
    """A credential helper may ask the user."""
    asked: list[str] = []

    def refuse() -> Login | None:
        asked.append("docker")
        raise RegistryDenied("the keychain is locked", on="config.json", next="open it")

    with pytest.raises(RegistryDenied, match="locked"):
        find_first_login(lambda: None, refuse)
    assert asked == ["docker"]
