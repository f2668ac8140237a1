"""An application and an environment: what settings and variables become."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.context import ReleaseContext
from deploy.errors import (
    EngineUnavailable,
    NamespaceMissing,
    SettingsInvalid,
)
from deploy.settings.image import DEBIAN
from tests.fakes.application import PIPELINE, Application


def test_without_a_name_the_default_environment_is_meant(application: Application) -> None:
    """And it is called by its name from then on."""
    assert ReleaseContext(application.folder).environment == "local"


def test_an_environment_that_is_not_there_is_said(application: Application) -> None:
    """With those that are."""
    with pytest.raises(SettingsInvalid) as caught:
        application.context("nowhere")
    assert "local, other, staging, production" in caught.value.next


def test_environments_of_one_registry_know_of_each_other(application: Application) -> None:
    """So that blobs can be taken over instead of sent."""
    local = application.context("local").repository
    other = application.context("other").repository
    assert (local.path, local.mount_sources) == ("classifier", ("elsewhere/classifier",))
    assert (other.path, other.mount_sources) == ("elsewhere/classifier", ("classifier",))
    assert application.context("staging").repository.mount_sources == ("elsewhere/classifier",)
    assert application.context("production").repository.mount_sources == ()


def test_images_are_named_by_registry_and_repository(application: Application) -> None:
    """The application's name is the repository where the settings name none."""
    assert application.context("staging").repository.name == "registry.example/classifier"
    assert application.context("production").repository.name == "far.example/live/classifier"


def test_variables_override_the_file(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the settings' own tests say; here it is the process's environment that is read."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__PORT", "9999")
    assert application.target().url == "http://127.0.0.1:9999"


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
    login = with_login(application).find_login()
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


def test_a_login_whose_variable_is_not_set_is_said_by_the_variables_name(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the value of the other is not."""
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    with pytest.raises(SettingsInvalid, match="REGISTRY_USER is not set") as caught:
        with_login(application).find_login()
    assert "secret" not in f"{caught.value} {caught.value.next}"


def test_without_a_login_the_docker_configuration_is_asked(application: Application) -> None:
    """An empty one means no login."""
    assert application.context().find_login() is None


def test_a_login_of_the_docker_configuration_is_used(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `docker login` has written it."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(
        '{"auths": {"registry.example": {"auth": "YWRhOnNlY3JldA=="}}}', encoding="utf-8"
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    login = application.context().find_login()
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


def test_looking_needs_no_login(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is woken at night need not have the registry's password."""
    monkeypatch.delenv("REGISTRY_PASSWORD", raising=False)
    target = with_login(application).inspect_target()
    assert target.history() == ()
    assert target.replicas() == ()


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
        with_login(application).prepare_target()
    assert application.architecture.happened == []


# --- clients


def test_looking_installs_and_starts_nothing(application: Application) -> None:
    """The view of an environment needs an engine that is there; a target makes one."""
    application.architecture.running = False
    with pytest.raises(EngineUnavailable):
        application.context().inspect_target()
    assert application.architecture.happened == []
    application.context().prepare_target()
    assert application.architecture.happened == ["start the engine"]


def test_looking_at_a_cluster_needs_no_engine(application: Application) -> None:
    """Nor does releasing to it, once the image is made: it is one and the same."""
    application.architecture.running = False
    context = application.context("staging")
    assert context.inspect_target().replicas() == ()
    assert context.prepare_target().replicas() == ()
    assert context.inspect_canary_target().replicas() == ()
    assert application.architecture.happened == []


def test_a_cluster_without_the_namespace_is_no_place(application: Application) -> None:
    """Neither to release to nor to look at; that nothing was released there would say too little."""
    application.cluster.missing = True
    context = application.context("staging")
    for open_target in (
        context.prepare_target,
        context.inspect_target,
        context.inspect_canary_target,
        context.inspect_rendered_target,
    ):
        with pytest.raises(NamespaceMissing):
            open_target()


def test_an_environment_on_an_engine_is_on_no_cluster(application: Application) -> None:
    """What only a cluster can do is refused by the name of the setting."""
    context = application.context("local")
    for open_target in (context.inspect_canary_target, context.inspect_rendered_target):
        with pytest.raises(SettingsInvalid, match="environment on a cluster") as caught:
            open_target()
        assert caught.value.on == "[environments.local] target"
    assert application.architecture.reached == []


def test_a_cluster_is_reached_as_the_settings_say(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubeconfig is found from the application's folder; nothing but the namespace is asked for where nothing else is named."""
    application.target("staging")
    for key, value in (
        ("KUBECONFIG", "keys/shop.yaml"),
        ("CONTEXT", "shop"),
        ("NAMESPACE", "live"),
    ):
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__STAGING__{key}", value)
    application.architecture.clusters["shop"] = application.cluster
    application.target("staging")
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
    target = staged.context("staging").inspect_rendered_target()
    release = target.history()[-1].attempt.release
    for _ in range(2):
        target.rendered(release, None)
    assert asked == [release.image.digest]


def test_a_registry_elsewhere_is_asked_without_looking_first(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one on this machine may be not yet started."""
    assert application.context().repository.is_up()
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY", "127.0.0.1:5000")
    assert not application.context().repository.is_up()
    application.architecture.registries.add("127.0.0.1:5000")
    assert application.context().repository.is_up()


def test_ports_of_an_engine_elsewhere_are_not_looked_for_here(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that is taken on this machine may be free on that one."""
    application.architecture.listening.add(8080)
    monkeypatch.setattr(application.engine, "local", False)
    with application.context().prepare_target().lock():
        pass
