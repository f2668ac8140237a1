"""An application and an environment: what settings and variables become."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy import model
from deploy.errors import EngineUnavailable, ModelUnknown, SampleUnavailable, SettingsInvalid
from deploy.settings import DEBIAN
from deploy.site import Site
from tests.fakes.application import MODEL, PIPELINE, Application

SAMPLE = f"""\
from pathlib import Path

MODEL = {MODEL!r}


def write(version: str, folder: Path) -> None:
    if version not in ("1", "2"):
        raise ValueError(f"there is no version {{version}}")
    (folder / "golden").mkdir()
    (folder / "golden" / "three.json").write_text("{{}}")
    (folder / "labels.txt").write_text("three")
    (folder / "model.onnx").write_bytes(b"\\x08" + version.encode())
    (folder / "model.toml").write_text(MODEL.format(version=version))
"""


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """An application without a published model."""
    return Application(tmp_path)


@pytest.fixture
def sampled(application: Application, monkeypatch: pytest.MonkeyPatch) -> Application:
    """The same with a sample model, in a module of its own."""
    name = f"sample_{application.folder.name}"
    application.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=f'sample = "{name}:write"'))
    application.write(f"{name}.py", SAMPLE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return application


def test_without_a_name_the_default_environment_is_meant(application: Application) -> None:
    """And it is called by its name from then on."""
    assert application.site("").environment == "local"


def test_an_environment_that_is_not_there_is_said(application: Application) -> None:
    """With those that are."""
    with pytest.raises(SettingsInvalid) as caught:
        application.site("production")
    assert "local, other" in caught.value.next


def test_environments_of_one_registry_know_of_each_other(application: Application) -> None:
    """So that blobs can be taken over instead of sent."""
    local, other = application.site("local"), application.site("other")
    assert (local.repository, local.elsewhere) == ("classifier", ("elsewhere/classifier",))
    assert (other.repository, other.elsewhere) == ("elsewhere/classifier", ("classifier",))


def test_variables_override_the_file(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the settings' own tests say; here it is the process's environment that is read."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__PORT", "9999")
    assert application.site().view.url == "http://127.0.0.1:9999"


# --- logins


def with_login(application: Application) -> Site:
    """An environment that names the variables of its login."""
    pipeline = PIPELINE.format(base=DEBIAN, sample="").replace(
        "[environments.other]\n", '[environments.other]\nusername = "REGISTRY_USER"\npassword = "REGISTRY_PASSWORD"\n'
    )
    application.write("pipeline.toml", pipeline)
    return application.site("other")


def test_a_login_is_read_from_the_variables_that_the_settings_name(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings hold names, never secrets."""
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    login = with_login(application).login
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


def test_a_login_whose_variable_is_not_set_is_said_by_the_variables_name(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the value of the other is not."""
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    with pytest.raises(SettingsInvalid, match="REGISTRY_USER is not set") as caught:
        _ = with_login(application).login
    assert "secret" not in f"{caught.value} {caught.value.next}"


def test_without_a_login_the_docker_configuration_is_asked(application: Application) -> None:
    """An empty one means no login."""
    assert application.site().login is None


def test_a_login_of_the_docker_configuration_is_used(application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `docker login` has written it."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"auths": {"registry.example": {"auth": "YWRhOnNlY3JldA=="}}}', encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    login = application.site().login
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


# --- clients


def test_looking_installs_and_starts_nothing(application: Application) -> None:
    """The view of an environment needs an engine that is there; a target makes one."""
    application.machine.running = False
    with pytest.raises(EngineUnavailable):
        _ = application.site().view
    assert application.machine.happened == []
    _ = application.site().target
    assert application.machine.happened == ["start the engine"]


def test_a_registry_elsewhere_is_asked_without_looking_first(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one on this machine may be not yet started."""
    assert application.site().registry_is_up
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY", "127.0.0.1:5000")
    assert not application.site().registry_is_up
    application.machine.registries.add("127.0.0.1:5000")
    assert application.site().registry_is_up


def test_ports_of_an_engine_elsewhere_are_not_looked_for_here(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken on this machine may be free on that one."""
    application.machine.listening.add(8080)
    monkeypatch.setattr(application.engine, "local", False)
    with application.site().target.locked():
        pass


# --- the sample


def test_an_empty_store_gets_the_samples_first_version(sampled: Application) -> None:
    """So that a first release needs no model of one's own."""
    found = sampled.site().resolve("latest")
    assert (found.name, found.version) == ("digits", "1")
    assert model.latest("digits", sampled.store) == "1"


def test_the_samples_second_version_is_published_when_asked_for(sampled: Application) -> None:
    """And is the latest from then on."""
    sampled.site().resolve("latest")
    sampled.site().publish_sample("2")
    assert sampled.site().resolve("latest").version == "2"


def test_a_store_with_models_is_left_alone(sampled: Application) -> None:
    """A version that is not there is an error, not a reason to make the sample."""
    sampled.publish("7")
    before = dict(sampled.store.held)
    with pytest.raises(ModelUnknown):
        sampled.site().resolve("1")
    assert sampled.store.held == before


@pytest.mark.parametrize("version", ["2", "3"])
def test_other_versions_than_the_first_do_not_come_by_themselves(sampled: Application, version: str) -> None:
    """Who asks for one by number gets that one, or an error."""
    with pytest.raises(ModelUnknown):
        sampled.site().resolve(version)
    assert sampled.store.held == {}


def test_a_sample_that_cannot_be_made_is_said(sampled: Application) -> None:
    """With what its maker said of it, and nothing is published."""
    with pytest.raises(SampleUnavailable, match="could not be made") as caught:
        sampled.site().publish_sample("3")
    assert "there is no version 3" in caught.value.detail
    assert sampled.store.held == {}


def test_an_application_without_a_sample_says_how_to_publish(application: Application) -> None:
    """An empty store then stays empty."""
    with pytest.raises(ModelUnknown):
        application.site().resolve("latest")
    with pytest.raises(SampleUnavailable) as caught:
        application.site().publish_sample("1")
    assert "model.publish" in caught.value.next


@pytest.mark.parametrize("named", ["nowhere:write", "json:absent", "json"])
def test_a_sample_that_is_not_there_is_a_mistake_in_the_settings(application: Application, named: str) -> None:
    """Whether its module or its function."""
    application.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=f'sample = "{named}"'))
    with pytest.raises(SettingsInvalid) as caught:
        application.site().publish_sample("1")
    assert caught.value.on == "[model] sample"
