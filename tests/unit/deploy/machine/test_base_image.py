"""The base image: used if it is there, pulled if it can be, and made from Debian's packages if not."""

from __future__ import annotations

import pytest

from deploy.errors import BaseUnavailable
from deploy.machine.base_image import ensure_base_image
from deploy.settings.reading import DEBIAN, ImageBuild
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
    assert ensure_base_image(machine.engine, BUILD, machine.host) == DEBIAN
    assert machine.engine.pulled == []


def test_a_base_image_is_pulled_by_its_digest(machine: MemoryMachine) -> None:
    """Where a registry is in reach, the real one is used, without a login."""
    machine.engine.registry[DEBIAN] = image_of((b"debian",))
    assert ensure_base_image(machine.engine, BUILD, machine.host) == DEBIAN
    assert machine.engine.pulled == [(DEBIAN, None)]
    assert machine.actions == []


def test_a_debian_that_cannot_be_pulled_is_made(machine: MemoryMachine) -> None:
    """From the packages of the release that the name speaks of."""
    made = ensure_base_image(machine.engine, BUILD, machine.host)
    assert made == "twinship/base:trixie"
    assert machine.engine.image_id(made)
    assert machine.actions == ["install mmdebstrap", "make trixie"]


def test_what_was_made_once_is_used_from_then_on(machine: MemoryMachine) -> None:
    """Neither a pull nor the making is tried again."""
    made = ensure_base_image(machine.engine, BUILD, machine.host)
    machine.actions.clear()
    machine.engine.pulled.clear()
    assert ensure_base_image(machine.engine, BUILD, machine.host) == made
    assert (machine.actions, machine.engine.pulled) == ([], [])


def test_another_base_is_not_replaced_by_debian(machine: MemoryMachine) -> None:
    """What is not Debian's own image cannot be made of Debian's packages."""
    with pytest.raises(BaseUnavailable) as caught:
        ensure_base_image(machine.engine, ImageBuild(base=OTHER), machine.host)
    assert caught.value.on == OTHER
    assert "the registry has no such image" in caught.value.detail
    assert machine.actions == []


def test_a_base_that_can_neither_be_pulled_nor_made_tells_both_reasons(
    machine: MemoryMachine,
) -> None:
    """Why the pull failed, and why the making did."""
    machine.root = False
    with pytest.raises(BaseUnavailable) as caught:
        ensure_base_image(machine.engine, BUILD, machine.host)
    assert "the registry has no such image" in caught.value.detail
    assert "mmdebstrap is not installed" in caught.value.detail
