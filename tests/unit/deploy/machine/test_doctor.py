"""The check of what a release needs on a machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.clients.docker.address import EngineAddress
from deploy.clients.docker.protocol import Engine
from deploy.errors import ClusterUnreachable, SettingsInvalid
from deploy.machine.doctor import Check, check_machine
from deploy.machine.host import NAME_CACHE, cache_folder
from deploy.settings.reading import Settings
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.machine import MemoryMachine, machine_with_engine


def cures(machine: MemoryMachine, settings: Settings, environment: str = "here") -> dict[str, str]:
    """Return the doctor's cures by part."""
    return {check.part: check.cure for check in check_machine(settings, environment, machine.host)}


def test_the_doctor_finds_all_parts(settings: Settings) -> None:
    """Engine, base image and registry come with what was found."""
    machine = machine_with_engine()
    machine.registries.add("127.0.0.1:5000")
    checks = {check.part: check for check in check_machine(settings, "here", machine.host)}
    assert all(check.ok for check in checks.values() if check.part != "disk")
    assert checks["container engine"].found == "Docker 0.0"
    assert checks["base image"].found == "debian:trixie-slim"
    assert checks["registry"].found == "127.0.0.1:5000"


def test_the_doctor_names_what_up_would_do(machine: MemoryMachine, settings: Settings) -> None:
    """On this machine, `up` can do it."""
    by_part = cures(machine, settings)
    assert by_part["container engine"] == "`invoke up` installs and starts it"
    assert "invoke up" in by_part["base image"]
    assert by_part["registry"] == "`invoke up` starts one on 127.0.0.1:5000"


@pytest.mark.parametrize(("debian", "root"), [(False, True), (True, False)])
def test_the_doctor_promises_nothing_that_cannot_be_done(
    machine: MemoryMachine,
    settings: Settings,
    debian: bool,
    root: bool,
) -> None:
    """Where nothing can be installed, the engine's own cure is named."""
    machine.debian = debian
    machine.root = root
    assert cures(machine, settings)["container engine"] == "start Docker, or run `invoke up`"


def test_an_engine_that_the_user_chose_is_not_replaced(
    machine: MemoryMachine, settings: Settings
) -> None:
    """`up` would not install another one."""
    far = EngineAddress("unix:///far.sock", "DOCKER_HOST")
    host = replace(machine.host, find_engine_address=lambda: far)
    found = {check.part: check.cure for check in check_machine(settings, "here", host)}
    assert found["container engine"] == "start Docker, or run `invoke up`"


def test_an_unknown_context_is_a_missing_engine(settings: Settings) -> None:
    """All other parts are checked as well."""

    def unknown() -> Engine:
        raise SettingsInvalid("there is no context 'gone'", on="DOCKER_CONTEXT", next="unset it")

    host = replace(MemoryMachine().host, connect_engine=unknown)
    found = {check.part: check.cure for check in check_machine(settings, "here", host)}
    assert found["container engine"] == "there is no context 'gone': unset it"
    assert "registry" in found


def test_a_user_without_a_home_folder_is_told_to_name_a_cache(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is one who may not write to the home folder."""
    monkeypatch.delenv("TWINSHIP_HOME")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert NAME_CACHE in cures(machine_with_engine(), settings)["disk"]

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert cures(machine_with_engine(), settings)["disk"] == NAME_CACHE


def test_a_denied_engine_is_not_a_missing_one(settings: Settings) -> None:
    """The cure is to join the group, not to install another engine."""
    machine = machine_with_engine()
    machine.member = False
    assert cures(machine, settings)["container engine"] == "join its group"


def test_a_remote_registry_is_not_offered_to_be_started(settings: Settings) -> None:
    """It has to be reachable by the network."""
    expected = "registry.example: the registry cannot be reached; start it"
    assert cures(machine_with_engine(), settings, "local")["registry"] == expected


def test_the_doctor_changes_nothing(machine: MemoryMachine, settings: Settings) -> None:
    """A new machine stays new, and a missing registry stays missing."""
    check_machine(settings, "here", machine.host)
    other = machine_with_engine()
    before = other.engine.state()
    check_machine(settings, "here", other.host)
    assert machine.actions == other.actions == []
    assert other.engine.state() == before
    assert not cache_folder().exists()


@pytest.fixture
def cluster() -> FakeCluster:
    """Return a cluster."""
    return FakeCluster()


def cluster_check(settings: Settings, cluster: FakeCluster | None = None) -> Check:
    """Return the check of a cluster, on a machine that knows it, or none."""
    machine = machine_with_engine()
    machine.clusters |= {"": cluster} if cluster else {}
    (check,) = (
        check
        for check in check_machine(settings, "staging", machine.host)
        if check.part == "cluster"
    )
    return check


def test_a_cluster_is_found_with_its_version_and_namespace(
    settings: Settings, cluster: FakeCluster
) -> None:
    """Nothing is written there."""
    check = cluster_check(settings, cluster)
    assert (check.ok, check.found) == (True, f"Kubernetes {cluster.version()}, namespace shop")
    assert not [asked for asked in cluster.requests if asked[0] not in ("get", "list")]


def test_a_missing_context_is_reported_with_its_cure(settings: Settings) -> None:
    """Both come from the error."""
    check = cluster_check(settings)
    assert (check.ok, check.found, check.cure) == (
        False,
        "",
        "there is no context '': name one that there is",
    )


def test_a_cluster_that_does_not_answer_is_reported(
    settings: Settings, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may fail at any of the requests."""
    away = ClusterUnreachable(
        "the API server does not answer", on="memory", next="see whether the cluster runs"
    )

    def refuse(*_: object) -> bool:
        raise away

    for question in ("version", "is_allowed", "require_access"):
        with monkeypatch.context() as patched:
            patched.setattr(cluster, question, refuse)
            assert (
                cluster_check(settings, cluster).cure
                == "the API server does not answer: see whether the cluster runs"
            )


def test_a_missing_namespace_is_reported(settings: Settings, cluster: FakeCluster) -> None:
    """The cure creates it."""
    cluster.missing = True
    check = cluster_check(settings, cluster)
    assert (check.ok, check.cure) == (
        False,
        "there is no namespace shop: create it, or name another",
    )


def test_a_forbidden_namespace_is_not_a_missing_one(
    settings: Settings, cluster: FakeCluster
) -> None:
    """The missing permission is reported."""
    cluster.missing = True
    cluster.forbidden = {("get", "ConfigMap")}
    assert (
        cluster_check(settings, cluster).cure == "this account may not get ConfigMap: add the rule"
    )
    cluster.forbidden = {("get", "ConfigMap"), ("create", "Lease")}
    assert cluster_check(settings, cluster).cure.startswith(
        "this account may not create Lease in shop"
    )


def test_missing_permissions_are_reported(settings: Settings, cluster: FakeCluster) -> None:
    """The namespace is named, and the file that has the rules to add."""
    cluster.forbidden = {("create", "Lease"), ("create", "Service")}
    cure = cluster_check(settings, cluster).cure
    assert (
        cure == "this account may not create Lease, Service in shop; see deploy/manifests/rbac.yaml"
    )


def test_the_kubeconfig_is_relative_to_the_applications_folder(
    settings: Settings, tmp_path: Path
) -> None:
    """A release finds it in the same way."""
    staging = {
        **settings.environment("staging").model_dump(),
        "kubeconfig": "keys/shop.yaml",
        "context": "shop",
    }
    changed = Settings.model_validate(
        {**settings.model_dump(), "environments": {"staging": staging}}
    )
    machine = machine_with_engine()
    check_machine(changed, "staging", machine.host, tmp_path)
    assert machine.connections == [(str(tmp_path / "keys/shop.yaml"), "shop", "shop")]


def test_no_cluster_is_checked_for_a_docker_host(settings: Settings) -> None:
    """The environment does not use one."""
    machine = machine_with_engine()
    assert "cluster" not in cures(machine, settings)
    assert machine.connections == []


# --- secrets of the application


def with_secrets(settings: Settings, environment: str, **names: str) -> Settings:
    """Return settings with the names of secrets in an environment."""
    changed = {**settings.environment(environment).model_dump(), "secrets": names}
    return Settings.model_validate(
        {**settings.model_dump(), "environments": {environment: changed}}
    )


def test_secrets_that_are_set_are_found_by_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in a key vault are checked where the login to Azure is."""
    monkeypatch.setenv("KEY", "planted")
    changed = with_secrets(settings, "here", API_KEY="KEY", OTHER="keyvault://safe/other")
    checks = check_machine(changed, "here", machine_with_engine().host)
    assert [check for check in checks if check.part == "secrets"] == [Check("secrets", "API_KEY")]
    assert "planted" not in repr(checks)


def test_a_secret_that_is_not_set_is_reported(settings: Settings) -> None:
    """The cure names its variable."""
    changed = with_secrets(settings, "here", API_KEY="KEY")
    assert cures(machine_with_engine(), changed)["secrets"] == (
        "the environment variable KEY is not set: set KEY"
    )


def test_an_environment_without_secrets_has_no_such_check(settings: Settings) -> None:
    """Nor has one whose secrets are all in key vaults."""
    assert "secrets" not in cures(machine_with_engine(), settings)
    changed = with_secrets(settings, "here", API_KEY="keyvault://safe/key")
    assert "secrets" not in cures(machine_with_engine(), changed)


def test_the_right_to_create_secrets_is_needed_for_secrets_alone(
    settings: Settings, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older role is enough for an environment without them."""
    cluster.forbidden = {("create", "Secret")}
    assert cluster_check(settings, cluster).ok
    monkeypatch.setenv("KEY", "planted")
    cure = cluster_check(with_secrets(settings, "staging", API_KEY="KEY"), cluster).cure
    assert cure == "this account may not create Secret in shop; see deploy/manifests/rbac.yaml"
