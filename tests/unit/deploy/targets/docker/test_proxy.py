"""The front door: its configuration as a pure function, and the words it exchanges with a proxy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.clients.docker.protocol import Spec
from deploy.errors import EngineFailed
from deploy.targets.docker import proxy as door
from deploy.targets.docker.haproxy import (
    COMMAND,
    CONFIG,
    STATE_FOLDER,
    read_admitted,
    render_configuration,
    slot_address,
)
from deploy.targets.docker.proxy import Admission, Proxy
from tests.fakes.engine import FakeEngine, Script

SUBNET = "172.30.0.0/24"
SLOTS = st.frozensets(st.integers(1, 12))


def text(
    slots: int = 4, ready: str = "/readyz", admitted: frozenset[int] = frozenset(), **changed: Any
) -> str:
    """A configuration that differs from the usual one in what is given."""
    values: dict[str, Any] = {"port": 8080, "in_flight": 16, "answer_within": 60.0, **changed}
    return render_configuration(SUBNET, slots, ready=ready, admitted=admitted, **values)


@pytest.fixture
def engine() -> FakeEngine:
    """An engine with a proxy that was never started, and two replicas' images."""
    engine = FakeEngine(
        {
            "parts": Script(),
            "app": Script(),
            "slow": Script(ready_after=1),
            "broken": Script(ready_after=None),
        }
    )
    engine.create(
        Spec(
            name="door",
            image="parts",
            labels={},
            command=COMMAND,
            volumes={"state": (STATE_FOLDER, False)},
        )
    )
    return engine


@pytest.fixture
def running(engine: FakeEngine) -> Proxy:
    """The proxy, running, with four closed slots."""
    engine.put_file("door", f"{STATE_FOLDER}/{CONFIG}", text().encode())
    engine.start("door")
    return Proxy(engine, "door")


class Hasty(FakeEngine):
    """An engine that gives only the beginning of the first answers of a command, or none.

    Attributes:
        lengths: of those answers.
        silent: how many of the next commands nobody answers.
    """

    lengths: tuple[int, ...] = ()
    silent = 0

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        if self.silent:
            self.silent -= 1
            return 1, "socat: no such file\n"
        code, said = super().execute(container, command)
        if "show stat" in command[-1] and self.lengths:
            said = said[: self.lengths[0]]
            self.lengths = self.lengths[1:]
        return code, said


def put(engine: FakeEngine, image: str, slot: int) -> str:
    """Starts a container at the address of a slot."""
    made = engine.create(
        Spec(
            name=f"slot-{slot}-{image}",
            image=image,
            labels={},
            network="net",
            ip=slot_address(SUBNET, slot),
        )
    )
    engine.start(made.id)
    return made.id


def test_every_slot_has_an_address_of_its_own() -> None:
    """Neither the door nor another slot nor the network's gateway has it."""
    found = [slot_address(SUBNET, None), *(slot_address(SUBNET, slot) for slot in range(1, 201))]
    assert len(set(found)) == 201
    assert "172.30.0.1" not in found
    assert all(one.startswith("172.30.0.") for one in found)


def test_the_configuration_says_what_the_settings_say() -> None:
    """Port, health check, the limit of requests at once, the patience and the slots come from the settings."""
    made = text(
        slots=2,
        port=9000,
        ready="/healthy",
        in_flight=7,
        answer_within=2.5,
        admitted=frozenset({2}),
    )
    lines = [line.strip() for line in made.splitlines()]
    assert "server slot-1 172.30.0.11:9000 disabled" in lines
    assert "server slot-2 172.30.0.12:9000" in lines
    assert any(line.startswith("http-check send meth GET uri /healthy ") for line in lines)
    assert {"timeout client 2500ms", "timeout server 2500ms"} <= set(lines)
    assert any(line.startswith("default-server") and line.endswith("maxconn 7") for line in lines)
    assert "slot-3" not in made


def test_a_health_check_asks_as_a_client_would() -> None:
    """HTTP/1.1 with a host: an application that refuses requests without one would never be ready."""
    assert "    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost\n" in text(
        ready="/readyz"
    )


@given(SLOTS)
def test_the_slots_that_a_configuration_opens_can_be_read_back(admitted: frozenset[int]) -> None:
    """What is written before a restart is what is opened after it."""
    assert read_admitted(text(slots=12, admitted=admitted)) == admitted


@given(SLOTS, st.integers(0, 3000))
def test_a_configuration_that_was_cut_off_opens_nothing(admitted: frozenset[int], end: int) -> None:
    """A file that a killed engine left unfinished is not taken for one that closes the slots it lacks."""
    whole = text(slots=12, admitted=admitted)
    assert read_admitted(whole[:end]) == (admitted if end >= len(whole) else None)


def test_a_slot_that_opens_is_no_other_configuration(running: Proxy) -> None:
    """Which slots are open changes with every rollout, and is told to the running proxy without a reload."""
    assert running.has(text(admitted=frozenset({1, 2})))


@pytest.mark.parametrize(
    "other",
    [
        text(slots=5),
        text(port=9000),
        text(ready="/other"),
        text(in_flight=17),
        text(answer_within=61.0),
    ],
)
def test_any_other_change_is_another_configuration(running: Proxy, other: str) -> None:
    """The running proxy is told apart from one that the settings now ask for."""
    assert not running.has(other)


def test_a_proxy_takes_a_new_configuration_while_it_runs(
    running: Proxy, engine: FakeEngine
) -> None:
    """It is signalled, not restarted, and from then on has the new slots."""
    running.configure(text(slots=6, admitted=frozenset({1})))
    assert running.has(text(slots=6))
    assert sorted(running.slots()) == [1, 2, 3, 4, 5, 6]
    assert engine.happened == ["door created", "door started", "door opened"]


def test_a_configuration_that_the_proxy_does_not_take_is_an_error(
    running: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with the one it has, and that is said."""
    monkeypatch.setattr(door, "_WITHIN", 0.1)
    with pytest.raises(EngineFailed, match="did not load its new configuration"):
        running.configure("nonsense\n    description 0\n")
    assert running.has(text())


def test_a_configuration_that_the_proxy_does_not_take_does_not_stay(
    running: Proxy, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of an older image may not know all its words; when it is restarted, it finds those that it knows."""
    monkeypatch.setattr(door, "_WITHIN", 0.1)
    with pytest.raises(EngineFailed) as caught:
        running.configure("nonsense\n    description 0\n")
    assert "invoke down" in caught.value.next
    assert engine.files("door", STATE_FOLDER) == {CONFIG: text().encode()}


@pytest.mark.parametrize("admission", ["ready", "drain", "maint"])
def test_a_slot_that_the_proxy_does_not_have_cannot_be_set(
    running: Proxy, admission: Admission
) -> None:
    """It says so without an exit code; nobody must believe that the slot is as it was to be."""
    with pytest.raises(EngineFailed, match="slot 5") as caught:
        running.admit(5, admission)
    assert "No such server" in caught.value.detail


def test_a_proxy_that_is_about_to_start_is_waited_for() -> None:
    """Whatever it is asked or told, it may have been restarted just now."""
    engine = Hasty({"parts": Script()})
    engine.create(
        Spec(
            name="door",
            image="parts",
            labels={},
            command=COMMAND,
            volumes={"state": (STATE_FOLDER, False)},
        )
    )
    engine.put_file("door", f"{STATE_FOLDER}/{CONFIG}", text().encode())
    engine.start("door")
    asked = Proxy(engine, "door")
    for ask in (
        asked.slots,
        asked.wait,
        lambda: asked.has(text()),
        lambda: asked.admit(1, "drain"),
    ):
        engine.silent = 2
        ask()
        assert engine.silent == 0
    assert engine.proxy("door").servers["slot-1"].state == "drain"


def test_a_closed_slot_takes_no_requests_and_is_not_checked(
    running: Proxy, engine: FakeEngine
) -> None:
    """A slot that nobody opened says nothing of who is there."""
    put(engine, "app", 1)
    slot = running.slots()[1]
    assert (slot.admitted, slot.checked, slot.healthy) == (False, False, False)
    assert not running.slots()[1].healthy


def test_a_slot_is_checked_before_it_is_opened(running: Proxy, engine: FakeEngine) -> None:
    """Drained, it gets no requests but is asked for its health."""
    put(engine, "app", 1)
    running.admit(1, "drain")
    assert not running.slots()[1].healthy
    slot = running.slots()[1]
    assert (slot.admitted, slot.checked, slot.healthy) == (False, True, True)
    running.admit(1, "ready")
    assert running.slots()[1].admitted
    assert engine.proxy("door").open_to() == [slot_address(SUBNET, 1)]


def test_a_slot_is_not_taken_for_healthy_by_its_last_tenants_check(
    running: Proxy, engine: FakeEngine
) -> None:
    """A replica in a slot that served before is ready when it was asked itself, not before."""
    tenant = put(engine, "app", 1)
    running.admit(1, "drain")
    running.slots()
    assert running.slots()[1].healthy
    engine.remove(tenant)
    running.admit(1, "maint")
    put(engine, "broken", 1)
    running.admit(1, "drain")
    assert [running.slots()[1].healthy for _ in range(5)] == [False] * 5


def test_a_replica_that_is_not_ready_is_not_healthy_until_it_is(
    running: Proxy, engine: FakeEngine
) -> None:
    """The health check decides, as often as it is made."""
    put(engine, "slow", 2)
    running.admit(2, "drain")
    assert [running.slots()[2].healthy for _ in range(3)] == [False, False, True]


def test_requests_under_way_are_counted(running: Proxy, engine: FakeEngine) -> None:
    """Those that a replica works on and those that wait for it."""
    put(engine, "app", 1)
    engine.proxy("door").busy[slot_address(SUBNET, 1)] = 3
    assert running.slots()[1].in_flight == 3
    assert running.slots()[2].in_flight == 0


def test_a_proxy_that_does_not_answer_is_an_error_with_its_name(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking a proxy whose process has no socket is said with where its log is."""
    monkeypatch.setattr(door, "_WITHIN", 0.1)
    engine.create(Spec(name="other", image="parts", labels={}))
    engine.start("other")
    with pytest.raises(EngineFailed) as caught:
        Proxy(engine, "other").slots()
    assert caught.value.on == "other"
    assert "docker logs" in caught.value.next


def test_a_proxy_that_does_not_start_is_an_error_with_its_log(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends, and shows why."""
    monkeypatch.setattr(door, "_WITHIN", 0.1)
    engine.put_file("door", f"{STATE_FOLDER}/{CONFIG}", b"nonsense")
    engine.start("door")
    with pytest.raises(EngineFailed, match="did not start") as caught:
        Proxy(engine, "door").wait()
    assert "config: cannot be used" in caught.value.detail


def test_an_answer_that_was_cut_short_is_asked_for_again() -> None:
    """A slot that is not told of is not taken for one that does not exist."""
    engine = Hasty({"parts": Script()})
    engine.create(
        Spec(
            name="door",
            image="parts",
            labels={},
            command=COMMAND,
            volumes={"state": (STATE_FOLDER, False)},
        )
    )
    engine.put_file("door", f"{STATE_FOLDER}/{CONFIG}", text().encode())
    engine.start("door")
    engine.lengths = (0, 60, 150)
    assert sorted(Proxy(engine, "door").slots()) == [1, 2, 3, 4]
    assert not engine.lengths
