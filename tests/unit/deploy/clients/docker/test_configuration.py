"""The Docker configuration of a user, and the one that programs and libraries get."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from deploy.clients.docker.configuration import DockerConfiguration

LOGIN = {"registry.example": {"auth": "dXNlcjpwYXNz"}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a Docker configuration; one credential helper is on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker-credential-there").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def write(folder: Path, **content: object) -> None:
    """Write config.json."""
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def read_prepared() -> dict[str, object]:
    """Return what config.json says that programs and libraries get."""
    with DockerConfiguration.read().as_folder() as prepared:
        found: dict[str, object] = json.loads(
            (prepared / "config.json").read_text(encoding="utf-8")
        )
        return found


def test_a_configuration_without_missing_helpers_stays_as_it_is(folder: Path) -> None:
    """No login is written to a second place."""
    write(folder, auths=LOGIN, credsStore="there", currentContext="other")
    with DockerConfiguration.read().as_folder() as prepared:
        assert (prepared / "config.json").readlink() == folder / "config.json"
    assert DockerConfiguration.read().current_context == "other"


def test_a_missing_helper_is_left_out_and_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What needs none of its logins goes on; the warning has the helper and the file."""
    write(
        folder,
        auths=LOGIN,
        credsStore="desktop",
        credHelpers={"a.example": "there", "b.example": "gone"},
        proxies={"default": {}},
    )
    with caplog.at_level(logging.WARNING):
        assert read_prepared() == {
            "auths": LOGIN,
            "credHelpers": {"a.example": "there"},
            "proxies": {"default": {}},
        }
    for word in ("docker-credential-desktop", "docker-credential-gone", str(folder)):
        assert word in caplog.text


def test_a_configuration_of_nothing_but_a_missing_helper_has_a_login(folder: Path) -> None:
    """The SDK takes one without logins for one that is to be read again."""
    from docker.auth import load_config

    write(folder, credsStore="desktop")
    with DockerConfiguration.read().as_folder() as prepared:
        found = load_config(str(prepared / "config.json"))
    assert not found.is_empty
    assert found.auths == {"none.invalid": {}}
    assert not found.creds_store


def test_a_missing_configuration_is_empty(folder: Path) -> None:
    """So is one whose folder is a file."""
    assert DockerConfiguration.read().content == {}
    with DockerConfiguration.read().as_folder() as prepared:
        assert list(prepared.iterdir()) == []


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_configuration_is_empty(folder: Path, text: str) -> None:
    """As for Docker's own command line."""
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert DockerConfiguration.read().content == {}
