"""The commands to a running proxy, and what it says of its slots."""

from __future__ import annotations

import pytest

from deploy.clients.docker.protocol import Spec
from deploy.errors import EngineFailed
from deploy.targets.docker.haproxy import (
    COMMAND,
    CONFIG,
    STATE_FOLDER,
    render_configuration,
    slot_address,
)
from deploy.targets.docker.proxy import Admission, Proxy
from tests.fakes.clock import FakeTime
from tests.fakes.engine import FakeEngine, Script

SUBNET = "172.30.0.0/24"
NAME = "proxy"
UNUSABLE = "nonsense\n    description 0\n"


class BusyEngine(FakeEngine):
    """An engine on which the first commands fail, or have a response that is cut short.

    Attributes:
        lengths: how long the next responses to `show stat` are.
        silent: how many of the next commands get no response.
    """

    lengths: tuple[int, ...] = ()
    silent = 0

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        if self.silent:
            self.silent -= 1
            return 1, "socat: no such file\n"
        code, output = super().execute(container, command)
        if "show stat" in command[-1] and self.lengths:
            output = output[: self.lengths[0]]
            self.lengths = self.lengths[1:]
        return code, output


def render(slots: int = 4, admitted: frozenset[int] = frozenset()) -> str:
    """Return a configuration."""
    return render_configuration(
        SUBNET,
        slots,
        port=8080,
        ready="/readyz",
        idempotent=("/score",),
        private=("/metrics", "/openapi.json"),
        in_flight=16,
        answer_within=60.0,
        admitted=admitted,
    )


@pytest.fixture
def engine() -> BusyEngine:
    """An engine with a proxy that was never started, and images of replicas."""
    engine = BusyEngine(
        {
            "services": Script(),
            "app": Script(),
            "slow": Script(ready_after=1),
            "broken": Script(ready_after=None),
        }
    )
    engine.create(
        Spec(
            name=NAME,
            image="services",
            labels={},
            command=COMMAND,
            volumes={"state": (STATE_FOLDER, False)},
        )
    )
    return engine


@pytest.fixture
def proxy(engine: BusyEngine) -> Proxy:
    """The proxy, running, with four slots of which none is admitted."""
    engine.put_file(NAME, f"{STATE_FOLDER}/{CONFIG}", render().encode())
    engine.start(NAME)
    return Proxy(engine, NAME, FakeTime().clock)


def start_replica(engine: FakeEngine, image: str, slot: int) -> str:
    """Start a container at the address of a slot."""
    created = engine.create(
        Spec(
            name=f"slot-{slot}-{image}",
            image=image,
            labels={},
            network="net",
            ip=slot_address(SUBNET, slot),
        )
    )
    engine.start(created.id)
    return created.id


# --- its configuration


def test_an_admitted_slot_is_no_other_configuration(proxy: Proxy) -> None:
    """The admitted slots change with every rollout, without a reload."""
    assert proxy.read().has(render(admitted=frozenset({1, 2})))
    assert not proxy.read().has(render(slots=5))


def test_a_running_proxy_loads_a_new_configuration(proxy: Proxy, engine: BusyEngine) -> None:
    """It gets a signal, is not restarted, and then has the new slots."""
    proxy.configure(render(slots=6, admitted=frozenset({1})))
    assert proxy.read().has(render(slots=6))
    assert sorted(proxy.slots()) == [1, 2, 3, 4, 5, 6]
    assert engine.events == [f"{NAME} {what}" for what in ("created", "started", "opened")]


def test_a_configuration_that_cannot_be_loaded_is_an_error(
    proxy: Proxy, engine: BusyEngine
) -> None:
    """The proxy keeps the one that it has, also after a restart, and the error says what helps."""
    with pytest.raises(EngineFailed, match="did not load its new configuration") as caught:
        proxy.configure(UNUSABLE)
    assert "invoke down" in caught.value.next
    assert proxy.read().has(render())
    assert engine.files(NAME, STATE_FOLDER) == {CONFIG: render().encode()}


# --- its slots


@pytest.mark.parametrize("admission", ["ready", "drain", "maint"])
def test_a_slot_that_does_not_exist_cannot_be_set(proxy: Proxy, admission: Admission) -> None:
    """The proxy refuses without an exit code, and that is an error."""
    with pytest.raises(EngineFailed, match="slot 5") as caught:
        proxy.admit(5, admission)
    assert "No such server" in caught.value.detail


def test_a_disabled_slot_gets_no_requests_and_no_checks(proxy: Proxy, engine: BusyEngine) -> None:
    """Nothing is known of the replica in it."""
    start_replica(engine, "app", 1)
    slot = proxy.slots()[1]
    assert (slot.admitted, slot.checked, slot.healthy) == (False, False, False)
    assert not proxy.slots()[1].healthy


def test_a_slot_is_checked_before_it_is_admitted(proxy: Proxy, engine: BusyEngine) -> None:
    """A drained slot gets no requests, but health checks."""
    start_replica(engine, "app", 1)
    proxy.admit(1, "drain")
    assert not proxy.slots()[1].healthy
    slot = proxy.slots()[1]
    assert (slot.admitted, slot.checked, slot.healthy) == (False, True, True)
    proxy.admit(1, "ready")
    assert proxy.slots()[1].admitted
    assert engine.proxy(NAME).open_to() == [slot_address(SUBNET, 1)]


def test_the_check_of_an_earlier_replica_does_not_count(proxy: Proxy, engine: BusyEngine) -> None:
    """A replica in a slot that was used before is healthy when its own check passed."""
    earlier = start_replica(engine, "app", 1)
    proxy.admit(1, "drain")
    proxy.slots()
    assert proxy.slots()[1].healthy
    engine.remove(earlier)
    proxy.admit(1, "maint")
    start_replica(engine, "broken", 1)
    proxy.admit(1, "drain")
    assert [proxy.slots()[1].healthy for _ in range(5)] == [False] * 5


def test_a_replica_is_healthy_once_a_check_passes(proxy: Proxy, engine: BusyEngine) -> None:
    """As many checks are made as it needs."""
    start_replica(engine, "slow", 2)
    proxy.admit(2, "drain")
    assert [proxy.slots()[2].healthy for _ in range(3)] == [False, False, True]


def test_requests_in_flight_are_counted(proxy: Proxy, engine: BusyEngine) -> None:
    """Those that a replica works on, and those that wait for it."""
    start_replica(engine, "app", 1)
    engine.proxy(NAME).busy[slot_address(SUBNET, 1)] = 3
    assert proxy.slots()[1].in_flight == 3
    assert proxy.slots()[2].in_flight == 0


# --- a proxy that does not respond


def test_a_proxy_that_is_about_to_start_is_asked_again(proxy: Proxy, engine: BusyEngine) -> None:
    """Any command can come just after a restart."""
    for command in (
        proxy.slots,
        proxy.wait,
        lambda: proxy.read().has(render()),
        lambda: proxy.admit(1, "drain"),
    ):
        engine.silent = 2
        command()
        assert engine.silent == 0
    assert engine.proxy(NAME).servers["slot-1"].state == "drain"


def test_a_proxy_without_a_response_is_an_error_with_its_name(engine: BusyEngine) -> None:
    """The error says where the log of the container is, after 15 seconds."""
    time = FakeTime()
    engine.create(Spec(name="other", image="services", labels={}))
    engine.start("other")
    with pytest.raises(EngineFailed) as caught:
        Proxy(engine, "other", time.clock).slots()
    assert caught.value.on == "other"
    assert "docker logs" in caught.value.next
    assert 15 <= time.seconds < 16


def test_a_proxy_that_does_not_start_is_an_error_with_its_log(engine: BusyEngine) -> None:
    """The log shows why."""
    engine.put_file(NAME, f"{STATE_FOLDER}/{CONFIG}", b"nonsense")
    engine.start(NAME)
    with pytest.raises(EngineFailed, match="did not start") as caught:
        Proxy(engine, NAME, FakeTime().clock).wait()
    assert "config: cannot be used" in caught.value.detail


def test_a_response_that_is_cut_short_is_asked_for_again(proxy: Proxy, engine: BusyEngine) -> None:
    """A slot that is missing in it is not taken for one that does not exist."""
    engine.lengths = (0, 60, 150)
    assert sorted(proxy.slots()) == [1, 2, 3, 4]
    assert not engine.lengths
