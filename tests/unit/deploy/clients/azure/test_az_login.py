"""What `az login` left: its files while they are written, and where they are encrypted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from azure.cli.core.auth import persistence

from deploy.clients.azure.az_login import read_principal, read_token_cache
from deploy.clients.azure.errors import AzureError
from tests.fakes.azure.logins import write_az_login, write_az_principal
from tests.fakes.azure.stand_in import CLIENT, TENANT, USER

NO_ENCRYPTION = "`az config set core.encrypt_token_cache=false`"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of `az`, in which a user is logged in."""
    write_az_login(tmp_path)
    return tmp_path


@pytest.fixture
def cache(folder: Path) -> Path:
    """Return the user's token cache."""
    return folder / "msal_token_cache.json"


class Pauses:
    """Pauses that take no time."""

    def __init__(self) -> None:
        self.made = 0
        self.act: Callable[[int], object] = lambda _: None

    def __call__(self, _seconds: float) -> None:
        """Do what happens in a pause."""
        self.made += 1
        self.act(self.made)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Count the pauses between two reads."""
    found = Pauses()
    monkeypatch.setattr("time.sleep", found)
    return found


@pytest.mark.parametrize("half", ["", "{", '{"Account": {"a'])
def test_a_writer_that_is_stopped_for_seconds_is_waited_for(
    folder: Path, cache: Path, pauses: Pauses, half: str
) -> None:
    """On a busy machine it may be stopped after it has truncated the file."""
    text = cache.read_text()
    cache.write_text(half)
    pauses.act = lambda number: cache.write_text(text) if number == 100 else None
    assert json.loads(read_token_cache(folder, USER)) == json.loads(text)


def test_a_file_that_stays_incomplete_is_an_error(
    folder: Path, cache: Path, pauses: Pauses
) -> None:
    """After ten seconds."""
    cache.write_text("{")
    with pytest.raises(AzureError, match=r"cannot be read \(JSONDecodeError\)") as caught:
        read_token_cache(folder, USER)
    assert (caught.value.on, caught.value.next) == (str(cache), "log in again: `az login`")
    assert pauses.made * 0.05 == pytest.approx(10, abs=0.1)


def test_an_account_that_is_not_in_a_complete_file_is_waited_for_a_second(
    folder: Path, cache: Path, pauses: Pauses
) -> None:
    """Another login may be about to add it."""
    cache.write_text("{}")
    with pytest.raises(AzureError, match="the account is not in it"):
        read_token_cache(folder, USER)
    assert pauses.made * 0.05 == pytest.approx(1, abs=0.1)


# --- encrypted files


class Keyring:
    """What opens encrypted files for their user: DPAPI, the keychain or libsecret."""

    def __init__(self, content: str = "", failure: Exception | None = None) -> None:
        self.content = content
        self.failure = failure
        self.opened: list[tuple[str, bool]] = []

    def build(self, location: str, encrypt: bool) -> Keyring:
        """Return what opens a file, which is named without its ending."""
        self.opened.append((location, encrypt))
        return self

    def load(self) -> str:
        """Return the content."""
        if self.failure:
            raise self.failure
        return self.content


def encrypt(file: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> Path:
    """Encrypt a file as `az` does, and return the encrypted one."""
    keyring = Keyring(file.read_text(), failure)
    monkeypatch.setattr(persistence, "build_persistence", keyring.build)
    file.unlink()
    encrypted = file.with_suffix(".bin")
    encrypted.write_bytes(b"\x00encrypted")
    return encrypted


def test_an_encrypted_cache_is_opened_by_the_system(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens it for the user who logged in."""
    text = cache.read_text()
    encrypt(cache, monkeypatch)
    assert json.loads(read_token_cache(folder, USER)) == json.loads(text)


def test_an_encrypted_entry_of_a_service_principal_is_opened_by_the_system(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`az` encrypts both or none."""
    write_az_principal(folder)
    encrypt(folder / "service_principal_entries.json", monkeypatch)
    assert read_principal(folder, CLIENT, TENANT)["client_id"] == CLIENT


def test_an_encrypted_cache_that_is_not_opened_is_told(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> None:
    """Of another user, or from another machine; what the system says may be long."""
    encrypted = encrypt(cache, monkeypatch, persistence.PersistenceNotFound(message="planted"))
    with pytest.raises(AzureError) as caught:
        read_token_cache(folder, USER)
    error = caught.value
    assert error.what == "the encrypted login of `az` cannot be read here (PersistenceNotFound)"
    assert error.on == str(encrypted)
    assert NO_ENCRYPTION in error.next
    assert pauses.made > 0


def test_an_encrypted_cache_on_a_system_without_a_keyring_is_told_at_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> None:
    """A second look would find no other libraries."""
    encrypt(cache, monkeypatch, ImportError("gi"))
    with pytest.raises(AzureError, match=r"cannot be read here \(ImportError\)") as caught:
        read_token_cache(folder, USER)
    assert NO_ENCRYPTION in caught.value.next
    assert pauses.made == 0


@pytest.mark.parametrize("newer", [".json", ".bin"])
def test_the_file_that_was_written_last_counts(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, newer: str
) -> None:
    """`az` leaves the other one behind when encryption is switched."""
    text = cache.read_text()
    encrypt(cache, monkeypatch, None if newer == ".bin" else ImportError("gi"))
    cache.write_text(text if newer == ".json" else "{}")
    for suffix in (".json", ".bin"):
        age = 0 if suffix == newer else 1000
        os.utime(cache.with_suffix(suffix), (2_000_000_000 - age,) * 2)
    assert USER in read_token_cache(folder, USER)
