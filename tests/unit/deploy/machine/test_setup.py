"""What a release needs on a machine: found, made, started, or named with the command that brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import (
    ClusterUnreachable,
    DiskFull,
    EngineDenied,
    EngineUnavailable,
    PartMissing,
    PortTaken,
)
from deploy.machine import services, setup
from deploy.settings.reading import DEBIAN, Settings
from tests.fakes.application import PIPELINE, Application
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


# --- the engine


def test_an_engine_that_answers_is_used_as_it_is() -> None:
    """Nothing is installed or started."""
    machine = with_engine()
    assert setup.ensure_engine(machine.host) is machine.engine
    assert machine.happened == []


def test_on_a_fresh_debian_the_engine_is_installed_and_started(machine: MemoryMachine) -> None:
    """Debian's own package, and then its daemon."""
    assert setup.ensure_engine(machine.host) is machine.engine
    assert machine.happened == ["install docker.io", "start the engine"]


def test_an_engine_that_is_installed_is_only_started(machine: MemoryMachine) -> None:
    """A machine after a reboot, for example."""
    machine.programs.add("dockerd")
    setup.ensure_engine(machine.host)
    assert machine.happened == ["start the engine"]


def test_where_nothing_can_be_installed_the_missing_engine_is_named(machine: MemoryMachine) -> None:
    """On another system than Debian, the error of the engine stands, with its cure."""
    machine.debian = False
    with pytest.raises(EngineUnavailable):
        setup.ensure_engine(machine.host)
    assert machine.happened == []


def test_without_the_administrator_the_command_to_install_is_named(machine: MemoryMachine) -> None:
    """Whoever may not install is told what to ask for."""
    machine.root = False
    with pytest.raises(PartMissing) as caught:
        setup.ensure_engine(machine.host)
    assert "apt-get install docker.io" in caught.value.next


def test_an_engine_that_was_named_and_is_not_there_is_not_replaced(
    machine: MemoryMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sets DOCKER_HOST means that engine and no other."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2376")
    with pytest.raises(EngineUnavailable):
        setup.ensure_engine(machine.host)
    assert machine.happened == []


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> MemoryMachine:
    """A machine whose engine this user may not use."""
    machine = with_engine()
    machine.member = False
    machine.programs.add("sg")
    monkeypatch.setenv("TWINSHIP_GROUP_CHANGED", "", prepend=None)
    monkeypatch.delenv("TWINSHIP_GROUP_CHANGED")
    return machine


def test_a_user_who_can_be_made_a_member_goes_on_as_one(denied: MemoryMachine) -> None:
    """The same command is run again in the engine's group, once."""
    for _ in range(2):
        with pytest.raises(EngineDenied):
            setup.ensure_engine(denied.host)
    assert denied.happened == ["join the group", "start again as a member"]


def test_a_user_who_cannot_be_made_a_member_is_told_so(denied: MemoryMachine) -> None:
    """Nothing is installed or started: the engine is there."""
    denied.root = False
    with pytest.raises(EngineDenied):
        setup.ensure_engine(denied.host)
    assert denied.happened == []


# --- up and down


def test_up_makes_all_that_a_release_needs(machine: MemoryMachine, settings: Settings) -> None:
    """The engine, the image of the proxy, and a registry where the environment's is on this machine."""
    setup.up(settings, "here", machine.host)
    assert machine.registry_answers("127.0.0.1:5000")
    assert any(name.startswith("twinship/parts:") for name in machine.engine.names)
    assert machine.happened == [
        "install docker.io",
        "start the engine",
        "install mmdebstrap",
        "make trixie",
    ]


def test_up_may_be_repeated(machine: MemoryMachine, settings: Settings) -> None:
    """What is there is left as it is."""
    setup.up(settings, "here", machine.host)
    before = machine.engine.state()
    happened = list(machine.happened)
    setup.up(settings, "here", machine.host)
    assert (machine.engine.state(), machine.happened) == (before, happened)


def test_up_starts_no_registry_for_an_environment_elsewhere(
    machine: MemoryMachine, settings: Settings
) -> None:
    """A registry in the network is nobody's to start here."""
    setup.up(settings, "local", machine.host)
    assert machine.engine.containers({}) == []


def test_up_makes_no_proxy_for_a_cluster(machine: MemoryMachine, settings: Settings) -> None:
    """Only the engine, on which images are built and tried, and a registry of this machine."""
    setup.up(settings, "staging", machine.host)
    assert machine.happened == ["install docker.io", "start the engine"]
    staging = {**settings.environment("staging").model_dump(), "registry": "127.0.0.1:5000"}
    setup.up(
        Settings.model_validate({**settings.model_dump(), "environments": {"staging": staging}}),
        "staging",
        machine.host,
    )
    assert machine.registry_answers("127.0.0.1:5000")


def test_a_registrys_port_that_is_taken_is_said(settings: Settings) -> None:
    """Something that is no registry listens where one is to be started."""
    machine = with_engine()
    machine.listening.add(5000)
    with pytest.raises(PortTaken):
        setup.up(settings, "here", machine.host)
    assert machine.engine.containers({}) == []


def test_a_registry_that_was_stopped_is_started_with_what_it_holds(settings: Settings) -> None:
    """It is the same container, on the same volume."""
    machine = with_engine()
    setup.up(settings, "here", machine.host)
    before = machine.engine.containers({services.LABEL: "registry"})
    machine.engine.keep_stopped(services.REGISTRY)
    machine.engine.stop(services.REGISTRY, 1)
    setup.up(settings, "here", machine.host)
    assert machine.engine.containers({services.LABEL: "registry"})[0].id == before[0].id
    assert machine.registry_answers("127.0.0.1:5000")
    assert machine.engine.made[services.REGISTRY].restart


def test_a_registry_that_does_not_come_up_is_an_error_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends, and its container is named."""
    monkeypatch.setattr(services, "_REGISTRY_WITHIN", 0.0)
    machine = with_engine()
    monkeypatch.setattr(machine, "registry_answers", lambda _host: False)
    with pytest.raises(PartMissing, match="did not come up") as caught:
        setup.up(settings, "here", machine.host)
    assert services.REGISTRY in caught.value.next


def released(tmp_path: Path) -> Application:
    """An application that serves, with a local registry and an engine that was started for it."""
    from deploy import pipeline

    application = Application(tmp_path)
    application.publish("1")
    pipeline.release(application.context())
    setup.up(application.context().settings, "local", application.architecture.host)
    machine = application.architecture
    services.ensure_registry(
        application.engine, application.context().settings.image, "127.0.0.1:5000", machine.host
    )
    (setup.cache_folder() / "dockerd.pid").write_text("1", encoding="utf-8")
    return application


def test_down_stops_everything_and_keeps_the_history(tmp_path: Path) -> None:
    """Containers, the registry and the engine are stopped; volumes stay, and with them what was released."""
    application = released(tmp_path)
    settings = application.context().settings
    stopped = setup.down(settings, purge=False, here=application.architecture.host)
    assert {
        "twinship-classifier-local-1",
        "twinship-classifier-local-door",
        services.REGISTRY,
        "dockerd",
    } <= set(stopped)
    assert not any(found.running for found in application.engine.containers({}))
    application.architecture.running = True
    assert [rollout.attempt.id for rollout in application.context().view.history()] == [1]
    assert application.engine.volumes.keys() >= {"twinship-classifier-local", services.REGISTRY}


def test_what_is_down_stays_down(tmp_path: Path) -> None:
    """The engine starts none of it by itself, not when it is started itself either; a release starts what it needs."""
    from deploy import pipeline

    application = released(tmp_path)
    assert all(made.restart for made in application.engine.made.values())
    setup.down(application.context().settings, purge=False, here=application.architecture.host)
    assert not any(made.restart for made in application.engine.made.values())
    application.architecture.running = True
    pipeline.release(application.context())
    assert all(
        made.restart and made.running
        for name, made in application.engine.made.items()
        if name != services.REGISTRY
    )


def test_a_full_disk_does_not_keep_anything_from_being_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it shall stay so cannot be noted then, and is not."""

    def full(container: str) -> None:
        raise DiskFull("the engine has no space left", on=container, next="remove something")

    application = released(tmp_path)
    monkeypatch.setattr(application.engine, "keep_stopped", full)
    setup.down(application.context().settings, purge=False, here=application.architecture.host)
    assert not any(found.running for found in application.engine.containers({}))


def test_purging_forgets_the_history_and_the_registry(tmp_path: Path) -> None:
    """Containers, networks and volumes are gone; images, which other tools may use, stay."""
    application = released(tmp_path)
    setup.down(application.context().settings, purge=True, here=application.architecture.host)
    assert application.engine.containers({}) == []
    assert (application.engine.volumes, application.engine.networks) == ({}, {})
    assert application.engine.names


@pytest.mark.parametrize("purge", [True, False])
def test_what_another_application_still_needs_stays(tmp_path: Path, purge: bool) -> None:
    """One application's `down` stops neither another one's replicas nor the registry and the engine under them."""
    from deploy import pipeline

    application = released(tmp_path)
    settings = application.context().settings
    other = Settings.model_validate({**settings.model_dump(), "app": {"name": "other"}})
    assert setup.down(other, purge=purge, here=application.architecture.host) == []
    assert application.architecture.running
    assert not pipeline.release(application.context()).changed
    assert application.architecture.registry_answers("127.0.0.1:5000")


def test_purging_spares_the_images_of_an_application_that_is_stopped(tmp_path: Path) -> None:
    """Its releases are in the registry still: that stops with the last application, but keeps what it holds."""
    application = released(tmp_path)
    settings = application.context().settings
    setup.down(settings, purge=False, here=application.architecture.host)
    application.architecture.running = True
    other = Settings.model_validate({**settings.model_dump(), "app": {"name": "other"}})
    setup.down(other, purge=True, here=application.architecture.host)
    assert application.engine.volumes.keys() >= {"twinship-classifier-local", services.REGISTRY}


def test_down_where_nothing_runs_does_nothing(machine: MemoryMachine, settings: Settings) -> None:
    """No engine is no error."""
    assert setup.down(settings, purge=True, here=machine.host) == []


# --- the doctor


def found(machine: MemoryMachine, settings: Settings, environment: str = "here") -> dict[str, str]:
    """The doctor's cures by part."""
    return {check.part: check.cure for check in setup.doctor(settings, environment, machine.host)}


def test_the_doctor_finds_nothing_missing_where_all_is_there(settings: Settings) -> None:
    """Engine, base image and registry are told with what was found."""
    machine = with_engine()
    machine.registries.add("127.0.0.1:5000")
    checks = {check.part: check for check in setup.doctor(settings, "here", machine.host)}
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
    setup.doctor(settings, "here", machine.host)
    other = with_engine()
    before = other.engine.state()
    setup.doctor(settings, "here", other.host)
    assert machine.happened == other.happened == []
    assert other.engine.state() == before
    assert not setup.cache_folder().exists()


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster."""
    return FakeCluster()


def cluster_check(settings: Settings, cluster: FakeCluster | None = None) -> setup.Check:
    """What the doctor finds on a machine that knows this cluster, or none."""
    machine = with_engine()
    machine.clusters |= {"": cluster} if cluster else {}
    (found,) = (
        check
        for check in setup.doctor(settings, "staging", machine.host)
        if check.part == "cluster"
    )
    return found


def test_the_doctor_tells_a_cluster_by_its_version(
    settings: Settings, cluster: FakeCluster
) -> None:
    """And the namespace that a release goes to; nothing is written there."""
    found = cluster_check(settings, cluster)
    assert (found.ok, found.found) == (True, f"Kubernetes {cluster.version()}, namespace shop")
    assert not [asked for asked in cluster.requests if asked[0] not in ("get", "list")]


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
        "the API server gives no answer", on="memory", next="see whether the cluster runs"
    )

    def refuse(*_: object) -> bool:
        raise away

    for question in ("version", "may", "require"):
        with monkeypatch.context() as patched:
            patched.setattr(cluster, question, refuse)
            assert (
                cluster_check(settings, cluster).cure
                == "the API server gives no answer: see whether the cluster runs"
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
    cluster.forbidden = {("get", "ConfigMap")}
    assert (
        cluster_check(settings, cluster).cure == "this account may not get ConfigMap: add the rule"
    )
    cluster.forbidden = {("get", "ConfigMap"), ("create", "Lease")}
    assert cluster_check(settings, cluster).cure.startswith(
        "this account may not create Lease in shop"
    )


def test_the_doctor_tells_what_an_account_may_not_do(
    settings: Settings, cluster: FakeCluster
) -> None:
    """With the namespace, and the file that has the rules to add."""
    cluster.forbidden = {("create", "Lease"), ("create", "Service")}
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
    setup.doctor(changed, "staging", machine.host, tmp_path)
    assert machine.reached == [(str(tmp_path / "keys/shop.yaml"), "shop", "shop")]


def test_the_doctor_asks_no_cluster_about_an_environment_on_an_engine(settings: Settings) -> None:
    """It has nothing to do with one."""
    machine = with_engine()
    assert "cluster" not in found(machine, settings)
    assert machine.reached == []


# --- the cache's place


def test_the_cache_is_where_it_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TWINSHIP_HOME first, then the place for caches, then the one below the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("TWINSHIP_HOME", str(tmp_path / "named"))
    assert setup.cache_folder() == tmp_path / "named"
    monkeypatch.delenv("TWINSHIP_HOME")
    assert setup.cache_folder() == tmp_path / "caches" / "twinship"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert setup.cache_folder() == tmp_path / ".cache" / "twinship"
