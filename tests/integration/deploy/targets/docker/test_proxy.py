"""The front door as the real proxy sees it: what it makes of the configuration, and what its admin socket says."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Spec
from deploy.errors import EngineFailed
from deploy.targets.docker import proxy as module
from deploy.targets.docker.haproxy import (
    COMMAND,
    CONFIG,
    STATE_FOLDER,
    render_configuration,
    slot_address,
)
from deploy.targets.docker.proxy import Proxy
from tests.contracts.engine import until
from tests.integration.deploy.responder import responder

pytestmark = pytest.mark.integration

Start = Callable[..., str]


@pytest.fixture
def subnet(engine: DockerEngine, prefix: str) -> str:
    """A network of the test's own."""
    return engine.network(prefix, {"dev.twinship.test": prefix})


@pytest.fixture
def text(subnet: str) -> Callable[..., str]:
    """Makes configurations for that network."""

    def made(slots: int = 3, ready: str = "/readyz", admitted: frozenset[int] = frozenset()) -> str:
        return render_configuration(
            subnet,
            slots,
            port=8080,
            ready=ready,
            in_flight=16,
            answer_within=60.0,
            admitted=admitted,
        )

    return made


@pytest.fixture
def door(
    engine: DockerEngine, prefix: str, parts_image: str, subnet: str, text: Callable[..., str]
) -> Proxy:
    """A running proxy with three closed slots."""
    labels = {"dev.twinship.test": prefix}
    engine.volume(prefix, labels)
    volumes = {prefix: (STATE_FOLDER, False)}
    spec = Spec(
        name=f"{prefix}-door",
        image=parts_image,
        labels=labels,
        command=COMMAND,
        network=prefix,
        ip=slot_address(subnet, None),
        volumes=volumes,
    )
    made = engine.create(spec)
    engine.put_file(made.id, f"{STATE_FOLDER}/{CONFIG}", text().encode())
    engine.start(made.id)
    door = Proxy(engine, made.id)
    door.wait()
    return door


@pytest.fixture
def start(engine: DockerEngine, prefix: str, parts_image: str, subnet: str) -> Start:
    """Starts a replica at the address of a slot; gives its container's id."""

    def started(slot: int, status: int = 200) -> str:
        command = responder("replica", status)
        labels = {"dev.twinship.test": prefix}
        spec = Spec(
            name=f"{prefix}-{slot}",
            image=parts_image,
            labels=labels,
            command=command,
            network=prefix,
            ip=slot_address(subnet, slot),
            grace=1,
        )
        made = engine.create(spec)
        engine.start(made.id)
        return made.id

    return started


def test_the_proxy_finds_no_fault_with_the_configuration(
    door: Proxy, engine: DockerEngine, text: Callable[..., str]
) -> None:
    """Neither errors nor warnings, with slots open and closed."""
    for made in (text(), text(slots=50, admitted=frozenset({1, 7})), text(ready="/healthz?full=1")):
        engine.put_file(door.container, f"{STATE_FOLDER}/checked.cfg", made.encode())
        assert engine.execute(
            door.container, ("haproxy", "-c", "-f", f"{STATE_FOLDER}/checked.cfg")
        ) == (
            0,
            "",
        )


def test_the_running_proxy_tells_its_configuration(door: Proxy, text: Callable[..., str]) -> None:
    """It is told from another, whichever slots are open."""
    assert door.has(text(admitted=frozenset({1})))
    assert not door.has(text(slots=4))


def test_a_reload_takes_a_new_configuration(
    door: Proxy, start: Start, text: Callable[..., str]
) -> None:
    """The proxy has more slots afterwards, and opens those that the new file opens."""
    start(1)
    door.configure(text(slots=5, admitted=frozenset({1})))
    assert sorted(door.slots()) == [1, 2, 3, 4, 5]
    until(lambda: door.slots()[1].healthy, "slot 1 is healthy")
    assert [slot.number for slot in door.slots().values() if slot.admitted] == [1]


def test_a_configuration_that_the_proxy_does_not_take_changes_nothing(
    door: Proxy,
    start: Start,
    engine: DockerEngine,
    text: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests go on, slots can be opened, and a later configuration is taken."""
    monkeypatch.setattr(module, "_WITHIN", 2.0)
    start(1)
    door.admit(1, "drain")
    until(lambda: door.slots()[1].healthy, "slot 1 is healthy")
    unknown = text(slots=4).replace("option splice-auto", "option of-another-version")
    with pytest.raises(EngineFailed, match="did not load its new configuration"):
        door.configure(unknown)
    door.admit(1, "ready")
    assert (door.slots()[1].admitted, door.slots()[1].healthy) == (True, True)
    assert (engine.files(door.container, STATE_FOLDER) or {})[CONFIG] == text().encode()
    door.configure(text(slots=5))
    assert sorted(door.slots()) == [1, 2, 3, 4, 5]


def test_a_slot_that_the_proxy_does_not_have_cannot_be_set(door: Proxy) -> None:
    """It says so without an exit code; nobody must believe that the slot is as it was to be."""
    with pytest.raises(EngineFailed, match="slot 4"):
        door.admit(4, "drain")


def test_a_proxy_that_crashes_is_waited_for(
    door: Proxy, engine: DockerEngine, text: Callable[..., str]
) -> None:
    """Until the engine has started it again, whatever it is asked."""
    engine.keep_running(door.container)
    for ask in (door.slots, lambda: door.has(text()), lambda: door.admit(1, "drain")):
        with suppress(EngineFailed):
            engine.execute(door.container, ("sh", "-c", "kill -TERM 1"))
        ask()
    assert (door.slots()[1].admitted, door.slots()[1].checked) == (False, True)


def test_a_replica_is_checked_while_it_takes_no_requests(door: Proxy, start: Start) -> None:
    """Drained it is found healthy, opened it is admitted, closed it is neither."""
    door.admit(1, "drain")
    assert not door.slots()[1].healthy
    start(1)
    until(lambda: door.slots()[1].healthy, "it is healthy")
    assert not door.slots()[1].admitted
    door.admit(1, "ready")
    assert (door.slots()[1].admitted, door.slots()[1].healthy, door.slots()[1].in_flight) == (
        True,
        True,
        0,
    )
    door.admit(1, "maint")
    assert (door.slots()[1].admitted, door.slots()[1].healthy) == (False, False)


def test_a_slot_is_not_taken_for_healthy_by_its_last_tenants_check(
    door: Proxy, start: Start, engine: DockerEngine
) -> None:
    """A replica that is never ready, in a slot that served before, is never found healthy."""
    door.admit(1, "drain")
    tenant = start(1)
    until(lambda: door.slots()[1].healthy, "the first tenant is healthy")
    engine.remove(tenant)
    door.admit(1, "maint")
    door.admit(1, "drain")
    assert not door.slots()[1].healthy
    start(1, status=503)
    for _ in range(40):
        assert not door.slots()[1].healthy
        time.sleep(0.05)


def test_a_replica_that_dies_is_found_unhealthy(
    door: Proxy, start: Start, engine: DockerEngine
) -> None:
    """The proxy routes around it by itself."""
    door.admit(2, "drain")
    tenant = start(2)
    until(lambda: door.slots()[2].healthy, "it is healthy")
    door.admit(2, "ready")
    engine.remove(tenant)
    until(lambda: not door.slots()[2].healthy, "it is found dead")
    assert door.slots()[2].admitted
