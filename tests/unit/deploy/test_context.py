"""The context of a release: what settings and variables become."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from deploy.clients.oci.credentials import Login
from deploy.context import ReleaseContext
from deploy.errors import (
    EngineUnavailable,
    NamespaceMissing,
    RegistryDenied,
    ReleaseUnknown,
    SettingsInvalid,
)
from deploy.settings.image import DEBIAN
from tests.fakes.application import PIPELINE, Application
from tests.fakes.azure.logins import SERVICE_PRINCIPAL
from tests.fakes.azure.stand_in import REGISTRY


def test_the_default_environment_is_used_without_a_name(application: Application) -> None:
    """The context then has the name of that environment."""
    assert ReleaseContext(application.folder).environment == "local"


def test_an_unknown_environment_is_refused(application: Application) -> None:
    """The error lists the environments that exist."""
    with pytest.raises(SettingsInvalid) as caught:
        application.context("nowhere")
    assert "local, other, staging, production" in caught.value.next


def test_environments_with_one_registry_mount_each_others_blobs(application: Application) -> None:
    """A blob that another repository has is mounted, not pushed."""
    local = application.context("local").repository
    other = application.context("other").repository
    assert (local.path, local.mount_sources) == ("classifier", ("other/classifier",))
    assert (other.path, other.mount_sources) == ("other/classifier", ("classifier",))
    assert application.context("staging").repository.mount_sources == ("other/classifier",)
    assert application.context("production").repository.mount_sources == ()


def test_images_are_named_by_registry_and_repository(application: Application) -> None:
    """The repository has the application's name if the settings name none."""
    assert application.context("staging").repository.name == "registry.example/classifier"
    assert application.context("production").repository.name == "far.example/live/classifier"


def test_variables_override_the_file(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context reads the environment of the process."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__PORT", "9999")
    assert application.target().url == "http://127.0.0.1:9999"


def test_images_are_for_the_engine_unless_the_settings_name_a_platform(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an engine it is this machine, on which one will be started."""
    application.engine.architecture = "arm64"
    assert application.context().platform == "linux/arm64"
    application.machine.running = False
    assert application.context().platform == "linux/amd64"
    monkeypatch.setenv("TWINSHIP_IMAGE__PLATFORM", "linux/s390x")
    assert application.context().platform == "linux/s390x"


# --- logins


def context_on_azure(
    application: Application, monkeypatch: pytest.MonkeyPatch, registry: str = REGISTRY
) -> ReleaseContext:
    """Return the context of an environment with a registry on Azure, and of an identity."""
    for name, value in SERVICE_PRINCIPAL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__OTHER__REGISTRY", registry)
    return application.context("other")


def log_in_to_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Write a Docker configuration with a login to a registry."""
    auth = base64.b64encode(b"ada:open-sesame").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def test_a_registry_on_azure_is_opened_by_the_identity(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It comes before the Docker configuration."""
    log_in_to_docker(tmp_path, monkeypatch, REGISTRY)
    login = context_on_azure(application, monkeypatch).find_login()
    assert login is not None
    assert login.user == "00000000-0000-0000-0000-000000000000"
    assert application.azure.accepts(login.password, REGISTRY)


def test_the_identity_is_not_asked_for_other_registries(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A release without Azure does not wait for it, and no token leaves it."""
    log_in_to_docker(tmp_path, monkeypatch, "registry.example")
    context = context_on_azure(application, monkeypatch, "registry.example")
    assert context.find_login() == Login("ada", "open-sesame")
    assert application.azure.asked == []


def test_docker_logs_in_where_the_identity_is_refused(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A person may be logged in to another company's cloud."""
    log_in_to_docker(tmp_path, monkeypatch, REGISTRY)
    application.azure.roles.clear()
    context = context_on_azure(application, monkeypatch)
    assert context.find_login() == Login("ada", "open-sesame")
    assert "the login of Docker is used" in caplog.text


def test_a_refused_identity_without_another_login_is_an_error(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names the role."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    application.azure.roles.clear()
    with pytest.raises(RegistryDenied) as caught:
        context_on_azure(application, monkeypatch).find_login()
    assert "AcrPush" in caught.value.next


def test_settings_name_secrets_in_a_key_vault(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of a variable."""
    context_on_azure(application, monkeypatch, "registry.example")
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__OTHER__USERNAME", "REGISTRY_USER")
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__OTHER__PASSWORD", "keyvault://safe/password")
    monkeypatch.setenv("REGISTRY_USER", "ada")
    login = application.context("other").find_login()
    assert login == Login("ada", "planted-vault-secret")


def test_a_store_in_azure_blob_is_opened_by_the_identity(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key has to be named, and is only read where it is."""
    monkeypatch.setenv("TWINSHIP_MODEL__STORE", "https://shop.blob.core.windows.net/models")
    assert application.context().store.location == "https://shop.blob.core.windows.net/models"
    monkeypatch.setenv("TWINSHIP_MODEL__ACCOUNT_KEY", "STORE_KEY")
    with pytest.raises(SettingsInvalid, match="STORE_KEY is not set"):
        assert application.context().store


@pytest.mark.parametrize("key", ["account_key", "sas"])
def test_a_key_of_a_store_in_place_of_its_name_is_not_shown(
    application: Application, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The error is printed to the log of a CI system."""
    monkeypatch.setenv("TWINSHIP_MODEL__STORE", "https://shop.blob.core.windows.net/models")
    monkeypatch.setenv(f"TWINSHIP_MODEL__{key.upper()}", "sv=1&sig=hunter2")
    with pytest.raises(SettingsInvalid, match=f"like the value of `{key}`") as caught:
        assert application.context().store
    assert "hunter2" not in f"{caught.value}{caught.value.on}{caught.value.next}"
    assert f"such as STORE_{key.upper()}, and not the {key} itself" in caught.value.next


def test_clusters_are_opened_with_the_identity(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It logs in to those on AKS, which are named in the place of a kubeconfig."""
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__STAGING__AKS", "pictures/shop")
    context = application.context("staging")
    context.inspect_target()
    assert application.machine.connections[-1] == ("aks:pictures/shop", "", "shop")
    assert application.machine.identities[-1] is context.azure


def test_settings_name_the_identity(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table [azure], which variables override."""
    monkeypatch.setenv("TWINSHIP_AZURE__TENANT", "tenant")
    monkeypatch.setenv("TWINSHIP_AZURE__MANAGED_IDENTITY", "true")
    account = application.context().azure.account
    assert (account.tenant, account.managed_identity) == ("tenant", True)


def context_with_login(application: Application) -> ReleaseContext:
    """Return the context of an environment whose settings name the variables of a login."""
    pipeline = PIPELINE.format(base=DEBIAN, sample="").replace(
        "[environments.other]\n",
        '[environments.other]\nusername = "REGISTRY_USER"\npassword = "REGISTRY_PASSWORD"\n',
    )
    application.write("pipeline.toml", pipeline)
    return application.context("other")


def test_a_login_is_read_from_the_variables_that_the_settings_name(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings hold the names of variables, and no secrets."""
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    login = context_with_login(application).find_login()
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


def test_a_missing_login_variable_is_named(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error does not show the value of the other variable."""
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    with pytest.raises(SettingsInvalid, match="REGISTRY_USER is not set") as caught:
        context_with_login(application).find_login()
    assert "secret" not in f"{caught.value} {caught.value.next}"


def test_the_docker_configuration_is_read_without_a_login(application: Application) -> None:
    """An empty configuration means that there is no login."""
    assert application.context().find_login() is None


def test_a_login_of_the_docker_configuration_is_used(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`docker login` writes it there."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(
        '{"auths": {"registry.example": {"auth": "YWRhOnNlY3JldA=="}}}', encoding="utf-8"
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    login = application.context().find_login()
    assert login is not None
    assert (login.user, login.password) == ("ada", "secret")


def test_the_login_belongs_to_the_repository_of_the_environment(
    released: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine does not send it to the host that a release of the history names."""
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    context = context_with_login(released)
    release = released.current().attempt.release
    own = release.model_copy(update={"repository": context.repository.name})
    assert context.find_release_login(own) == context.find_login()
    for repository in (release.repository, "evil.example/other/classifier", ""):
        other = release.model_copy(update={"repository": repository})
        with pytest.raises(ReleaseUnknown, match="another repository"):
            context.find_release_login(other)


def test_an_inspection_needs_no_login(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People who only look at an environment may not have the registry's password."""
    monkeypatch.delenv("REGISTRY_PASSWORD", raising=False)
    target = context_with_login(application).inspect_target()
    assert target.history() == ()
    assert target.replicas() == ()


@pytest.mark.parametrize("variable", ["REGISTRY_USER", "REGISTRY_PASSWORD"])
def test_an_incomplete_login_is_refused_before_anything_is_prepared(
    application: Application, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Otherwise a release would fail only after its build."""
    application.machine.running = False
    monkeypatch.setenv("REGISTRY_USER", "ada")
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    monkeypatch.delenv(variable)
    with pytest.raises(SettingsInvalid, match=f"{variable} is not set"):
        context_with_login(application).prepare_target()
    assert application.machine.actions == []


# --- clients


def test_an_inspection_installs_and_starts_nothing(application: Application) -> None:
    """Only a target that is prepared for a release starts an engine."""
    application.machine.running = False
    with pytest.raises(EngineUnavailable):
        application.context().inspect_target()
    assert application.machine.actions == []
    application.context().prepare_target()
    assert application.machine.actions == ["start the engine"]


def test_a_target_on_a_cluster_needs_no_engine(application: Application) -> None:
    """An engine is needed to build and check an image, and for nothing else."""
    application.machine.running = False
    context = application.context("staging")
    assert context.inspect_target().replicas() == ()
    assert context.prepare_target().replicas() == ()
    assert context.inspect_canary_target().replicas() == ()
    assert application.machine.actions == []


def test_a_missing_namespace_is_an_error(application: Application) -> None:
    """It is reported as such, and not as an environment without releases."""
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


def test_an_environment_on_an_engine_has_no_canaries_and_no_objects(
    application: Application,
) -> None:
    """The error names the setting to change."""
    context = application.context("local")
    for open_target in (context.inspect_canary_target, context.inspect_rendered_target):
        with pytest.raises(SettingsInvalid, match="environment on a cluster") as caught:
            open_target()
        assert caught.value.on == "[environments.local] target"
    assert application.machine.connections == []


def test_a_cluster_is_reached_as_the_settings_say(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubeconfig's path is relative to the application's folder, and all keys have defaults."""
    application.target("staging")
    for key, value in (
        ("KUBECONFIG", "keys/shop.yaml"),
        ("CONTEXT", "shop"),
        ("NAMESPACE", "live"),
    ):
        monkeypatch.setenv(f"TWINSHIP_ENVIRONMENTS__STAGING__{key}", value)
    application.machine.clusters["shop"] = application.cluster
    application.target("staging")
    assert application.machine.connections == [
        ("", "", "shop"),
        (str(application.folder / "keys/shop.yaml"), "shop", "live"),
    ]


def test_the_size_of_a_release_is_requested_once(
    staged: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A rollout needs it often, and would wait each time for a registry that does not answer."""
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "fresh"))
    asked: list[str] = []
    ask = staged.registry.get_manifest

    def record(repository: str, reference: str) -> bytes | None:
        asked.append(reference)
        return ask(repository, reference)

    monkeypatch.setattr(staged.registry, "get_manifest", record)
    target = staged.context("staging").inspect_rendered_target()
    release = target.history()[-1].attempt.release
    for _ in range(2):
        target.rendered(release, None)
    assert asked == [release.image.digest]


def test_only_a_local_registry_can_be_down(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry on another machine is expected to run."""
    assert application.context().repository.is_up()
    monkeypatch.setenv("TWINSHIP_ENVIRONMENTS__LOCAL__REGISTRY", "127.0.0.1:5000")
    assert not application.context().repository.is_up()
    application.machine.registries.add("127.0.0.1:5000")
    assert application.context().repository.is_up()


def test_ports_of_a_remote_engine_are_not_checked_here(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that is taken on this machine can be free on the other one."""
    application.machine.listening.add(8080)
    monkeypatch.setattr(application.engine, "is_local", False)
    with application.context().prepare_target().lock():
        pass
