"""Which engine is used, and what the programs and libraries get that use it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.docker.address import (
    EngineAddress,
    find_engine_address,
    library_variables,
    program_variables,
)
from deploy.errors import SettingsInvalid

HOSTILE = {
    "DOCKER_CONTEXT": "another",
    "DOCKER_BUILDKIT": "0",
    "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
    "DOCKER_CONTENT_TRUST": "1",
    "DOCKER_API_VERSION": "1.12",
    "BUILDX_BUILDER": "builder-of-ci",
    "BUILDX_CONFIG": "/somewhere",
    "BUILDKIT_HOST": "tcp://127.0.0.1:1",
    "BUILDKIT_PROGRESS": "rawjson",
    "TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX": "mirror.example/",
    "TESTCONTAINERS_RYUK_PRIVILEGED": "true",
    "TC_POOLING_INTERVAL": "200ms",
    "TC_HOST": "other.example",
    "RYUK_CONTAINER_IMAGE": "ryuk",
    "REQUESTS_CA_BUNDLE": "/somewhere/ca.pem",
    "NETRC": "/somewhere/netrc",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a Docker configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def add_context(folder: Path, name: str, *files: str, **endpoint: Any) -> None:
    """Add a context with TLS files, as `docker context create` writes it."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / identity
    meta.mkdir(parents=True)
    content = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
    (meta / "meta.json").write_text(json.dumps(content), encoding="utf-8")
    for file in files:
        tls = folder / "contexts" / "tls" / identity / "docker"
        tls.mkdir(parents=True, exist_ok=True)
        (tls / file).write_text("PEM", encoding="utf-8")


def choose_context(folder: Path, name: str) -> None:
    """Choose a context, as `docker context use` does."""
    (folder / "config.json").write_text(json.dumps({"currentContext": name}), encoding="utf-8")


@pytest.mark.parametrize("name", ["", "default"])
def test_nothing_names_the_engine_of_this_machine(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is at the default socket, and may be installed; the context `default` is the same."""
    monkeypatch.setenv("DOCKER_CONTEXT", name)
    choose_context(folder, name)
    found = find_engine_address()
    assert (found.url, found.is_named) == ("unix:///var/run/docker.sock", False)


def test_docker_host_goes_before_contexts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is the order of Docker's command line: the variable, the named context, the chosen."""
    for name in ("named", "chosen"):
        add_context(folder, name, Host=f"unix:///{name}.sock")
    choose_context(folder, "chosen")
    assert find_engine_address().url == "unix:///chosen.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    assert find_engine_address().url == "unix:///named.sock"
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    found = find_engine_address()
    assert (found.url, found.named_by) == ("tcp://127.0.0.1:2375", "DOCKER_HOST")


def test_a_context_that_does_not_exist_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other engine is used instead; the error says who names it."""
    choose_context(folder, "gone")
    with pytest.raises(SettingsInvalid, match="'gone'") as caught:
        find_engine_address()
    assert caught.value.on == str(folder / "config.json")
    monkeypatch.setenv("DOCKER_CONTEXT", "gone-too")
    with pytest.raises(SettingsInvalid, match="'gone-too'") as caught:
        find_engine_address()
    assert caught.value.on == "DOCKER_CONTEXT"


def test_a_damaged_context_is_an_error(folder: Path) -> None:
    """The error names its file."""
    add_context(folder, "broken")
    choose_context(folder, "broken")
    with pytest.raises(SettingsInvalid, match=r"meta\.json cannot be read"):
        find_engine_address()


@pytest.mark.parametrize(("skip", "variable"), [(False, "DOCKER_TLS_VERIFY"), (True, "DOCKER_TLS")])
def test_the_tls_files_of_a_context_are_used(folder: Path, skip: bool, variable: str) -> None:
    """The SDK, the command line and testcontainers get them by the same variables."""
    files = ("ca.pem", "cert.pem", "key.pem")
    add_context(folder, "far", *files, Host="tcp://far.example:2376", SkipTLSVerify=skip)
    choose_context(folder, "far")
    found = find_engine_address().variables
    assert found["DOCKER_HOST"] == "tcp://far.example:2376"
    assert {file.name for file in Path(found["DOCKER_CERT_PATH"]).iterdir()} == {*files}
    assert found[variable] == "1"
    assert len(found) == 3


def test_the_tls_files_are_in_the_folder_of_the_configuration_if_none_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's command line looks for them there."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).touch()
    monkeypatch.setenv("DOCKER_HOST", "tcp://far.example:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert find_engine_address().variables["DOCKER_CERT_PATH"] == str(folder)


def test_missing_tls_files_are_named(folder: Path) -> None:
    """They are looked for before the engine is asked."""
    add_context(folder, "far", "ca.pem", Host="tcp://far.example:2376")
    choose_context(folder, "far")
    with pytest.raises(SettingsInvalid, match=r"cert\.pem, key\.pem"):
        find_engine_address()


@pytest.mark.parametrize(
    "url", ["ssh://user@far.example", "fd://3", "tcp://far.example", "ftp://a:1"]
)
def test_an_address_that_cannot_be_used_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the address and the variable."""
    monkeypatch.setenv("DOCKER_HOST", url)
    with pytest.raises(SettingsInvalid) as caught:
        find_engine_address()
    assert caught.value.on == f"{url}, named by DOCKER_HOST"


def test_an_address_of_ssh_in_a_context_is_refused(folder: Path) -> None:
    """Ports that such an engine publishes are on another machine."""
    add_context(folder, "far", Host="ssh://user@far.example")
    choose_context(folder, "far")
    with pytest.raises(SettingsInvalid, match="ssh://"):
        find_engine_address()


def test_programs_get_the_engine_and_no_settings_of_the_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login in a variable and the user's plug-ins are kept; what is written goes elsewhere."""
    (folder / "cli-plugins").mkdir()
    (folder / "cli-plugins" / "docker-buildx").touch()
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", "{}")
    with program_variables(EngineAddress("unix:///a.sock")) as found:
        configuration = Path(found["DOCKER_CONFIG"])
        assert found["DOCKER_HOST"] == "unix:///a.sock"
        assert configuration != folder
        assert (configuration / "cli-plugins" / "docker-buildx").exists()
        own = {name for name in found if name.startswith(("DOCKER_", "BUILDX_", "BUILDKIT_"))}
        assert own == {"DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG"}
        assert found["PATH"] == os.environ["PATH"]
    assert not configuration.exists()


def test_libraries_get_the_engine_and_no_settings_of_the_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their home folder is empty; afterwards this process has its own variables again."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with library_variables(EngineAddress("unix:///a.sock")):
        assert os.environ["DOCKER_HOST"] == "unix:///a.sock"
        assert os.environ["TESTCONTAINERS_RYUK_DISABLED"] == "true"
        assert [*Path.home().iterdir()] == []
        assert not HOSTILE.keys() & os.environ.keys()
        # What a library sets lasts no longer either.
        os.environ["DOCKER_HOST"] = "tcp://another.example:1"
    assert dict(os.environ) == before
