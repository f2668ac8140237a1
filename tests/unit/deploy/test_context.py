"""An application and an environment: what settings and variables become."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.context import ReleaseContext
from deploy.errors import (
    EngineUnavailable,
    ModelUnknown,
    NamespaceMissing,
    SampleUnavailable,
    SettingsInvalid,
)
from deploy.model.versions import find_latest_version
from deploy.settings.reading import DEBIAN
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
def sampled(application: Application, monkeypatch: pytest.MonkeyPatch) -> Application:
    """An application without a published model, but with a sample model in a module of its own."""
    application.store.held.clear()
    name = f"sample_{application.folder.name}"
    application.write(
        "pipeline.toml", PIPELINE.format(base=DEBIAN, sample=f'sample = "{name}:write"')
    )
    application.write(f"{name}.py", SAMPLE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return application


def test_without_a_name_the_default_environment_is_meant(application: Application) -> None:
    """And it is called by its name from then on."""
    assert (
        ReleaseContext(application.folder, "", application.architecture.host).environment == "local"
    )


def test_an_environment_that_is_not_there_is_said(application: Application) -> None:
    """With those that are."""
    with pytest.raises(SettingsInvalid) as caught:
        application.context("nowhere")
    assert "local, other, staging, production" in caught.value.next


def test_environments_of_one_registry_know_of_each_other(application: Application) -> None:
    """So that blobs can be taken over instead of sent."""
    local = application.context("local")
    other = application.context("other")
    assert (local.repository, local.elsewhere) == ("classifier", ("elsewhere/classifier",))
    assert (other.repository, other.elsewhere) == ("elsewhere/classifier", ("classifier",))
    assert application.context("staging").elsewhere == ("elsewhere/classifier",)
    assert application.context("production").elsewhere == ()


def test_images_are_named_by_registry_and_repository(application: Application) -> None:
    """The application's name is the repository where the settings name none."""
    assert application.context("staging").images == "registry.example/classifier"
    assert application.context("production").images == "far.example/live/classifier"


def test_variables_override_the_file(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the settings' own tests say; here it is the process's environment that is read."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__PORT", "9999")
    assert application.context().view.url == "http://127.0.0.1:9999"


# --- logins


def with_login(application: Application) -> ReleaseContext:
    """An environment that names the variables of its login."""
    pipeline = PIPELINE.format(base=DEBIAN, sample="").replace(
        "[environments.other]\n",
        '[environments.other]\nusername = "REGISTRY_USER"\npassword = "REGISTRY_PASSWORD"\n',
    )
    application.write("pipeline.toml", pipeline)
    return application.context("other")


def test_a_login_is_read_from_the_variables_that_the_settings_name(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings hold names, never secrets."""
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    login = with_login(application).login
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


def test_a_login_whose_variable_is_not_set_is_said_by_the_variables_name(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the value of the other is not."""
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    with pytest.raises(SettingsInvalid, match="REGISTRY_USER is not set") as caught:
        _ = with_login(application).login
    assert "secret" not in f"{caught.value} {caught.value.next}"


def test_without_a_login_the_docker_configuration_is_asked(application: Application) -> None:
    """An empty one means no login."""
    assert application.context().login is None


def test_a_login_of_the_docker_configuration_is_used(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `docker login` has written it."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(
        '{"auths": {"registry.example": {"auth": "YWRhOnNlY3JldA=="}}}', encoding="utf-8"
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    login = application.context().login
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


def test_looking_needs_no_login(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is woken at night need not have the registry's password."""
    monkeypatch.delenv("REGISTRY_PASSWORD", raising=False)
    site = with_login(application)
    assert site.view.history() == ()
    assert site.view.replicas() == ()


@pytest.mark.parametrize("variable", ["REGISTRY_USER", "REGISTRY_PASSWORD"])
def test_a_login_that_is_not_whole_is_told_before_anything_is_made_ready(
    application: Application, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A release would find it out when it has built."""
    application.architecture.running = False
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    monkeypatch.delenv(variable)
    with pytest.raises(SettingsInvalid, match=f"{variable} is not set"):
        _ = with_login(application).target
    assert application.architecture.happened == []


# --- clients


def test_looking_installs_and_starts_nothing(application: Application) -> None:
    """The view of an environment needs an engine that is there; a target makes one."""
    application.architecture.running = False
    with pytest.raises(EngineUnavailable):
        _ = application.context().view
    assert application.architecture.happened == []
    _ = application.context().target
    assert application.architecture.happened == ["start the engine"]


def test_looking_at_a_cluster_needs_no_engine(application: Application) -> None:
    """Nor does releasing to it, once the image is made: it is one and the same."""
    application.architecture.running = False
    site = application.context("staging")
    assert site.view.replicas() == ()
    assert site.view is site.target is site.on_cluster
    assert application.architecture.happened == []


def test_a_cluster_without_the_namespace_is_no_place(application: Application) -> None:
    """Neither to release to nor to look at; that nothing was released there would say too little."""
    application.cluster.missing = True
    site = application.context("staging")
    for place in ("target", "view", "on_cluster"):
        with pytest.raises(NamespaceMissing):
            getattr(site, place)


def test_an_environment_on_an_engine_is_on_no_cluster(application: Application) -> None:
    """What only a cluster can do is refused by the name of the setting."""
    with pytest.raises(SettingsInvalid, match="environment on a cluster") as caught:
        _ = application.context("local").on_cluster
    assert caught.value.on == "[environments.local] target"
    assert application.architecture.reached == []


def test_a_cluster_is_reached_as_the_settings_say(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubeconfig is found from the application's folder; nothing but the namespace is asked for where nothing else is named."""
    _ = application.context("staging").cluster
    for key, value in (
        ("KUBECONFIG", "keys/shop.yaml"),
        ("CONTEXT", "shop"),
        ("NAMESPACE", "live"),
    ):
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__STAGING__{key}", value)
    application.architecture.clusters["shop"] = application.cluster
    _ = application.context("staging").cluster
    assert application.architecture.reached == [
        ("", "", "shop"),
        (str(application.folder / "keys/shop.yaml"), "shop", "live"),
    ]


def test_the_size_of_a_release_is_asked_for_once(
    staged: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though a rollout needs it again and again; a registry that is away would be waited for each time."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    asked: list[str] = []
    ask = staged.registry.manifest

    def noted(repository: str, reference: str) -> bytes | None:
        asked.append(reference)
        return ask(repository, reference)

    monkeypatch.setattr(staged.registry, "manifest", noted)
    target = staged.context("staging").on_cluster
    release = target.history()[-1].attempt.release
    for _ in range(2):
        target.rendered(release, None)
    assert asked == [release.image.digest]


def test_a_registry_elsewhere_is_asked_without_looking_first(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one on this machine may be not yet started."""
    assert application.context().registry_is_up
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY", "127.0.0.1:5000")
    assert not application.context().registry_is_up
    application.architecture.registries.add("127.0.0.1:5000")
    assert application.context().registry_is_up


def test_ports_of_an_engine_elsewhere_are_not_looked_for_here(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that is taken on this machine may be free on that one."""
    application.architecture.listening.add(8080)
    monkeypatch.setattr(application.engine, "local", False)
    with application.context().target.lock():
        pass


# --- the sample


def test_an_empty_store_gets_the_samples_first_version(sampled: Application) -> None:
    """So that a first release needs no model of one's own."""
    found = sampled.context().resolve("latest")
    assert (found.name, found.version) == ("digits", "1")
    assert find_latest_version("digits", sampled.store) == "1"


def test_the_samples_second_version_is_published_when_asked_for(sampled: Application) -> None:
    """And is the latest from then on."""
    sampled.context().resolve("latest")
    sampled.context().publish_sample("2")
    assert sampled.context().resolve("latest").version == "2"


def test_a_store_with_models_is_left_alone(sampled: Application) -> None:
    """A version that is not there is an error, not a reason to make the sample."""
    sampled.publish("7")
    before = dict(sampled.store.held)
    with pytest.raises(ModelUnknown):
        sampled.context().resolve("1")
    assert sampled.store.held == before


@pytest.mark.parametrize("version", ["2", "3"])
def test_other_versions_than_the_first_do_not_come_by_themselves(
    sampled: Application, version: str
) -> None:
    """Who asks for one by number gets that one, or an error."""
    with pytest.raises(ModelUnknown):
        sampled.context().resolve(version)
    assert sampled.store.held == {}


def test_a_sample_that_cannot_be_made_is_said(sampled: Application) -> None:
    """With what its maker said of it, and nothing is published."""
    with pytest.raises(SampleUnavailable, match="could not be made") as caught:
        sampled.context().publish_sample("3")
    assert "there is no version 3" in caught.value.detail
    assert sampled.store.held == {}


def test_an_application_without_a_sample_says_how_to_publish(application: Application) -> None:
    """An empty store then stays empty."""
    application.store.held.clear()
    with pytest.raises(ModelUnknown):
        application.context().resolve("latest")
    with pytest.raises(SampleUnavailable) as caught:
        application.context().publish_sample("1")
    assert "model.publish" in caught.value.next


@pytest.mark.parametrize("named", ["nowhere:write", "json:absent", "json"])
def test_a_sample_that_is_not_there_is_a_mistake_in_the_settings(
    application: Application, named: str
) -> None:
    """Whether its module or its function."""
    application.write("pipeline.toml", PIPELINE.format(base=DEBIAN, sample=f'sample = "{named}"'))
    with pytest.raises(SettingsInvalid) as caught:
        application.context().publish_sample("1")
    assert caught.value.on == "[model] sample"
