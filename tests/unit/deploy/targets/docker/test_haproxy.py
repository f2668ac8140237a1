"""The configuration of HAProxy, as a pure function."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.targets.docker.haproxy import (
    count_slots,
    read_admitted,
    read_mark,
    render_configuration,
    slot_address,
)

SUBNET = "172.30.0.0/24"
SLOTS = st.frozensets(st.integers(1, 12))


def render(slots: int = 4, ready: str = "/readyz", **changed: Any) -> str:
    """Return a configuration with some values changed."""
    values: dict[str, Any] = {"port": 8080, "in_flight": 16, "answer_within": 60.0, **changed}
    return render_configuration(SUBNET, slots, ready=ready, **values)


def test_every_slot_has_its_own_address() -> None:
    """Neither the proxy nor another slot nor the network's gateway has it."""
    found = [slot_address(SUBNET, None), *(slot_address(SUBNET, slot) for slot in range(1, 201))]
    assert len(set(found)) == 201
    assert "172.30.0.1" not in found
    assert all(address.startswith("172.30.0.") for address in found)


@pytest.mark.parametrize(
    ("subnet", "slots"),
    [
        ("172.30.0.0/24", 244),
        ("172.30.0.64/26", 52),
        ("172.30.0.32/27", 28),
        ("172.30.0.16/28", 12),
        ("172.30.0.8/29", 4),
        ("172.30.0.4/30", 0),
        ("172.30.0.4/31", 0),
    ],
)
def test_a_small_network_has_fewer_slots(subnet: str, slots: int) -> None:
    """All addresses are in the network; its own, the engine's and the last one are not used."""
    assert count_slots(subnet) == slots
    network = ipaddress.ip_network(subnet)
    used = [slot_address(subnet, slot) for slot in (*range(1, slots + 1), None) if slots]
    free = [str(address) for address in network.hosts()][1:]
    assert len({*used}) == len(used)
    assert {*used} <= {*free}


def test_the_configuration_has_the_values_of_the_settings() -> None:
    """Port, health check, limit of requests, timeouts and slots come from the settings."""
    text = render(
        slots=2,
        port=9000,
        ready="/healthy",
        in_flight=7,
        answer_within=2.5,
        admitted=frozenset({2}),
    )
    lines = [line.strip() for line in text.splitlines()]
    assert "server slot-1 172.30.0.11:9000 disabled" in lines
    assert "server slot-2 172.30.0.12:9000" in lines
    assert any(line.startswith("http-check send meth GET uri /healthy ") for line in lines)
    assert {"timeout client 2500ms", "timeout server 2500ms"} <= set(lines)
    assert any(line.startswith("default-server") and line.endswith("maxconn 7") for line in lines)
    assert "slot-3" not in text


def test_a_health_check_is_a_request_as_clients_send_it() -> None:
    """HTTP/1.1 with a host: an application that refuses requests without one is never ready."""
    line = "    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost\n"
    assert line in render(ready="/readyz")


@given(SLOTS)
def test_the_admitted_slots_can_be_read_from_a_configuration(admitted: frozenset[int]) -> None:
    """The slots that were written before a restart are admitted after it."""
    assert read_admitted(render(slots=12, admitted=admitted)) == admitted


@given(SLOTS, st.integers(0, 3000))
def test_half_a_configuration_admits_nothing(admitted: frozenset[int], end: int) -> None:
    """A file that a killed engine left half is not read as one that excludes the missing slots."""
    whole = render(slots=12, admitted=admitted)
    assert read_admitted(whole[:end]) == (admitted if end >= len(whole) else None)


@given(SLOTS)
def test_the_mark_does_not_depend_on_the_admitted_slots(admitted: frozenset[int]) -> None:
    """These change with every rollout, and the running proxy is instructed without a reload."""
    assert read_mark(render(slots=12, admitted=admitted)) == read_mark(render(slots=12))


@pytest.mark.parametrize(
    "changed",
    [
        {"slots": 5},
        {"port": 9000},
        {"ready": "/other"},
        {"in_flight": 17},
        {"answer_within": 61.0},
    ],
    ids=str,
)
def test_any_other_change_has_another_mark(changed: dict[str, Any]) -> None:
    """By the mark, a proxy with old settings is distinguished from one with the present ones."""
    assert read_mark(render(**changed)) != read_mark(render())


def test_the_mark_of_a_released_version_stays() -> None:
    """A proxy that an earlier version configured is not reloaded by an upgrade alone."""
    assert read_mark(render()) == "07d744fddab40e9f"
