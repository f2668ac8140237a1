"""The setup of a machine, and its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.clients.docker.address import EngineAddress
from deploy.errors import (
    DiskFull,
    EngineDenied,
    EngineUnavailable,
    PartMissing,
    PortTaken,
)
from deploy.machine import services, setup
from deploy.machine.host import cache_folder
from deploy.settings.reading import Settings
from tests.fakes.application import Application
from tests.fakes.machine import MemoryMachine, machine_with_engine

# --- the engine


def test_a_running_engine_is_used() -> None:
    """Nothing is installed or started."""
    machine = machine_with_engine()
    assert setup.ensure_engine(machine.host) is machine.engine
    assert machine.actions == []


def test_on_a_new_debian_the_engine_is_installed_and_started(machine: MemoryMachine) -> None:
    """It is Debian's own package."""
    assert setup.ensure_engine(machine.host) is machine.engine
    assert machine.actions == ["install docker.io", "start the engine"]


def test_an_engine_that_is_installed_is_only_started(machine: MemoryMachine) -> None:
    """This is so after a reboot."""
    machine.programs.add("dockerd")
    setup.ensure_engine(machine.host)
    assert machine.actions == ["start the engine"]


def test_on_another_system_the_engine_stays_missing(machine: MemoryMachine) -> None:
    """The engine's own error says what to do."""
    machine.debian = False
    with pytest.raises(EngineUnavailable):
        setup.ensure_engine(machine.host)
    assert machine.actions == []


def test_without_root_the_command_to_install_is_named(machine: MemoryMachine) -> None:
    """Another user can run it."""
    machine.root = False
    with pytest.raises(PartMissing) as caught:
        setup.ensure_engine(machine.host)
    assert "apt-get install docker.io" in caught.value.next


def test_a_missing_engine_of_docker_host_is_not_replaced(
    machine: MemoryMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable names that engine and no other."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://other.example:2376")
    with pytest.raises(EngineUnavailable):
        setup.ensure_engine(machine.host)
    assert machine.actions == []


def test_a_missing_engine_of_a_context_is_not_replaced(machine: MemoryMachine) -> None:
    """The user chose that engine."""
    found = EngineAddress("unix:///far.sock", "the Docker context 'far'")
    host = replace(machine.host, find_engine_address=lambda: found)
    with pytest.raises(EngineUnavailable):
        setup.ensure_engine(host)
    assert machine.actions == []


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> MemoryMachine:
    """Return a machine whose engine this user may not use."""
    machine = machine_with_engine()
    machine.member = False
    machine.programs.add("sg")
    monkeypatch.setenv("TWINSHIP_GROUP_CHANGED", "", prepend=None)
    monkeypatch.delenv("TWINSHIP_GROUP_CHANGED")
    return machine


def test_a_user_who_can_join_the_group_restarts_as_member(denied: MemoryMachine) -> None:
    """The same command runs again in the engine's group, once."""
    for _ in range(2):
        with pytest.raises(EngineDenied):
            setup.ensure_engine(denied.host)
    assert denied.actions == ["join the group", "restart as a member"]


def test_a_user_who_cannot_join_the_group_gets_the_error(denied: MemoryMachine) -> None:
    """Nothing is installed or started: the engine exists."""
    denied.root = False
    with pytest.raises(EngineDenied):
        setup.ensure_engine(denied.host)
    assert denied.actions == []


# --- up and down


def test_up_sets_up_all_that_a_release_needs(machine: MemoryMachine, settings: Settings) -> None:
    """These are the engine, the image of the proxy, and a local registry."""
    setup.up(settings, "here", machine.host)
    assert machine.registry_answers("127.0.0.1:5000")
    assert any(name.startswith("twinship/parts:") for name in machine.engine.names)
    assert machine.actions == [
        "install docker.io",
        "start the engine",
        "install mmdebstrap",
        "make trixie",
    ]


def test_up_may_be_repeated(machine: MemoryMachine, settings: Settings) -> None:
    """Existing parts stay unchanged."""
    setup.up(settings, "here", machine.host)
    before = machine.engine.state()
    actions = list(machine.actions)
    setup.up(settings, "here", machine.host)
    assert (machine.engine.state(), machine.actions) == (before, actions)


def test_up_starts_no_registry_for_an_environment_with_a_remote_one(
    machine: MemoryMachine, settings: Settings
) -> None:
    """A registry in the network cannot be started here."""
    setup.up(settings, "local", machine.host)
    assert machine.engine.containers({}) == []


def test_up_builds_no_proxy_for_a_cluster(machine: MemoryMachine, settings: Settings) -> None:
    """Only the engine is needed, and a registry if it is on this machine."""
    setup.up(settings, "staging", machine.host)
    assert machine.actions == ["install docker.io", "start the engine"]
    staging = {**settings.environment("staging").model_dump(), "registry": "127.0.0.1:5000"}
    setup.up(
        Settings.model_validate({**settings.model_dump(), "environments": {"staging": staging}}),
        "staging",
        machine.host,
    )
    assert machine.registry_answers("127.0.0.1:5000")


def test_a_taken_port_of_the_registry_is_an_error(settings: Settings) -> None:
    """Another program than a registry listens there."""
    machine = machine_with_engine()
    machine.listening.add(5000)
    with pytest.raises(PortTaken):
        setup.up(settings, "here", machine.host)
    assert machine.engine.containers({}) == []


def test_a_stopped_registry_is_started_again_with_its_images(settings: Settings) -> None:
    """It is the same container with the same volume."""
    machine = machine_with_engine()
    setup.up(settings, "here", machine.host)
    before = machine.engine.containers({services.SERVICE_LABEL: "registry"})
    machine.engine.disable_restart(services.REGISTRY_NAME)
    machine.engine.stop(services.REGISTRY_NAME, 1)
    setup.up(settings, "here", machine.host)
    assert machine.engine.containers({services.SERVICE_LABEL: "registry"})[0].id == before[0].id
    assert machine.registry_answers("127.0.0.1:5000")
    assert machine.engine.all_containers[services.REGISTRY_NAME].restart


def test_a_registry_that_does_not_start_is_an_error_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names its container."""
    machine = machine_with_engine()
    monkeypatch.setattr(machine, "registry_answers", lambda _address: False)
    with pytest.raises(PartMissing, match="did not start") as caught:
        services.ensure_registry(
            machine.engine, settings.image, "127.0.0.1:5000", machine.host, timeout=0.0
        )
    assert services.REGISTRY_NAME in caught.value.next


def released(tmp_path: Path) -> Application:
    """Return an application that serves, with a local registry and an engine started for it."""
    from deploy import pipeline

    application = Application(tmp_path)
    application.publish("1")
    pipeline.release(application.context())
    setup.up(application.context().settings, "local", application.machine.host)
    machine = application.machine
    services.ensure_registry(
        application.engine, application.context().settings.image, "127.0.0.1:5000", machine.host
    )
    (cache_folder() / "dockerd.pid").write_text("1", encoding="utf-8")
    return application


def test_down_stops_everything_and_keeps_the_history(tmp_path: Path) -> None:
    """Containers, registry and engine are stopped; volumes stay, and with them the history."""
    application = released(tmp_path)
    settings = application.context().settings
    stopped = setup.down(settings, purge=False, host=application.machine.host)
    assert {
        "twinship-classifier-local-1",
        "twinship-classifier-local-door",
        services.REGISTRY_NAME,
        "dockerd",
    } <= set(stopped)
    assert not any(found.running for found in application.engine.containers({}))
    application.machine.running = True
    assert [rollout.attempt.id for rollout in application.context().inspect_target().history()] == [
        1
    ]
    assert application.engine.volumes.keys() >= {
        "twinship-classifier-local",
        services.REGISTRY_NAME,
    }


def test_stopped_containers_stay_stopped(tmp_path: Path) -> None:
    """The engine does not start them when it starts; the next release does."""
    from deploy import pipeline

    application = released(tmp_path)
    assert all(made.restart for made in application.engine.all_containers.values())
    setup.down(application.context().settings, purge=False, host=application.machine.host)
    assert not any(made.restart for made in application.engine.all_containers.values())
    application.machine.running = True
    pipeline.release(application.context())
    assert all(
        made.restart and made.running
        for name, made in application.engine.all_containers.items()
        if name != services.REGISTRY_NAME
    )


def test_a_full_disk_does_not_prevent_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restart policy cannot be changed then, and is not."""

    def full(container: str) -> None:
        raise DiskFull("the engine has no space left", on=container, next="remove something")

    application = released(tmp_path)
    monkeypatch.setattr(application.engine, "disable_restart", full)
    setup.down(application.context().settings, purge=False, host=application.machine.host)
    assert not any(found.running for found in application.engine.containers({}))


def test_purge_deletes_the_history_and_the_registry(tmp_path: Path) -> None:
    """Containers, networks and volumes are gone; images, which other tools may use, stay."""
    application = released(tmp_path)
    setup.down(application.context().settings, purge=True, host=application.machine.host)
    assert application.engine.containers({}) == []
    assert (application.engine.volumes, application.engine.networks) == ({}, {})
    assert application.engine.names


@pytest.mark.parametrize("purge", [True, False])
def test_down_keeps_what_another_application_uses(tmp_path: Path, purge: bool) -> None:
    """Its replicas, the registry and the engine keep running."""
    from deploy import pipeline

    application = released(tmp_path)
    settings = application.context().settings
    other = Settings.model_validate({**settings.model_dump(), "app": {"name": "other"}})
    assert setup.down(other, purge=purge, host=application.machine.host) == []
    assert application.machine.running
    assert not pipeline.release(application.context()).changed
    assert application.machine.registry_answers("127.0.0.1:5000")


def test_purge_keeps_the_images_of_a_stopped_application(tmp_path: Path) -> None:
    """The registry is stopped with the last application, but keeps its images."""
    application = released(tmp_path)
    settings = application.context().settings
    setup.down(settings, purge=False, host=application.machine.host)
    application.machine.running = True
    other = Settings.model_validate({**settings.model_dump(), "app": {"name": "other"}})
    setup.down(other, purge=True, host=application.machine.host)
    assert application.engine.volumes.keys() >= {
        "twinship-classifier-local",
        services.REGISTRY_NAME,
    }


def test_down_leaves_the_engine_of_this_machine_if_another_is_used(
    machine: MemoryMachine, settings: Settings
) -> None:
    """Other applications may use it."""
    far = EngineAddress("unix:///far.sock", "DOCKER_HOST")
    (cache_folder() / "dockerd.pid").parent.mkdir(parents=True)
    (cache_folder() / "dockerd.pid").write_text("1", encoding="utf-8")
    host = replace(machine.host, find_engine_address=lambda: far)
    assert setup.down(settings, purge=False, host=host) == []
    assert machine.actions == []


def test_down_where_nothing_runs_does_nothing(machine: MemoryMachine, settings: Settings) -> None:
    """A missing engine is no error."""
    assert setup.down(settings, purge=True, host=machine.host) == []
