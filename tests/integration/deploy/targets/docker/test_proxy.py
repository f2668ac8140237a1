"""The real proxy: how it loads a configuration, and what its admin socket says."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Spec
from deploy.clock import Clock
from deploy.errors import EngineFailed
from deploy.targets.docker.haproxy import (
    COMMAND,
    CONFIG,
    STATE_FOLDER,
    render_configuration,
    slot_address,
)
from deploy.targets.docker.proxy import Proxy
from tests.contracts.engine import wait_until
from tests.integration.deploy.responder import responder

pytestmark = pytest.mark.integration

Start = Callable[..., str]


@pytest.fixture
def subnet(engine: DockerEngine, prefix: str) -> str:
    """A network for one test."""
    return engine.ensure_network(prefix, {"dev.twinship.test": prefix})


@pytest.fixture
def text(subnet: str) -> Callable[..., str]:
    """Renders configurations for that network."""

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
def proxy(
    engine: DockerEngine, prefix: str, parts_image: str, subnet: str, text: Callable[..., str]
) -> Proxy:
    """A running proxy with three slots of which none is admitted."""
    labels = {"dev.twinship.test": prefix}
    engine.ensure_volume(prefix, labels)
    volumes = {prefix: (STATE_FOLDER, False)}
    spec = Spec(
        name=f"{prefix}-proxy",
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
    proxy = Proxy(engine, made.id)
    proxy.wait()
    return proxy


@pytest.fixture
def start(engine: DockerEngine, prefix: str, parts_image: str, subnet: str) -> Start:
    """Starts a replica at the address of a slot, and returns its container's id."""

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
        )
        made = engine.create(spec)
        engine.start(made.id)
        return made.id

    return started


def test_the_proxy_accepts_the_configuration(
    proxy: Proxy, engine: DockerEngine, text: Callable[..., str]
) -> None:
    """It reports neither errors nor warnings, with admitted slots and without."""
    for made in (text(), text(slots=50, admitted=frozenset({1, 7})), text(ready="/healthz?full=1")):
        engine.put_file(proxy.container, f"{STATE_FOLDER}/checked.cfg", made.encode())
        assert engine.execute(
            proxy.container, ("haproxy", "-c", "-f", f"{STATE_FOLDER}/checked.cfg")
        ) == (
            0,
            "",
        )


def test_the_running_proxy_says_which_configuration_it_has(
    proxy: Proxy, text: Callable[..., str]
) -> None:
    """Whichever slots it admits."""
    assert proxy.has(text(admitted=frozenset({1})))
    assert not proxy.has(text(slots=4))


def test_a_reload_loads_a_new_configuration(
    proxy: Proxy, start: Start, text: Callable[..., str]
) -> None:
    """The proxy then has more slots, and admits those of the new file."""
    start(1)
    proxy.configure(text(slots=5, admitted=frozenset({1})))
    assert sorted(proxy.slots()) == [1, 2, 3, 4, 5]
    wait_until(lambda: proxy.slots()[1].healthy, "slot 1 is healthy")
    assert [slot.number for slot in proxy.slots().values() if slot.admitted] == [1]


def test_a_configuration_that_cannot_be_loaded_changes_nothing(
    proxy: Proxy,
    start: Start,
    engine: DockerEngine,
    text: Callable[..., str],
) -> None:
    """Slots can still be set, and a later configuration is loaded."""
    start(1)
    proxy.admit(1, "drain")
    wait_until(lambda: proxy.slots()[1].healthy, "slot 1 is healthy")
    unknown = text(slots=4).replace("option splice-auto", "option of-another-version")
    # Seven times as fast as this machine's, so that the proxy is waited for 2 s and not 15 s.
    impatient = Clock(now=lambda: time.monotonic() * 7)
    with pytest.raises(EngineFailed, match="did not load its new configuration"):
        Proxy(engine, proxy.container, impatient).configure(unknown)
    proxy.admit(1, "ready")
    assert (proxy.slots()[1].admitted, proxy.slots()[1].healthy) == (True, True)
    assert (engine.files(proxy.container, STATE_FOLDER) or {})[CONFIG] == text().encode()
    proxy.configure(text(slots=5))
    assert sorted(proxy.slots()) == [1, 2, 3, 4, 5]


def test_a_slot_that_does_not_exist_cannot_be_set(proxy: Proxy) -> None:
    """The proxy refuses without an exit code, and that is an error."""
    with pytest.raises(EngineFailed, match="slot 4"):
        proxy.admit(4, "drain")


def test_a_proxy_that_crashes_is_waited_for(
    proxy: Proxy, engine: DockerEngine, text: Callable[..., str]
) -> None:
    """Until the engine has restarted it, at any command."""
    engine.enable_restart(proxy.container)
    for ask in (proxy.slots, lambda: proxy.has(text()), lambda: proxy.admit(1, "drain")):
        with suppress(EngineFailed):
            engine.execute(proxy.container, ("sh", "-c", "kill -TERM 1"))
        ask()
    assert (proxy.slots()[1].admitted, proxy.slots()[1].checked) == (False, True)


def test_a_replica_is_checked_while_it_gets_no_requests(proxy: Proxy, start: Start) -> None:
    """A drained slot is healthy, a ready one is admitted as well, a disabled one is neither."""
    proxy.admit(1, "drain")
    assert not proxy.slots()[1].healthy
    start(1)
    wait_until(lambda: proxy.slots()[1].healthy, "it is healthy")
    assert not proxy.slots()[1].admitted
    proxy.admit(1, "ready")
    assert (proxy.slots()[1].admitted, proxy.slots()[1].healthy, proxy.slots()[1].in_flight) == (
        True,
        True,
        0,
    )
    proxy.admit(1, "maint")
    assert (proxy.slots()[1].admitted, proxy.slots()[1].healthy) == (False, False)


def test_the_check_of_an_earlier_replica_does_not_count(
    proxy: Proxy, start: Start, engine: DockerEngine
) -> None:
    """A replica that is never ready is never healthy, in a slot that was used before."""
    proxy.admit(1, "drain")
    earlier = start(1)
    wait_until(lambda: proxy.slots()[1].healthy, "the earlier replica is healthy")
    engine.remove(earlier)
    proxy.admit(1, "maint")
    proxy.admit(1, "drain")
    assert not proxy.slots()[1].healthy
    start(1, status=503)

    def is_checked() -> bool:
        slot = proxy.slots()[1]
        assert not slot.healthy
        return slot.status == 503

    wait_until(is_checked, "the replica itself was checked")


def test_a_replica_that_ends_is_unhealthy(proxy: Proxy, start: Start, engine: DockerEngine) -> None:
    """The proxy sends its requests to others."""
    proxy.admit(2, "drain")
    earlier = start(2)
    wait_until(lambda: proxy.slots()[2].healthy, "it is healthy")
    proxy.admit(2, "ready")
    engine.remove(earlier)
    wait_until(lambda: not proxy.slots()[2].healthy, "it is unhealthy")
    assert proxy.slots()[2].admitted
