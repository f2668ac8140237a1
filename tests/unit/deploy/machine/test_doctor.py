"""The check of what a release needs on a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import (
    ClusterUnreachable,
)
from deploy.machine.doctor import Check, check_machine
from deploy.machine.host import cache_folder
from deploy.settings.reading import DEBIAN, Settings
from tests.fakes.application import PIPELINE
from tests.fakes.engine import FakeEngine
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.machine import MemoryMachine

LOCAL = '[environments.here]\nregistry = "127.0.0.1:5000"\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an environment whose registry is on this machine, `here`, and others whose is not, `local` and `staging`."""
    (tmp_path / "pipeline.toml").write_text(
        PIPELINE.format(base=DEBIAN, sample="") + LOCAL, encoding="utf-8"
    )
    return Settings.read(tmp_path, {})


@pytest.fixture
def machine() -> MemoryMachine:
    """A fresh Debian, and its administrator."""
    return MemoryMachine()


def with_engine() -> MemoryMachine:
    """A machine on which an engine runs that holds the base image."""
    engine = FakeEngine()
    engine.hold_image(DEBIAN, b"debian")
    return MemoryMachine(engine)


def found(machine: MemoryMachine, settings: Settings, environment: str = "here") -> dict[str, str]:
    """The doctor's cures by part."""
    return {check.part: check.cure for check in check_machine(settings, environment, machine.host)}


def test_the_doctor_finds_nothing_missing_where_all_is_there(settings: Settings) -> None:
    """Engine, base image and registry are told with what was found."""
    machine = with_engine()
    machine.registries.add("127.0.0.1:5000")
    checks = {check.part: check for check in check_machine(settings, "here", machine.host)}
    assert all(check.ok for check in checks.values() if check.part != "disk")
    assert checks["container engine"].found == "Docker 0.0"
    assert checks["base image"].found == "debian:trixie-slim"
    assert checks["registry"].found == "127.0.0.1:5000"


def test_the_doctor_names_what_up_would_do(machine: MemoryMachine, settings: Settings) -> None:
    """On a machine where it can be done."""
    cures = found(machine, settings)
    assert cures["container engine"] == "`invoke up` installs and starts it"
    assert "invoke up" in cures["base image"]
    assert cures["registry"] == "`invoke up` starts one on 127.0.0.1:5000"


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
    assert found(machine, settings)["container engine"] == "start Docker, or run `invoke up`"


def test_the_doctor_tells_an_engine_that_is_denied_from_none(settings: Settings) -> None:
    """The cure is to be let in, not to install another."""
    machine = with_engine()
    machine.member = False
    assert found(machine, settings)["container engine"] == "join its group"


def test_the_doctor_does_not_offer_to_start_a_registry_elsewhere(settings: Settings) -> None:
    """It has to be reached, which is a matter of the network."""
    assert "can be reached" in found(with_engine(), settings, "local")["registry"]


def test_the_doctor_changes_nothing(machine: MemoryMachine, settings: Settings) -> None:
    """Neither on a fresh machine nor on one where only a registry is missing."""
    check_machine(settings, "here", machine.host)
    other = with_engine()
    before = other.engine.state()
    check_machine(settings, "here", other.host)
    assert machine.actions == other.actions == []
    assert other.engine.state() == before
    assert not cache_folder().exists()


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster."""
    return FakeCluster()


def cluster_check(settings: Settings, cluster: FakeCluster | None = None) -> Check:
    """What the doctor finds on a machine that knows this cluster, or none."""
    machine = with_engine()
    machine.clusters |= {"": cluster} if cluster else {}
    (found,) = (
        check
        for check in check_machine(settings, "staging", machine.host)
        if check.part == "cluster"
    )
    return found


def test_the_doctor_tells_a_cluster_by_its_version(
    settings: Settings, cluster: FakeCluster
) -> None:
    """And the namespace that a release goes to; nothing is written there."""
    found = cluster_check(settings, cluster)
    assert (found.ok, found.found) == (True, f"Kubernetes {cluster.version()}, namespace shop")
    assert not [asked for asked in cluster.asked if asked[0] not in ("get", "list")]


def test_the_doctor_tells_that_there_is_no_cluster(settings: Settings) -> None:
    """With what the error says, and the cure that it names."""
    found = cluster_check(settings)
    assert (found.ok, found.found, found.cure) == (
        False,
        "",
        "there is no context '': name one that there is",
    )


def test_the_doctor_tells_a_cluster_that_does_not_answer(
    settings: Settings, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever question it leaves open."""
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


def test_the_doctor_tells_a_namespace_that_is_missing(
    settings: Settings, cluster: FakeCluster
) -> None:
    """With the command that makes it."""
    cluster.missing = True
    found = cluster_check(settings, cluster)
    assert (found.ok, found.cure) == (False, "there is no namespace shop: make it, or name another")


def test_the_doctor_does_not_take_a_closed_namespace_for_a_missing_one(
    settings: Settings, cluster: FakeCluster
) -> None:
    """Where the account may not look, that is what is said."""
    cluster.missing = True
    cluster.denied = {("get", "ConfigMap")}
    assert (
        cluster_check(settings, cluster).cure == "this account may not get ConfigMap: add the rule"
    )
    cluster.denied = {("get", "ConfigMap"), ("create", "Lease")}
    assert cluster_check(settings, cluster).cure.startswith(
        "this account may not create Lease in shop"
    )


def test_the_doctor_tells_what_an_account_may_not_do(
    settings: Settings, cluster: FakeCluster
) -> None:
    """With the namespace, and the file that has the rules to add."""
    cluster.denied = {("create", "Lease"), ("create", "Service")}
    cure = cluster_check(settings, cluster).cure
    assert (
        cure == "this account may not create Lease, Service in shop; see deploy/manifests/rbac.yaml"
    )


def test_the_doctor_reaches_a_cluster_as_a_release_does(settings: Settings, tmp_path: Path) -> None:
    """A kubeconfig is found from the application's folder."""
    staging = {
        **settings.environment("staging").model_dump(),
        "kubeconfig": "keys/shop.yaml",
        "context": "shop",
    }
    changed = Settings.model_validate(
        {**settings.model_dump(), "environments": {"staging": staging}}
    )
    machine = with_engine()
    check_machine(changed, "staging", machine.host, tmp_path)
    assert machine.reached == [(str(tmp_path / "keys/shop.yaml"), "shop", "shop")]


def test_the_doctor_asks_no_cluster_about_an_environment_on_an_engine(settings: Settings) -> None:
    """It has nothing to do with one."""
    machine = with_engine()
    assert "cluster" not in found(machine, settings)
    assert machine.reached == []
