"""The images beside the application: used if they are there, pulled if they can be, made from packages if not."""

from __future__ import annotations

import pytest

from deploy.errors import BaseUnavailable
from deploy.machine import services
from deploy.settings.image import DEBIAN, ImageBuild
from tests.fakes.engine import FakeEngine
from tests.fakes.images import image_of
from tests.fakes.machine import MemoryMachine

OTHER = f"python:3.13@sha256:{'1' * 64}"
BUILD = ImageBuild(base=DEBIAN)


@pytest.fixture
def machine() -> MemoryMachine:
    """A Debian with an empty engine, and no registry in reach."""
    return MemoryMachine(FakeEngine())


def test_a_base_image_that_is_there_is_used(machine: MemoryMachine) -> None:
    """Nothing is asked of any registry."""
    machine.engine.hold_image(DEBIAN, b"debian")
    assert services.ensure_base_image(machine.engine, BUILD, machine.host) == DEBIAN
    assert machine.engine.pulled == []


def test_a_base_image_is_pulled_by_its_digest(machine: MemoryMachine) -> None:
    """Where a registry is in reach, the real one is used, without a login."""
    machine.engine.registry[DEBIAN] = image_of((b"debian",))
    assert services.ensure_base_image(machine.engine, BUILD, machine.host) == DEBIAN
    assert machine.engine.pulled == [(DEBIAN, None)]
    assert machine.happened == []


def test_a_debian_that_cannot_be_pulled_is_made(machine: MemoryMachine) -> None:
    """From the packages of the release that the name speaks of."""
    made = services.ensure_base_image(machine.engine, BUILD, machine.host)
    assert made == "twinship/base:trixie"
    assert machine.engine.image_id(made)
    assert machine.happened == ["install mmdebstrap", "make trixie"]


def test_what_was_made_once_is_used_from_then_on(machine: MemoryMachine) -> None:
    """Neither a pull nor the making is tried again."""
    made = services.ensure_base_image(machine.engine, BUILD, machine.host)
    machine.happened.clear()
    machine.engine.pulled.clear()
    assert services.ensure_base_image(machine.engine, BUILD, machine.host) == made
    assert (machine.happened, machine.engine.pulled) == ([], [])


def test_another_base_is_not_replaced_by_debian(machine: MemoryMachine) -> None:
    """What is not Debian's own image cannot be made of Debian's packages."""
    with pytest.raises(BaseUnavailable) as caught:
        services.ensure_base_image(machine.engine, ImageBuild(base=OTHER), machine.host)
    assert caught.value.on == OTHER
    assert "the registry has no such image" in caught.value.detail
    assert machine.happened == []


def test_a_base_that_can_neither_be_pulled_nor_made_tells_both_reasons(
    machine: MemoryMachine,
) -> None:
    """Why the pull failed, and why the making did."""
    machine.root = False
    with pytest.raises(BaseUnavailable) as caught:
        services.ensure_base_image(machine.engine, BUILD, machine.host)
    assert "the registry has no such image" in caught.value.detail
    assert "mmdebstrap is not installed" in caught.value.detail


def test_the_image_of_the_parts_is_built_once(machine: MemoryMachine) -> None:
    """The proxy and the registry come from Debian's packages on the base image."""
    machine.engine.hold_image(DEBIAN, b"debian")
    made = services.ensure_services_image(machine.engine, BUILD, machine.host)
    assert services.ensure_services_image(machine.engine, BUILD, machine.host) == made
    assert machine.engine.built == [(made, {"BASE": DEBIAN})]
    assert (machine.engine.diff_ids(made) or ())[:1] == machine.engine.diff_ids(DEBIAN)


def test_another_base_gives_another_image_of_the_parts(machine: MemoryMachine) -> None:
    """A newer Debian brings newer parts."""
    newer = f"debian:trixie-slim@sha256:{'2' * 64}"
    for base in (DEBIAN, newer):
        machine.engine.hold_image(base, base.encode())
    assert services.ensure_services_image(
        machine.engine, BUILD, machine.host
    ) != services.ensure_services_image(machine.engine, ImageBuild(base=newer), machine.host)


def test_an_application_on_another_base_gets_parts_on_debian(machine: MemoryMachine) -> None:
    """The proxy is installed by Debian's tools, whatever the application is based on."""
    machine.engine.hold_image(DEBIAN, b"debian")
    services.ensure_services_image(machine.engine, ImageBuild(base=OTHER), machine.host)
    assert machine.engine.built[0][1] == {"BASE": DEBIAN}


def test_registries_on_two_ports_are_two(machine: MemoryMachine) -> None:
    """Each has a container and a volume of its own, on the loopback address."""
    machine.engine.hold_image(DEBIAN, b"debian")
    for host in ("127.0.0.1:5000", "127.0.0.1:5001"):
        services.ensure_registry(machine.engine, BUILD, host, machine.host)
    specs = {made.spec.name: made.spec for made in machine.engine.made.values()}
    assert [specs[name].ports for name in ("twinship-registry", "twinship-registry-5001")] == [
        {5000: ("127.0.0.1", 5000)},
        {5000: ("127.0.0.1", 5001)},
    ]
    assert set(machine.engine.volumes) == {"twinship-registry", "twinship-registry-5001"}
    assert all(spec.restart for spec in specs.values())


def test_a_registry_that_answers_already_is_used(machine: MemoryMachine) -> None:
    """Whoever started it."""
    machine.registries.add("127.0.0.1:5000")
    services.ensure_registry(machine.engine, BUILD, "127.0.0.1:5000", machine.host)
    assert machine.engine.containers({}) == []
