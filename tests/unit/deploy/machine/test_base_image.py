"""The base image of application images: used, pulled, or made from packages."""

from __future__ import annotations

import pytest

from deploy.errors import BaseUnavailable
from deploy.machine.base_image import ensure_base_image, find_base_image
from deploy.settings.image import DEBIAN, ImageBuild
from tests.fakes.engine import FakeEngine
from tests.fakes.images import make_image
from tests.fakes.machine import MemoryMachine

OTHER = f"python:3.13@sha256:{'1' * 64}"
BUILD = ImageBuild(base=DEBIAN)


@pytest.fixture
def machine() -> MemoryMachine:
    """Return a Debian with an empty engine and without access to a registry."""
    return MemoryMachine(FakeEngine())


def test_an_existing_base_image_is_used(machine: MemoryMachine) -> None:
    """No registry gets a request."""
    machine.engine.add_image(DEBIAN, b"debian")
    assert ensure_base_image(machine.engine, BUILD, machine.host) == DEBIAN
    assert machine.engine.pulled == []


def test_a_base_image_is_pulled_by_its_digest(machine: MemoryMachine) -> None:
    """No login is needed."""
    machine.engine.registry[DEBIAN] = make_image((b"debian",))
    assert ensure_base_image(machine.engine, BUILD, machine.host) == DEBIAN
    assert machine.engine.pulled == [(DEBIAN, None)]
    assert machine.actions == []


def test_a_debian_image_that_cannot_be_pulled_is_made(machine: MemoryMachine) -> None:
    """It is made from the packages of the release that its name has."""
    name = ensure_base_image(machine.engine, BUILD, machine.host)
    assert name == "twinship/base:trixie"
    assert machine.engine.image_id(name)
    assert machine.actions == ["install mmdebstrap", "make trixie"]


def test_a_made_base_image_is_used_again(machine: MemoryMachine) -> None:
    """Neither the pull nor the making is repeated."""
    name = ensure_base_image(machine.engine, BUILD, machine.host)
    machine.actions.clear()
    machine.engine.pulled.clear()
    assert ensure_base_image(machine.engine, BUILD, machine.host) == name
    assert (machine.actions, machine.engine.pulled) == ([], [])


def test_a_base_image_of_another_platform_is_not_used(machine: MemoryMachine) -> None:
    """That of the wanted platform is pulled; none is made for another processor than this."""
    machine.engine.add_image(DEBIAN, b"debian")
    with pytest.raises(BaseUnavailable, match="linux/arm64") as caught:
        ensure_base_image(machine.engine, BUILD, machine.host, "linux/arm64")
    assert "the registry has no such image" in caught.value.detail
    assert machine.actions == []
    machine.engine.registry[DEBIAN] = make_image((b"debian",), platform="linux/arm64")
    assert ensure_base_image(machine.engine, BUILD, machine.host, "linux/arm64") == DEBIAN
    assert machine.engine.platform(DEBIAN) == "linux/arm64"
    assert find_base_image(machine.engine, BUILD) == ""


def test_another_base_is_not_replaced_by_debian(machine: MemoryMachine) -> None:
    """Only Debian's own images can be made from Debian's packages."""
    with pytest.raises(BaseUnavailable) as caught:
        ensure_base_image(machine.engine, ImageBuild(base=OTHER), machine.host)
    assert caught.value.on == OTHER
    assert "the registry has no such image" in caught.value.detail
    assert machine.actions == []


def test_a_base_image_that_can_neither_be_pulled_nor_made_is_an_error(
    machine: MemoryMachine,
) -> None:
    """The detail has the reasons of both failures."""
    machine.root = False
    with pytest.raises(BaseUnavailable) as caught:
        ensure_base_image(machine.engine, BUILD, machine.host)
    assert "the registry has no such image" in caught.value.detail
    assert "mmdebstrap is not installed" in caught.value.detail
