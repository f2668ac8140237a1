"""The target on a Docker host, on an engine in memory: its rules, and the order of its steps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from deploy.clients.docker.protocol import Container, Engine, Limits
from deploy.errors import (
    DiskFull,
    EngineFailed,
    EngineUnavailable,
    PortTaken,
    RegistryNotFound,
    RolloutFailed,
    RolloutLocked,
    SettingsInvalid,
    UndoFailed,
)
from deploy.machine.labels import APP, ATTEMPT, ROLE, SECRETS, VALUES
from deploy.machine.process import ProcessId, machine_id
from deploy.records import Release
from deploy.rollout.target import ReplicaState, Target
from deploy.settings.app import App
from deploy.settings.environments import Docker
from deploy.targets.docker.haproxy import slot_address
from deploy.targets.docker.state import DockerState
from deploy.targets.docker.target import DockerTarget, Supplies
from deploy.variables import NO_VARIABLES
from tests.contracts.docker_target import DockerPlace, DockerTargetContract
from tests.contracts.engine import wait_until
from tests.contracts.target import trust
from tests.contracts.variables import NEW, OLD, AttemptsContract, GivingPlace
from tests.contracts.variables import roll_out as roll_out_variables
from tests.fakes.clock import FakeTime
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.images import make_image
from tests.fakes.releases import release

PROXY = DockerState(FakeEngine(), "classifier", "local").proxy_name


class FakePlace:
    """An environment on an engine in memory."""

    app = "classifier"

    def __init__(self, fake: FakeEngine | None = None) -> None:
        self.fake = fake or FakeEngine()
        self.time = FakeTime()
        self.fake.utc = self.time.clock.utc
        self.services_image = "services"
        self.fake.script(self.services_image, Script())
        self.codes: dict[str, str] = {}

    @property
    def engine(self) -> Engine:
        return self.fake

    def target(self, *, replicas: int = 2, **changed: Any) -> Target:
        settings: dict[str, Any] = {
            "ready_within": 20.0,
            "drain_within": 5.0,
            "lock_wait": 0.0,
            **changed,
        }
        login = settings.pop("login", lambda _: None)
        variables = settings.pop("variables", NO_VARIABLES)
        app = App(name=self.app, **settings.pop("served", {}))
        return DockerTarget(
            self.fake,
            app,
            "local",
            Docker(replicas=replicas, **settings),
            lambda: self.services_image,
            Supplies(login, lambda: variables),
            self.require_free_port,
            self.fake.send,
            self.time.clock,
        )

    def release(self, code: str, script: Script | None = None) -> Release:
        held = self.fake.script(f"image {code}", script or Script(on_signal={"SIGTERM": 0}))
        self.codes[held] = code
        return release(code, config=held)

    def answers(self, **changed: object) -> set[str]:
        published = {port for _, port in self.fake.all_containers[PROXY].spec.ports.values()}
        assert published == {changed.get("port", 8080)}
        proxy = self.fake.proxy(PROXY)
        proxy.check()
        serving = {made.spec.ip: made for made in self.fake.all_containers.values() if made.running}
        return {
            self.codes[serving[found].spec.image] if found in serving else "no replica"
            for found in proxy.open_to()
        }

    def environments(self) -> list[dict[str, str]]:
        return [
            dict(made.spec.environment)
            for made in self.fake.all_containers.values()
            if made.spec.labels.get(ROLE) == "replica"
        ]

    def lose(self, replica: str) -> None:
        self.fake.stop(replica, 0)

    def crash(self, replica: str) -> None:
        self.fake.end_process(replica)

    def pass_time(self) -> None:
        self.time.seconds += 31

    def close_port(self) -> None:
        self.fake.end_forwarder(PROXY)

    def upgrade(self) -> None:
        self.services_image = "newer services"
        self.fake.script(self.services_image, Script())

    def free_port(self) -> int:
        return 9000

    def taken_port(self) -> int:
        self.fake.listening.add(9100)
        return 9100

    def require_free_port(self, address: str, port: int) -> None:
        """Check an address and a port as the machine does."""
        if address not in ("127.0.0.1", "0.0.0.0"):
            raise SettingsInvalid(
                "nothing can listen there", on=f"{address}:{port}", next="name another"
            )
        published = {
            port
            for made in self.fake.all_containers.values()
            if made.running
            for _, port in made.spec.ports.values()
        }
        if port in self.fake.listening | published:
            raise PortTaken(
                "another program listens on the port", on=f"{address}:{port}", next="stop it"
            )


class TestDockerTarget(DockerTargetContract):
    """The rules of a target, on an engine in memory."""

    @pytest.fixture
    def docker(self) -> DockerPlace:
        """An environment without a release."""
        return FakePlace()


class TestVariables(AttemptsContract):
    """The rules of variables, on an engine in memory."""

    @pytest.fixture
    def place(self) -> GivingPlace:
        """An environment without a release."""
        return FakePlace()


@pytest.fixture
def place() -> FakePlace:
    """An environment without a release."""
    return FakePlace()


def test_an_old_replica_is_drained_only_when_a_new_one_takes_requests(place: FakePlace) -> None:
    """At any moment enough replicas get requests, and each of them was ready before."""
    target = place.target()
    target.serve(place.release("a"), trust)
    proxy = place.fake.proxy(PROXY)
    proxy.asked.clear()
    target.serve(place.release("b", Script(ready_after=2)), trust)
    admissions = {"1": "ready", "2": "ready"}
    for slot, state in (
        re.findall(r"slot-(\d+) state (\w+)", command)[0]
        for command in proxy.asked
        if command.startswith("set")
    ):
        admissions[slot] = state
        assert list(admissions.values()).count("ready") >= 2
    assert admissions == {"1": "drain", "2": "drain", "3": "ready", "4": "ready"}
    assert proxy.blind == []


def test_a_replica_is_drained_before_it_is_stopped(place: FakePlace) -> None:
    """Settling drains a slot, stops its replica, and only then disables the slot."""
    target = place.target()
    target.serve(place.release("a"), trust)
    target.serve(b := place.release("b"), trust)
    proxy = place.fake.proxy(PROXY)
    proxy.asked.clear()
    happened: list[str] = place.fake.events
    happened.clear()
    target.settle(b)
    assert happened == [
        f"twinship-classifier-local-{slot} {what}"
        for slot in (1, 2)
        for what in ("stopped", "removed")
    ]
    assert [command.rsplit(maxsplit=1)[1] for command in proxy.asked if "slot-1 " in command] == [
        "drain",
        "maint",
    ]


def test_a_small_network_is_enough_for_a_rollout(place: FakePlace) -> None:
    """An administrator may give every network 16 addresses; old and new replicas fit in them."""
    place.fake.network_size = 28
    target = place.target(replicas=6)
    target.serve(place.release("a"), trust)
    target.serve(b := place.release("b"), trust)
    target.settle(b)
    assert target.serves(b)
    used = {made.spec.ip for made in place.fake.all_containers.values()}
    assert used <= {f"172.30.0.{number}" for number in range(2, 15)}


def test_a_network_without_addresses_for_a_rollout_is_an_error(place: FakePlace) -> None:
    """Nothing is started; the error names the network, and where its size is set."""
    place.fake.network_size = 28
    with pytest.raises(EngineFailed) as caught:
        place.target(replicas=7).serve(place.release("a"), trust)
    assert "172.30.0.0/28" in caught.value.on
    assert "default-address-pools" in caught.value.next
    assert place.fake.all_containers == {}


def test_requests_in_flight_are_waited_for(place: FakePlace) -> None:
    """A replica is stopped after the response to its last request."""
    target = place.target(drain_within=20.0)
    target.serve(place.release("a"), trust)
    proxy = place.fake.proxy(PROXY)
    proxy.busy = {slot_address("172.30.0.0/24", 1): 30}
    proxy.ends = 2
    target.serve(b := place.release("b"), trust)
    assert list(proxy.busy.values()) == [0]
    target.settle(b)
    assert target.serves(b)


def test_a_request_without_end_is_not_waited_for_longer_than_the_settings_allow(
    place: FakePlace,
) -> None:
    """A client that stays connected does not stop a rollout."""
    target = place.target(drain_within=0.1)
    target.serve(place.release("a"), trust)
    place.fake.proxy(PROXY).busy[slot_address("172.30.0.0/24", 1)] = 1
    target.serve(b := place.release("b"), trust)
    target.settle(b)
    assert target.serves(b)


def test_replicas_that_were_never_ready_are_not_restarted(place: FakePlace) -> None:
    """The engine restarts a replica only after it was ready, so that a crash is seen."""
    target = place.target()
    with pytest.raises(RolloutFailed):
        target.serve(place.release("a", Script(ready_after=None)), trust)
    assert [
        made.restart for made in place.fake.all_containers.values() if made.spec.name != PROXY
    ] == [False]


def test_a_replica_that_ends_before_it_is_ready_ends_the_rollout_at_once(
    place: FakePlace,
) -> None:
    """It is not waited for until the time is up."""
    target = place.target(ready_within=3600.0)
    with pytest.raises(RolloutFailed, match="exit code 137"):
        target.serve(place.release("a", Script(exits=137)), trust)


def test_the_status_of_a_ready_path_is_in_the_error(place: FakePlace) -> None:
    """A wrong path, or a redirect, is distinguished from a replica that is only slow."""
    with pytest.raises(RolloutFailed, match=r"not ready within 20 s: .* answered 503"):
        place.target().serve(place.release("a", Script(ready_after=None)), trust)


def test_a_replica_that_needs_too_much_memory_says_so(place: FakePlace) -> None:
    """It is killed without a line in its log."""
    with pytest.raises(RolloutFailed, match="more memory than its limit"):
        place.target(memory="100M").serve(place.release("a", Script(needs=200_000_000)), trust)


def test_replicas_have_the_limits_of_the_settings(place: FakePlace) -> None:
    """Without a setting of its own, memory follows from the size of the model."""
    a = place.release("a")
    place.target(pids=99).serve(a, trust)
    place.target(replicas=3, memory="1Gi").serve(a, trust)
    specs = [made.spec for made in place.fake.all_containers.values() if made.spec.name != PROXY]
    size = a.image.layer.size
    assert [spec.limits for spec in specs] == [
        *[Limits(memory=2 * 2**30 + 4 * size, pids=99)] * 2,
        Limits(memory=2**30, pids=2048),
    ]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("paused", ReplicaState.UNHEALTHY),
        ("restarting", ReplicaState.STARTING),
        ("exited", ReplicaState.STOPPED),
        ("dead", ReplicaState.STOPPED),
    ],
)
def test_a_replica_that_does_not_run_does_not_serve(
    place: FakePlace, status: str, state: ReplicaState
) -> None:
    """Though the proxy has not noticed it yet."""
    target = place.target(replicas=1)
    target.serve(a := place.release("a"), trust)
    (name,) = (replica.name for replica in target.replicas())
    place.fake.all_containers[name].status = status
    assert [replica.state for replica in target.replicas()] == [state]
    assert not target.serves(a)


def test_a_paused_replica_is_replaced(place: FakePlace) -> None:
    """A release brings back what the settings say."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    target.settle(a)
    paused = target.replicas()[0].name
    place.fake.all_containers[paused].status = "paused"
    target.serve(a, trust)
    target.settle(a)
    assert target.serves(a)


def test_a_replica_that_crashes_again_and_again_does_not_serve(place: FakePlace) -> None:
    """At no moment between its crashes; half a minute after the last, it does."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    name = target.replicas()[0].name
    for _ in range(3):
        place.fake.end_process(name)
        place.time.seconds += 10
        assert not target.serves(a)
    place.pass_time()
    wait_until(lambda: target.serves(a), "its check has passed")


def test_a_replica_that_never_crashed_serves_at_once(place: FakePlace) -> None:
    """Only a restart makes the time since the start count."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    assert target.serves(a)


def test_an_image_that_the_engine_lacks_is_pulled_by_its_digest(place: FakePlace) -> None:
    """With the environment's login; an image that the engine has is not pulled."""
    a = release("a", config=(other := FakeEngine()).add_image("a"))
    place.codes[a.image.config] = "a"
    place.fake.registry[a.reference] = other.images[a.image.config]
    target = place.target(login={a: ("user", "password")}.get)
    target.serve(a, trust)
    target.serve(a, trust)
    assert place.fake.pulled == [(a.reference, ("user", "password"))]
    assert place.answers() == {"a"}


def test_a_login_is_needed_for_a_pull_alone(place: FakePlace) -> None:
    """A rollout of an image that the engine has needs none."""

    def missing(_: Release) -> NoReturn:
        raise SettingsInvalid(
            "the environment variable REGISTRY_PASSWORD is not set",
            on="the registry's login",
            next="set it",
        )

    target = place.target(login=missing)
    with target.lock():
        target.serve(a := place.release("a"), trust)
        target.settle(a)
    assert target.serves(a)
    with pytest.raises(SettingsInvalid):
        target.serve(release("pushed"), trust)


def test_an_image_is_run_by_its_manifest_digest_where_the_engine_knows_that(
    place: FakePlace,
) -> None:
    """An engine that stores images as OCI content does not know them by their config."""
    a = release("a")
    place.fake.images[a.image.digest] = make_image((b"a",))
    place.codes[a.image.digest] = "a"
    place.target().serve(a, trust)
    assert place.fake.pulled == []
    assert place.answers() == {"a"}


def test_an_image_that_cannot_be_pulled_changes_nothing(place: FakePlace) -> None:
    """The pull comes before any replica is drained."""
    target = place.target()
    target.serve(place.release("a"), trust)
    before = place.fake.state()
    with pytest.raises(RegistryNotFound):
        target.serve(release("never-pushed"), trust)
    assert place.fake.state() == before


def test_two_applications_on_an_engine_do_not_see_each_other(place: FakePlace) -> None:
    """Releases, history and lock belong to one application in one environment."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    other = DockerTarget(
        place.fake,
        App(name="other"),
        "local",
        Docker(port=9000, lock_wait=0.0),
        services_image=lambda: "services",
        supplies=Supplies(lambda _: None),
        require_free_port=lambda _address, _port: None,
        send=place.fake.send,
    )
    with target.lock(), other.lock():
        other.settle()
        assert other.replicas() == ()
        assert target.serves(a)


def test_the_holder_of_the_lock_is_named_with_machine_and_time(place: FakePlace) -> None:
    """A person who waits can ask them."""
    with place.target().lock(), pytest.raises(RolloutLocked) as caught, place.target().lock():
        pytest.fail("two deployers at once")
    assert "process" in caught.value.what
    assert "since" in caught.value.what
    assert caught.value.on == "environment local"


def test_a_lock_says_which_process_of_which_machine_holds_it(place: FakePlace) -> None:
    """By it, another deployer of that machine sees whether the holder has ended."""
    with place.target().lock():
        (lock,) = locks(place)
    assert (lock.labels["dev.twinship.owner"], lock.labels["dev.twinship.machine"]) == (
        str(ProcessId.current()),
        machine_id(),
    )


def test_a_waiting_deployer_continues_when_the_holder_is_killed(place: FakePlace) -> None:
    """The lock ends with its holder's process."""
    holder = place.target()
    waiting = holder.lock()
    waiting.__enter__()
    place.fake.kill_tied_process("twinship-classifier-local-lock")
    with place.target(lock_wait=0.0).lock():
        assert [container.name for container in locks(place)] == ["twinship-classifier-local-lock"]


def locks(place: FakePlace) -> list[Container]:
    """Return the containers that are locks."""
    return place.fake.containers({APP: "classifier", "dev.twinship.role": "lock"})


def test_an_engine_that_stops_during_a_rollout_does_not_hide_the_first_error(
    place: FakePlace,
) -> None:
    """The lock cannot be released on an engine that stopped; the error of the rollout is raised."""

    def lost() -> NoReturn:
        place.fake.is_stopped = True
        raise UndoFailed(
            "the engine went away; and the previous release could not be restored",
            on="replica-1",
            next="start it",
        )

    with pytest.raises(UndoFailed, match="could not be restored"), place.target().lock():
        lost()


def test_an_engine_that_stops_after_a_rollout_is_an_error(place: FakePlace) -> None:
    """A deployer that cannot release the lock has not completed."""
    with pytest.raises(EngineUnavailable), place.target().lock():
        place.fake.is_stopped = True


def test_an_undo_writes_no_file(place: FakePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy's file still admits the old release, so that a full disk does not stop an undo."""

    def full(_container: str, path: str, _data: bytes) -> NoReturn:
        raise DiskFull("the engine has no space left", on=path, next="remove something")

    target = place.target()
    target.serve(a := place.release("a"), trust)
    target.settle(a)
    target.serve(place.release("b"), trust)
    monkeypatch.setattr(place.fake, "put_file", full)
    target.restore(a)
    target.settle(a)
    assert place.answers() == {"a"}


def test_a_proxy_that_was_stopped_for_good_is_restarted_by_the_engine_again(
    place: FakePlace,
) -> None:
    """The next deployer starts it, and from then on the engine does."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    target.settle(a)
    place.fake.disable_restart(PROXY)
    place.fake.stop(PROXY, 0)
    with target.lock():
        assert place.fake.all_containers[PROXY].restart


def test_a_proxy_has_room_for_the_replicas_of_two_releases(place: FakePlace) -> None:
    """The next release finds free slots, however many replicas the settings ask for."""
    target = place.target(replicas=20)
    for code in "ab":
        target.serve(release := place.release(code), trust)
    assert len(place.fake.proxy(PROXY).servers) >= 40
    target.settle(release)
    assert target.serves(release)


def test_the_proxy_listens_on_the_address_of_the_settings(place: FakePlace) -> None:
    """On the loopback address by default."""
    place.target().serve(place.release("a"), trust)
    assert place.fake.all_containers[PROXY].spec.ports == {8080: ("127.0.0.1", 8080)}
    place.target(address="0.0.0.0").serve(place.release("a"), trust)
    assert place.fake.all_containers[PROXY].spec.ports == {8080: ("0.0.0.0", 8080)}


def test_a_proxy_that_moves_gets_the_present_image(place: FakePlace) -> None:
    """It is created again in any case."""
    place.target().serve(place.release("a"), trust)
    place.upgrade()
    place.target().serve(place.release("b"), trust)
    assert place.fake.all_containers[PROXY].spec.image == "services"
    place.target(port=9000).serve(place.release("c"), trust)
    assert place.fake.all_containers[PROXY].spec.image == "newer services"


def test_a_stopped_proxy_whose_port_is_taken_stays(place: FakePlace) -> None:
    """A new one could not be started in its place."""
    place.target().serve(place.release("a"), trust)
    place.fake.stop(PROXY, 0)
    place.upgrade()
    place.fake.listening.add(8080)
    before = place.fake.all_containers[PROXY].id
    with pytest.raises(PortTaken), place.target().lock():
        pytest.fail("the proxy was started on a port on which another program listens")
    assert place.fake.all_containers[PROXY].id == before


@pytest.mark.parametrize("served", [{"ready": "/other"}, {"port": 9999}], ids=["ready", "port"])
def test_a_release_with_another_port_or_health_check_does_not_serve_yet(
    place: FakePlace, served: dict[str, Any]
) -> None:
    """The proxy must be configured with them first."""
    target = place.target()
    changed = place.target(served=served)
    target.serve(a := place.release("a"), trust)
    assert target.serves(a)
    assert not changed.serves(a)
    with changed.lock():
        wait_until(lambda: changed.serves(a), "the release serves as the settings say")


def test_a_proxy_that_is_reached_is_not_restarted(place: FakePlace) -> None:
    """Also if no replica is ready: a restart would end requests and open no port."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    target.settle(a)
    for replica in target.replicas():
        place.lose(replica.name)
    before = place.fake.all_containers[PROXY].as_container()
    place.answers()
    place.answers()
    place.answers()
    assert target.find_endpoint_problem() == "the endpoint responds with status 503"
    with target.lock():
        assert place.fake.all_containers[PROXY].as_container() == before


def test_a_closed_port_is_opened_in_mid_rollout(place: FakePlace) -> None:
    """Replicas keep their requests until then, and the rollout continues."""
    target = place.target()
    with target.lock():
        target.serve(place.release("a"), trust)
        place.close_port()
        target.serve(b := place.release("b"), trust)
        target.settle(b)
    assert target.serves(b)
    assert place.answers() == {"b"}


# --- slots


def test_there_are_slots_next_to_those_of_killed_deployers(place: FakePlace) -> None:
    """The next release finds free slots, and removes the replicas that were left."""
    target = place.target()
    for code in "abcdefgh":
        target.serve(wanted := place.release(code), trust)
        assert place.answers() == {code}
    target.settle(wanted)
    assert target.serves(wanted)


@pytest.mark.parametrize(("many", "few"), [(20, 1), (20, 3)])
def test_a_release_with_far_fewer_replicas_finds_free_slots(
    place: FakePlace, many: int, few: int
) -> None:
    """The slots of the previous release are still in use."""
    place.target(replicas=many).serve(place.release("a"), trust)
    target = place.target(replicas=few)
    with target.lock():
        target.serve(b := place.release("b"), trust)
        target.settle(b)
    assert target.serves(b)
    assert place.answers() == {"b"}


def test_a_proxy_keeps_slots_that_it_does_not_need(place: FakePlace) -> None:
    """It is not configured again for that, and the release serves."""
    place.target(replicas=20).serve(place.release("a"), trust)
    proxy = place.fake.proxy(PROXY)
    servers = proxy.servers
    target = place.target(replicas=1)
    with target.lock():
        target.serve(b := place.release("b"), trust)
        target.settle(b)
    assert target.serves(b)
    assert proxy.servers is servers
    place.fake.end_process(PROXY)
    assert place.answers() == {"b"}


# --- a proxy that crashes


class Crashing(FakeEngine):
    """An engine on which the proxy crashes at a command, is restarted, and responds after a while.

    Attributes:
        asked: how many commands there were.
        crashes: the command at which it crashes.
        silent: how many of the next commands get no response.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.crashes = 0
        self.silent = 0

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        self.asked += 1
        if self.asked == self.crashes:
            self.end_process(PROXY)
            self.silent = 2
        if self.silent:
            self.silent -= 1
            return 1, "socat: no such file\n"
        return super().execute(container, command)


def roll_out(engine: Crashing, crashes: int = 0) -> tuple[FakePlace, Release, int]:
    """Roll out two releases; the proxy crashes at a command of the second rollout.

    Returns:
        The environment, the second release, and the number of commands of its rollout.
    """
    place = FakePlace(engine)
    target = place.target(ready_within=5.0)
    target.serve(a := place.release("a"), trust)
    target.settle(a)
    begun = engine.asked
    engine.crashes = begun + crashes
    target.serve(b := place.release("b", Script(ready_after=1, on_signal={"SIGTERM": 0})), trust)
    assert place.answers() == {"b"}
    target.settle(b)
    return place, b, engine.asked - begun


@pytest.mark.parametrize("ask", range(1, roll_out(Crashing())[2] + 1))
def test_a_proxy_that_crashes_during_a_rollout_admits_the_new_release(ask: int) -> None:
    """At whichever command it crashes, all new replicas serve in the end, and no old ones."""
    place, b, _ = roll_out(Crashing(), ask)
    assert place.fake.events.count(f"{PROXY} opened") == 2
    assert place.answers() == {"b"}
    wait_until(lambda: place.target().serves(b), "all its replicas are healthy")


def test_reading_from_a_proxy_that_does_not_respond_is_no_error(place: FakePlace) -> None:
    """The release does not serve, and its replicas are not healthy, as no request reaches them."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    place.fake.all_containers[PROXY].proxy = None
    assert [replica.state for replica in target.replicas()] == [ReplicaState.STARTING] * 2
    assert not target.serves(a)


def test_reading_waits_for_a_proxy_that_is_about_to_respond() -> None:
    """Just after a crash it is asked again."""
    engine = Crashing()
    target = FakePlace(engine).target()
    target.serve(a := release("a", config=engine.script("image a", Script())), trust)
    target.settle(a)
    engine.crashes = engine.asked + 1
    target.replicas()
    assert engine.all_containers[PROXY].restarts == 1
    assert not engine.silent
    assert target.serves(a)


# --- variables


def test_a_container_is_labelled_with_the_names_of_its_variables(place: FakePlace) -> None:
    """So the image's own are told apart; secrets are in no label."""
    roll_out_variables(place.target(variables=OLD), 1, place.release("a"))
    labels = [found.labels for found in place.fake.containers({APP: place.app, ROLE: "replica"})]
    assert [(found[VALUES], found[SECRETS], found[ATTEMPT]) for found in labels] == [
        ("MODE,OLD", "API_KEY", "1")
    ] * 2


def test_only_replicas_get_variables(place: FakePlace) -> None:
    """The proxy and the lock do not."""
    target = place.target(variables=OLD)
    roll_out_variables(target, 1, place.release("a"))
    with target.lock():
        others = [
            dict(made.spec.environment)
            for made in place.fake.all_containers.values()
            if made.spec.labels[ROLE] != "replica"
        ]
    assert others == [{}, {}]


def test_replicas_of_an_older_version_serve_on(place: FakePlace) -> None:
    """They have no such labels, and count as without variables."""
    target = place.target()
    roll_out_variables(target, 1, a := place.release("a"))
    for made in place.fake.all_containers.values():
        older = {key: text for key, text in made.spec.labels.items() if key != ATTEMPT}
        made.spec = replace(made.spec, labels=older)
    before = target.replicas()
    roll_out_variables(target, 2, a)
    assert (target.replicas(), target.variables()) == (before, NO_VARIABLES)


def test_a_rollback_on_a_docker_host_has_the_variables_of_the_settings(place: FakePlace) -> None:
    """The replicas of its release are gone, unless a killed deployer has left them."""
    roll_out_variables(place.target(variables=OLD), 1, a := place.release("a"))
    roll_out_variables(place.target(variables=NEW), 2, place.release("b"))
    target = place.target(variables=NO_VARIABLES)
    assert target.variables_for(1) == NO_VARIABLES
    assert target.variables_for(2) == NEW
    roll_out_variables(target, 3, a, returns_to=1)
    assert place.environments() == [{}, {}]
