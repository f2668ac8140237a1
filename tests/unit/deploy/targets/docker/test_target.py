"""The target on a Docker host, on an engine in memory: its contracts, and what can only be seen from inside."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import pytest

from deploy.clients.docker.protocol import Container, Engine
from deploy.errors import (
    DiskFull,
    EngineUnavailable,
    PortTaken,
    RegistryNotFound,
    RolloutFailed,
    RolloutLocked,
    SettingsInvalid,
    UndoFailed,
)
from deploy.machine.process import ProcessId, machine_id
from deploy.records import Release
from deploy.rollout.target import Target
from deploy.settings.environments import Docker
from deploy.settings.reading import App
from deploy.targets.docker import proxy as door
from deploy.targets.docker.haproxy import slot_address
from deploy.targets.docker.state import APP
from deploy.targets.docker.target import DockerTarget
from tests.contracts.docker_target import DockerPlace, DockerTargetContract
from tests.contracts.engine import until
from tests.contracts.target import trust
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.images import image_of
from tests.fakes.releases import release

DOOR = "twinship-classifier-local-door"


class FakePlace:
    """An environment on an engine in memory."""

    app = "classifier"

    def __init__(self, fake: FakeEngine | None = None) -> None:
        self.fake = fake or FakeEngine()
        self.parts = "parts"
        self.fake.script(self.parts, Script())
        self.codes: dict[str, str] = {}

    @property
    def engine(self) -> Engine:
        return self.fake

    def target(self, *, replicas: int = 2, **changed: Any) -> Target:
        settings: dict[str, Any] = {
            "ready_within": 0.3,
            "drain_within": 0.3,
            "lock_wait": 0.0,
            **changed,
        }
        login = settings.pop("login", lambda: None)
        app = App(name=self.app, **settings.pop("served", {}))
        return DockerTarget(
            self.fake,
            app,
            "local",
            Docker(replicas=replicas, **settings),
            lambda: self.parts,
            login,
            self.free,
        )

    def release(self, code: str, script: Script | None = None) -> Release:
        held = self.fake.script(f"image {code}", script or Script(on_signal={"SIGTERM": 0}))
        self.codes[held] = code
        return release(code, config=held)

    def answers(self, **changed: object) -> set[str]:
        published = {port for _, port in self.fake.made[DOOR].spec.ports.values()}
        assert published == {changed.get("port", 8080)}
        proxy = self.fake.proxy(DOOR)
        proxy.check()
        serving = {made.spec.ip: made for made in self.fake.made.values() if made.running}
        return {
            self.codes[serving[found].spec.image] if found in serving else "nobody"
            for found in proxy.open_to()
        }

    def lose(self, replica: str) -> None:
        self.fake.stop(replica, 0)

    def crash(self, replica: str) -> None:
        self.fake.dies(replica)

    def renew(self) -> None:
        self.parts = "newer parts"
        self.fake.script(self.parts, Script())

    def other_port(self) -> int:
        return 9000

    def taken_port(self) -> int:
        self.fake.listening.add(9100)
        return 9100

    def free(self, address: str, port: int) -> None:
        """What the machine says of an address and a port."""
        if address not in ("127.0.0.1", "0.0.0.0"):
            raise SettingsInvalid(
                "nothing can listen there", on=f"{address}:{port}", next="name another"
            )
        published = {
            port
            for made in self.fake.made.values()
            if made.running
            for _, port in made.spec.ports.values()
        }
        if port in self.fake.listening | published:
            raise PortTaken(
                "another program listens on the port", on=f"{address}:{port}", next="stop it"
            )


class TestDockerTarget(DockerTargetContract):
    """The target keeps its contracts on an engine in memory."""

    patience = 0.2

    @pytest.fixture
    def docker(self) -> DockerPlace:
        """An empty engine."""
        return FakePlace()


@pytest.fixture
def place() -> FakePlace:
    """An empty engine."""
    return FakePlace()


def test_an_old_replica_is_drained_only_when_a_new_one_takes_requests(place: FakePlace) -> None:
    """At every moment of a rollout as many replicas as asked for are open, and each was found ready before it was opened."""
    target = place.target()
    target.serve(place.release("a"), trust)
    proxy = place.fake.proxy(DOOR)
    proxy.asked.clear()
    target.serve(place.release("b", Script(ready_after=2)), trust)
    opened = {"1": "ready", "2": "ready"}
    for slot, state in (
        re.findall(r"slot-(\d+) state (\w+)", told)[0]
        for told in proxy.asked
        if told.startswith("set")
    ):
        opened[slot] = state
        assert list(opened.values()).count("ready") >= 2
    assert opened == {"1": "drain", "2": "drain", "3": "ready", "4": "ready"}
    assert proxy.blind == []


def test_a_replica_is_drained_before_it_is_stopped(place: FakePlace) -> None:
    """Settling closes a slot, waits for its requests, stops the replica, and only then frees the slot."""
    target = place.target()
    target.serve(place.release("a"), trust)
    target.serve(b := place.release("b"), trust)
    proxy = place.fake.proxy(DOOR)
    proxy.asked.clear()
    happened: list[str] = place.fake.happened
    happened.clear()
    target.settle(b)
    assert happened == [
        f"twinship-classifier-local-{slot} {what}"
        for slot in (1, 2)
        for what in ("stopped", "removed")
    ]
    assert [told.rsplit(maxsplit=1)[1] for told in proxy.asked if "slot-1 " in told] == [
        "drain",
        "maint",
    ]


def test_requests_under_way_are_waited_for(place: FakePlace) -> None:
    """A replica is stopped when its last request is answered."""
    target = place.target(drain_within=20.0)
    target.serve(place.release("a"), trust)
    proxy = place.fake.proxy(DOOR)
    proxy.busy = {slot_address("172.30.0.0/24", 1): 30}
    proxy.ends = 2
    target.serve(b := place.release("b"), trust)
    assert list(proxy.busy.values()) == [0]
    target.settle(b)
    assert target.serves(b)


def test_a_request_without_end_is_not_waited_for_longer_than_the_settings_allow(
    place: FakePlace,
) -> None:
    """A client that never leaves cannot keep a release from being replaced."""
    target = place.target(drain_within=0.1)
    target.serve(place.release("a"), trust)
    place.fake.proxy(DOOR).busy[slot_address("172.30.0.0/24", 1)] = 1
    target.serve(b := place.release("b"), trust)
    target.settle(b)
    assert target.serves(b)


def test_replicas_that_are_not_proven_ready_are_not_kept_alive(place: FakePlace) -> None:
    """The engine restarts a replica only once it has been ready, so that a crash is found instead of repeated."""
    target = place.target()
    with pytest.raises(RolloutFailed):
        target.serve(place.release("a", Script(ready_after=None)), trust)
    assert [made.restart for made in place.fake.made.values() if made.spec.name != DOOR] == [False]


def test_a_replica_that_dies_while_it_is_waited_for_ends_the_rollout_at_once(
    place: FakePlace,
) -> None:
    """Nobody waits for a dead replica until the time is up."""
    target = place.target(ready_within=3600.0)
    with pytest.raises(RolloutFailed, match="exit code 137"):
        target.serve(place.release("a", Script(exits=137)), trust)


def test_an_image_that_the_engine_lacks_is_pulled_by_its_digest(place: FakePlace) -> None:
    """With the environment's login; one that is there is not pulled."""
    a = release("a", config=(other := FakeEngine()).hold_image("a"))
    place.codes[a.image.config] = "a"
    place.fake.registry[a.reference] = other.held[a.image.config]
    target = place.target(login=lambda: ("user", "password"))
    target.serve(a, trust)
    target.serve(a, trust)
    assert place.fake.pulled == [(a.reference, ("user", "password"))]
    assert place.answers() == {"a"}


def test_a_login_is_asked_for_when_an_image_is_pulled(place: FakePlace) -> None:
    """Who only looks, or goes back to what is there, needs none."""

    def missing() -> NoReturn:
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


def test_an_image_is_run_by_its_manifest_where_the_engine_keeps_that(place: FakePlace) -> None:
    """An engine that keeps images as OCI content knows none by its config; what it holds is not pulled."""
    a = release("a")
    place.fake.held[a.image.digest] = image_of((b"a",))
    place.codes[a.image.digest] = "a"
    place.target().serve(a, trust)
    assert place.fake.pulled == []
    assert place.answers() == {"a"}


def test_an_image_that_cannot_be_pulled_changes_nothing(place: FakePlace) -> None:
    """Before anything is drained, the image is there."""
    target = place.target()
    target.serve(place.release("a"), trust)
    before = place.fake.state()
    with pytest.raises(RegistryNotFound):
        target.serve(release("never-pushed"), trust)
    assert place.fake.state() == before


def test_two_applications_on_an_engine_do_not_see_each_other(place: FakePlace) -> None:
    """Releases, history and locks belong to one application in one environment."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    other = DockerTarget(
        place.fake,
        App(name="other"),
        "local",
        Docker(port=9000, lock_wait=0.0),
        services_image=lambda: "parts",
        login=lambda: None,
        require_free_port=lambda _address, _port: None,
    )
    with target.lock(), other.lock():
        other.settle()
        assert other.replicas() == ()
        assert target.serves(a)


def test_a_holder_is_told_with_machine_and_time(place: FakePlace) -> None:
    """Whoever has to wait can go and ask."""
    with place.target().lock(), pytest.raises(RolloutLocked) as caught, place.target().lock():
        pytest.fail("two deployers at once")
    assert "process" in caught.value.what
    assert "since" in caught.value.what
    assert caught.value.on == "environment local"


def test_a_lock_says_which_process_of_which_machine_holds_it(place: FakePlace) -> None:
    """Another deployer of that machine can tell by it whether the holder has ended."""
    with place.target().lock():
        (lock,) = locks(place)
    assert (lock.labels["dev.twinship.owner"], lock.labels["dev.twinship.machine"]) == (
        str(ProcessId.current()),
        machine_id(),
    )


def test_a_waiting_deployer_goes_on_when_the_holder_is_killed(place: FakePlace) -> None:
    """The lock ends with its holder's process."""
    holder = place.target()
    waiting = holder.lock()
    waiting.__enter__()
    place.fake.holder_dies("twinship-classifier-local-lock")
    with place.target(lock_wait=0.0).lock():
        assert [container.name for container in locks(place)] == ["twinship-classifier-local-lock"]


def locks(place: FakePlace) -> list[Container]:
    """The containers that are locks."""
    return place.fake.containers({APP: "classifier", "dev.twinship.role": "lock"})


def test_an_engine_that_ends_in_mid_rollout_does_not_hide_what_went_wrong(place: FakePlace) -> None:
    """The lock cannot be given back to an engine that is gone; the error is what the rollout said of it."""

    def lost() -> NoReturn:
        place.fake.gone = True
        raise UndoFailed(
            "the engine went away; and the previous release could not be put back",
            on="replica-1",
            next="start it",
        )

    with pytest.raises(UndoFailed, match="could not be put back"), place.target().lock():
        lost()


def test_an_engine_that_ends_after_a_rollout_is_told(place: FakePlace) -> None:
    """Whoever cannot give the lock back has not come to the end."""
    with pytest.raises(EngineUnavailable), place.target().lock():
        place.fake.gone = True


def test_taking_a_release_back_writes_no_file(
    place: FakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The door's file has said all along what shall serve, so that a full disk does not keep the old release from serving again."""

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


def test_a_door_that_was_stopped_for_good_is_kept_running_again(place: FakePlace) -> None:
    """The next deployer opens it, and from then on the engine does."""
    target = place.target()
    target.serve(a := place.release("a"), trust)
    target.settle(a)
    place.fake.keep_stopped(DOOR)
    place.fake.stop(DOOR, 0)
    with target.lock():
        assert place.fake.made[DOOR].restart


def test_a_proxy_has_room_for_the_replicas_of_two_releases(place: FakePlace) -> None:
    """However many replicas are asked for, the next release finds free slots beside them."""
    target = place.target(replicas=20)
    for code in "ab":
        target.serve(release := place.release(code), trust)
    assert len(place.fake.proxy(DOOR).servers) >= 40
    target.settle(release)
    assert target.serves(release)


def test_the_door_listens_on_the_address_of_the_settings(place: FakePlace) -> None:
    """On the loopback address unless another is asked for."""
    place.target().serve(place.release("a"), trust)
    assert place.fake.made[DOOR].spec.ports == {8080: ("127.0.0.1", 8080)}
    place.target(address="0.0.0.0").serve(place.release("a"), trust)
    assert place.fake.made[DOOR].spec.ports == {8080: ("0.0.0.0", 8080)}


def test_a_door_that_moves_takes_the_image_of_now(place: FakePlace) -> None:
    """It has to be made anew in any case."""
    place.target().serve(place.release("a"), trust)
    place.renew()
    place.target().serve(place.release("b"), trust)
    assert place.fake.made[DOOR].spec.image == "parts"
    place.target(port=9000).serve(place.release("c"), trust)
    assert place.fake.made[DOOR].spec.image == "newer parts"


def test_a_stopped_door_whose_port_was_taken_meanwhile_is_not_given_up(place: FakePlace) -> None:
    """The one that would be made in its place could not be started."""
    place.target().serve(place.release("a"), trust)
    place.fake.stop(DOOR, 0)
    place.renew()
    place.fake.listening.add(8080)
    before = place.fake.made[DOOR].id
    with pytest.raises(PortTaken), place.target().lock():
        pytest.fail("it was opened on a port that another program listens on")
    assert place.fake.made[DOOR].id == before


@pytest.mark.parametrize("served", [{"ready": "/other"}, {"port": 9999}], ids=["ready", "port"])
def test_a_release_that_is_asked_otherwise_does_not_serve_until_the_door_is_told(
    place: FakePlace, served: dict[str, Any]
) -> None:
    """Where replicas listen, and at which path they say that they are ready, is the door's to know."""
    target = place.target()
    changed = place.target(served=served)
    target.serve(a := place.release("a"), trust)
    assert target.serves(a)
    assert not changed.serves(a)
    with changed.lock():
        until(lambda: changed.serves(a), "the release serves as the settings say")


# --- slots


def test_there_is_a_slot_for_every_replica_beside_what_was_left(place: FakePlace) -> None:
    """However many replicas killed deployers have left, the next release finds free slots, and clears up."""
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
    """Those of the release before are all taken still."""
    place.target(replicas=many).serve(place.release("a"), trust)
    target = place.target(replicas=few)
    with target.lock():
        target.serve(b := place.release("b"), trust)
        target.settle(b)
    assert target.serves(b)
    assert place.answers() == {"b"}


def test_a_door_keeps_the_slots_that_it_has_more_than_needed(place: FakePlace) -> None:
    """It is not configured anew for having too many, nor does the release count as not serving for that."""
    place.target(replicas=20).serve(place.release("a"), trust)
    proxy = place.fake.proxy(DOOR)
    servers = proxy.servers
    target = place.target(replicas=1)
    with target.lock():
        target.serve(b := place.release("b"), trust)
        target.settle(b)
    assert target.serves(b)
    assert proxy.servers is servers
    place.fake.dies(DOOR)
    assert place.answers() == {"b"}


# --- a door that crashes


class Crashing(FakeEngine):
    """An engine on which the door crashes as something is asked of it; it is started again, and needs a while to answer.

    Attributes:
        asked: how often the door was asked.
        crashes: at which of these asks it crashes.
        silent: how many of the next ones find nobody.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.crashes = 0
        self.silent = 0

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        self.asked += 1
        if self.asked == self.crashes:
            self.dies(DOOR)
            self.silent = 2
        if self.silent:
            self.silent -= 1
            return 1, "socat: no such file\n"
        return super().execute(container, command)


def rolled(engine: Crashing, crashes: int = 0) -> tuple[FakePlace, Release, int]:
    """Rolls out a release and another, with a door that crashes at an ask of the second rollout; also gives how many asks that had."""
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


@pytest.mark.parametrize("ask", range(1, rolled(Crashing())[2] + 1))
def test_a_door_that_crashes_in_mid_rollout_leads_to_the_new_release(ask: int) -> None:
    """Whenever it does, all its replicas serve in the end, and the old ones do not when it is proven."""
    place, b, _ = rolled(Crashing(), ask)
    assert place.fake.happened.count(f"{DOOR} opened") == 2
    assert place.answers() == {"b"}
    until(lambda: place.target().serves(b), "all its replicas are healthy")


def test_looking_at_a_door_that_does_not_answer_is_no_error(
    place: FakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release does not count as serving, and its replicas not as healthy, for nobody comes to them."""
    monkeypatch.setattr(door, "_WITHIN", 0.1)
    target = place.target()
    target.serve(a := place.release("a"), trust)
    place.fake.made[DOOR].proxy = None
    assert [replica.state for replica in target.replicas()] == ["starting"] * 2
    assert not target.serves(a)


def test_looking_waits_for_a_door_that_is_about_to_answer() -> None:
    """In the moment after a crash it is asked again, and tells what it found."""
    engine = Crashing()
    target = FakePlace(engine).target()
    target.serve(a := release("a", config=engine.script("image a", Script())), trust)
    target.settle(a)
    engine.crashes = engine.asked + 1
    target.replicas()
    assert engine.made[DOOR].restarts == 1
    assert not engine.silent
    assert target.serves(a)
