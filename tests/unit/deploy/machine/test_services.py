"""The services' image and the local registry."""

from __future__ import annotations

import pytest

from deploy.errors import EngineFailed, PartMissing
from deploy.machine import services
from deploy.settings.image import DEBIAN, ImageBuild
from tests.fakes.engine import FakeEngine
from tests.fakes.machine import MemoryMachine

OTHER = f"python:3.13@sha256:{'1' * 64}"
BUILD = ImageBuild(base=DEBIAN)


@pytest.fixture
def machine() -> MemoryMachine:
    """Return a Debian with an empty engine and without access to a registry."""
    return MemoryMachine(FakeEngine())


def test_the_services_image_is_built_once(machine: MemoryMachine) -> None:
    """It has the base image below it."""
    machine.engine.add_image(DEBIAN, b"debian")
    made = services.ensure_services_image(machine.engine, BUILD, machine.host)
    assert services.ensure_services_image(machine.engine, BUILD, machine.host) == made
    assert machine.engine.built == [(made, {"BASE": DEBIAN})]
    assert (machine.engine.diff_ids(made) or ())[:1] == machine.engine.diff_ids(DEBIAN)


def test_another_base_gives_another_services_image(machine: MemoryMachine) -> None:
    """A newer Debian has newer programs."""
    newer = f"debian:trixie-slim@sha256:{'2' * 64}"
    for base in (DEBIAN, newer):
        machine.engine.add_image(base, base.encode())
    assert services.ensure_services_image(
        machine.engine, BUILD, machine.host
    ) != services.ensure_services_image(machine.engine, ImageBuild(base=newer), machine.host)


def test_the_services_image_is_always_built_on_debian(machine: MemoryMachine) -> None:
    """Debian's tools install the proxy, whatever the application is based on."""
    machine.engine.add_image(DEBIAN, b"debian")
    services.ensure_services_image(machine.engine, ImageBuild(base=OTHER), machine.host)
    assert machine.engine.built[0][1] == {"BASE": DEBIAN}


def test_registries_on_two_ports_are_two(machine: MemoryMachine) -> None:
    """Each has a container and a volume of its own, on the loopback address."""
    machine.engine.add_image(DEBIAN, b"debian")
    for host in ("127.0.0.1:5000", "127.0.0.1:5001"):
        services.ensure_registry(machine.engine, BUILD, host, machine.host)
    specs = {made.spec.name: made.spec for made in machine.engine.all_containers.values()}
    assert [specs[name].ports for name in ("twinship-registry", "twinship-registry-5001")] == [
        {5000: ("127.0.0.1", 5000)},
        {5000: ("127.0.0.1", 5001)},
    ]
    assert set(machine.engine.volumes) == {"twinship-registry", "twinship-registry-5001"}
    assert all(spec.restart for spec in specs.values())


def test_an_existing_registry_is_used(machine: MemoryMachine) -> None:
    """It does not matter what started it."""
    machine.registries.add("127.0.0.1:5000")
    services.ensure_registry(machine.engine, BUILD, "127.0.0.1:5000", machine.host)
    assert machine.engine.containers({}) == []


@pytest.fixture
def silent(machine: MemoryMachine, monkeypatch: pytest.MonkeyPatch) -> MemoryMachine:
    """Return a machine on which no registry answers."""
    machine.engine.add_image(DEBIAN, b"debian")
    monkeypatch.setattr(machine, "registry_answers", lambda _address: False)
    return machine


def start_registry(machine: MemoryMachine) -> None:
    """Start a registry, and wait no longer than one look."""
    services.ensure_registry(machine.engine, BUILD, "127.0.0.1:5000", machine.host, timeout=0.0)


def test_a_registry_that_listens_and_does_not_answer_is_told_so(silent: MemoryMachine) -> None:
    """It runs, and its log says more."""
    with pytest.raises(PartMissing, match="what listens there gives no answer"):
        start_registry(silent)


def test_a_registry_that_has_ended_is_told_so(
    silent: MemoryMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens on its port."""
    monkeypatch.setattr(silent.engine, "start", lambda _container: None)
    with pytest.raises(PartMissing, match="nothing listens there"):
        start_registry(silent)


def test_an_engine_whose_ports_are_elsewhere_is_told_so(silent: MemoryMachine) -> None:
    """A job in a container may use the engine of its host, and has a network of its own."""
    silent.publishes_here = False
    with pytest.raises(EngineFailed, match="cannot be reached from here") as caught:
        start_registry(silent)
    assert "127.0.0.1:5000" in caught.value.on
    assert "--network host" in caught.value.next
