"""The configuration of HAProxy, as a pure function."""

from __future__ import annotations

import ipaddress
import re
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
    values: dict[str, Any] = {
        "port": 8080,
        "idempotent": (),
        "private": ("/metrics",),
        "in_flight": 16,
        "answer_within": 60.0,
        **changed,
    }
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
        ("172.30.0.32/27", 20),
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


@pytest.mark.parametrize("subnet", ["172.30.0.0/24", "172.30.0.64/26", "172.30.0.32/27"])
def test_a_network_that_served_before_keeps_its_addresses(subnet: str) -> None:
    """Its running proxy and replicas have them; an upgrade alone moves none."""
    network = ipaddress.ip_network(subnet)
    found = [slot_address(subnet, slot) for slot in (None, 1, 12)]
    assert found == [str(network[place]) for place in (5, 11, 22)]


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
    assert any(line.startswith("default-server") and " maxconn 7 " in line for line in lines)
    assert "slot-3" not in text


def test_a_health_check_is_a_request_as_clients_send_it() -> None:
    """HTTP/1.1 with a host: an application that refuses requests without one is never ready."""
    line = "    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost\n"
    assert line in render(ready="/readyz")


def test_each_request_has_a_line_without_secrets_in_the_log() -> None:
    """Queries and headers can have them, so neither is logged."""
    (written,) = (line for line in render().splitlines() if "log-format" in line)
    assert {"%ci", "%HM", "%HPO", "%ST", "%Ta", "%s"} <= set(re.findall(r"%\w+", written))
    assert not {"%HU", "%HP", "%HQ", "%r", "%hr", "%hs"} & set(re.findall(r"%\w+", written))
    assert "capture" not in render()
    assert "    log stdout len 1024 format raw local0 info\n" in render()


def find_private(text: str) -> list[re.Pattern[str]]:
    """Return the patterns of private paths in a configuration."""
    line = next((line for line in text.splitlines() if "acl private" in line), "")
    return [re.compile(pattern) for pattern in re.findall(r"'([^']+)'", line)]


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/metrics/", "/metrics/all", "//metrics", "/metrics;a=1", "/a/../metrics", "/./b"],
)
def test_a_path_that_leads_to_a_private_one_is_private(path: str) -> None:
    """Also where an application merges slashes or resolves dots."""
    assert any(pattern.search(path) for pattern in find_private(render(private=("/metrics",))))


@pytest.mark.parametrize("path", ["/", "/metrics2", "/a/metrics", "/metricsx/y", "/.well-known/a"])
def test_other_paths_are_not_private(path: str) -> None:
    """Those that only begin or end in the same way."""
    assert not any(pattern.search(path) for pattern in find_private(render(private=("/metrics",))))


def test_a_private_path_of_several_segments_is_one_path() -> None:
    """Dots in it are not those of a pattern."""
    patterns = find_private(render(private=("/openapi.json", "/admin/keys")))
    assert any(pattern.search("/admin//keys/1") for pattern in patterns)
    assert not any(pattern.search("/openapiajson") for pattern in patterns)
    assert not any(pattern.search("/admin") for pattern in patterns)


def test_without_private_paths_nothing_is_denied() -> None:
    """There is no rule."""
    assert "deny" not in render(private=())


def test_requests_are_repeated_where_that_does_no_harm() -> None:
    """By method (RFC 9110, 9.2.2), and for the paths that the settings name."""
    rule = "    http-request disable-l7-retry unless idempotent\n"
    methods = "    acl idempotent method GET HEAD OPTIONS PUT DELETE TRACE\n"
    assert f"{methods}{rule}" in render(idempotent=())
    paths = "    acl idempotent path -m str /score /rank\n"
    assert f"{methods}{paths}{rule}" in render(idempotent=("/score", "/rank"))


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
        {"idempotent": ("/score",)},
        {"private": ()},
    ],
    ids=str,
)
def test_any_other_change_has_another_mark(changed: dict[str, Any]) -> None:
    """By the mark, a proxy with old settings is distinguished from one with the present ones."""
    assert read_mark(render(**changed)) != read_mark(render())


def test_the_mark_of_a_released_version_stays() -> None:
    """A proxy that an earlier version configured is not reloaded by an upgrade alone."""
    assert read_mark(render()) == "cd612e49dde2b734"
