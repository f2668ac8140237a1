"""One Docker host: N replicas behind a front door, replaced one by one, and a history that lives on the host itself.

Everything is found by labels on the engine, and the history is kept in a volume there, so any clone of the application on
this machine, and any later run after a killed one, sees the same. A replica is only started in a free slot, gets requests
only once its health check passes, and is only stopped when it has none left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import ValidationError

from deploy import progress
from deploy.clients.engine import Container, Engine, Spec
from deploy.entrance import Entrance
from deploy.environments import Docker
from deploy.errors import EngineUnavailable, RolloutLocked
from deploy.owner import Owner
from deploy.records import Attempt, Ending, Record, Release, Rollout
from deploy.rollout import Prove, Replica, failed
from deploy.settings import App
from deploy.targets.door import COMMAND, CONFIG, PORT, STATE, Door, address, configuration, opened

LABEL = "dev.twinship.docker"
APP = "dev.twinship.app"
_ENVIRONMENT = "dev.twinship.environment"
_ROLE = "dev.twinship.role"
_SLOT = "dev.twinship.slot"
_IMAGE = "dev.twinship.image"
_PLACE = "dev.twinship.place"
_OWNER = "dev.twinship.owner"
_SINCE = "dev.twinship.since"

_Record = TypeVar("_Record", bound=Record)

_SLOTS = 12
_POLL = 0.05
_STILLBORN = 30.0
_LINES = 15


class DockerTarget:
    """An environment on a Docker host.

    Args:
        engine: the host's engine.
        app: what serves.
        name: the environment's name.
        env: its settings.
        parts: gives the image of the proxy, made if it is missing.
        login: user and password for the registry, if it needs them.
        free: makes sure that nobody listens on an address and port; raises PortTaken.
    """

    def __init__(
        self,
        engine: Engine,
        app: App,
        name: str,
        env: Docker,
        parts: Callable[[], str],
        login: tuple[str, str] | None,
        free: Callable[[str, int], None],
    ) -> None:
        self._engine, self._app, self._env, self._parts, self._login, self._free = engine, app, env, parts, login, free
        self.environment, self.url, self.entrance = name, env.url, Entrance(env.url)
        self._prefix = f"twinship-{app.name}-{name}"
        self._labels = {LABEL: "yes", APP: app.name, _ENVIRONMENT: name}

    # --- one at a time

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds a container that ends with this process; its unique name is the lock."""
        held = self._taken()
        try:
            self._ensured_door()
            yield
        except BaseException:
            # An engine that is gone has ended the lock as well, and cannot say so; what went wrong before is what has to be told.
            with suppress(EngineUnavailable):
                self._engine.release(held)
            raise
        self._engine.release(held)

    def _taken(self) -> object:
        deadline = time.monotonic() + self._env.lock_wait
        while True:
            labels = self._role("lock") | {_OWNER: str(Owner.current()), _SINCE: datetime.now(UTC).isoformat()}
            spec = Spec(name=f"{self._prefix}-lock", image=self._parts(), labels=labels, command=("cat",))
            held = self._engine.hold(spec)
            if held is not None:
                return held
            holder = self._holder()
            if time.monotonic() > deadline:
                raise RolloutLocked(
                    f"another deployer is at work: {holder or 'unknown'}",
                    on=f"environment {self.environment}",
                    next="wait until it is done, then run again; nothing was changed",
                )
            progress.note(f"waiting for {holder}")
            time.sleep(0.2)

    def _holder(self) -> str:
        """Who has the lock and since when; a lock that was made but never held is removed."""
        for container in self._engine.containers(self._role("lock")):
            owner, since = Owner.parse(container.labels[_OWNER]), datetime.fromisoformat(container.labels[_SINCE])
            if (not container.running and (datetime.now(UTC) - since).total_seconds() > _STILLBORN) or not owner.alive:
                self._engine.remove(container.id)
            return f"{owner.shown}, since {since.astimezone():%H:%M:%S}"
        return ""

    # --- memory

    def history(self) -> tuple[Rollout, ...]:
        """Reads the journal: one file for each beginning, one for each end."""
        door = self._door_container()
        files = (self._engine.files(door.id, STATE) or {}) if door else {}
        endings = {name[:6]: _parsed(Ending, data) for name, data in files.items() if name.endswith("-end.json")}
        begun = {name[:6]: _parsed(Attempt, data) for name, data in files.items() if name.endswith("-begin.json")}
        return tuple(Rollout(attempt=attempt, ending=endings.get(number)) for number, attempt in sorted(begun.items()) if attempt)

    def begin(self, attempt: Attempt) -> None:
        """Writes the beginning of an attempt."""
        self._write(f"{attempt.id:06}-begin.json", attempt.to_json())

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Writes the end of an attempt."""
        self._write(f"{attempt.id:06}-end.json", ending.to_json())

    def _write(self, name: str, text: str) -> None:
        self._engine.put_file(self._ensured_door().id, f"{STATE}/{name}", text.encode())

    # --- what runs

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica, with what the proxy says of it."""
        door = self._running_door()
        slots = door.slots() if door else {}
        found = []
        for container in self._containers():
            slot = slots.get(_slot(container))
            state = "stopped" if not container.running else "starting"
            if container.running and slot and slot.healthy:
                state = "serving" if slot.admitted else "standing by"
            found.append(Replica(name=container.name, image=container.labels[_IMAGE], state=state))
        return tuple(found)

    def serves(self, release: Release) -> bool:
        """Whether all replicas, and no others, run that image and pass their health check, behind a door where the settings have it."""
        door, found = self._door_container(), self.replicas()
        if door is None or not door.labels.get(_PLACE, "").startswith(f"{self._env.address}:{self._env.port} "):
            return False
        return len(found) == self._env.replicas and all(item.image == release.image.digest and item.state == "serving" for item in found)

    # --- moving

    def shift(self, release: Release, prove: Prove | None = None) -> None:
        """Replaces one by one: a new replica must be ready before an old one is asked to take no more.

        A door that is restarted meanwhile, by a crash or with the engine, opens the slots that it opened before.
        """
        self._ensure_image(release)
        door = Door(self._engine, self._ensured_door().id)
        mine = [container for container in self._containers() if container.labels[_IMAGE] == release.image.digest]
        mine = [container for container in mine if self._revived(container)]
        old = [container for container in self._containers() if container.id not in {item.id for item in mine}]
        for container in mine[self._env.replicas :]:
            self._retire(door, container)
        for index in range(self._env.replicas):
            self._admitted(door, mine[index] if index < len(mine) else self._started(door, release))
            if index < len(old):
                door.admit(_slot(old[index]), "drain")
        for container in old:
            door.admit(_slot(container), "drain")
        self._drained(door, [_slot(container) for container in old])

    def settle(self, *keep: Release) -> None:
        """Retires every replica that is not of those releases; from now on a door that is restarted opens to the first of them."""
        door = Door(self._engine, self._ensured_door().id)
        self._remember(door, keep[0].image.digest if keep else "")
        for container in self._containers():
            if container.labels[_IMAGE] not in {release.image.digest for release in keep}:
                self._retire(door, container)

    def _ensure_image(self, release: Release) -> None:
        if self._engine.diff_ids(release.image.config) is None:
            self._engine.pull(release.reference, self._login, progress.note)

    def _revived(self, container: Container) -> bool:
        """Whether a replica found here can be kept; one that died is removed."""
        if container.running:
            return True
        self._engine.remove(container.id)
        return False

    def _started(self, door: Door, release: Release) -> Container:
        """A new replica in a free slot that gets no requests yet."""
        taken = {_slot(container) for container in self._containers()}
        slot = next(number for number in range(1, len(taken) + 2) if number not in taken)
        door.admit(slot, "drain")
        spec = Spec(
            name=f"{self._prefix}-{slot}",
            image=release.image.config,
            labels=self._role("replica") | {_SLOT: str(slot), _IMAGE: release.image.digest},
            network=self._prefix,
            ip=address(self._subnet(), slot),
            grace=int(self._env.drain_within),
        )
        container = self._engine.create(spec)
        self._engine.start(container.id)
        return container

    def _admitted(self, door: Door, container: Container) -> None:
        """Lets requests in once the replica is ready, and from then on has the engine keep it alive."""
        slot, deadline = _slot(container), time.monotonic() + self._env.ready_within
        if not door.slots()[slot].healthy:
            door.admit(slot, "drain")
        while not door.slots()[slot].healthy:
            now = self._now(container)
            if now is None or not now.running:
                code = f" with exit code {now.exit_code}" if now else ""
                raise failed(f"a replica ended{code} before it was ready", container.name, self._engine.logs(container.id, _LINES))
            if time.monotonic() > deadline:
                within = progress.seconds(self._env.ready_within)
                raise failed(f"a replica was not ready within {within}", container.name, self._engine.logs(container.id, _LINES))
            progress.note(f"waiting for {container.name} to be ready")
            time.sleep(_POLL)
        self._engine.keep_running(container.id)
        door.admit(slot, "ready")

    def _drained(self, door: Door, slots: list[int]) -> None:
        """Waits until no request is under way in those slots, or for as long as the settings allow."""
        deadline = time.monotonic() + self._env.drain_within
        while time.monotonic() < deadline:
            now = door.slots()
            left = sum(now[slot].in_flight for slot in slots)
            if not left:
                return
            progress.note(f"waiting for {left} requests to finish")
            time.sleep(_POLL)

    def _retire(self, door: Door, container: Container) -> None:
        slot = _slot(container)
        door.admit(slot, "drain")
        self._drained(door, [slot])
        self._engine.stop(container.id, int(self._env.drain_within))
        self._engine.remove(container.id)
        door.admit(slot, "maint")

    # --- the front door

    def _ensured_door(self) -> Container:
        """The running door, made or mended if need be."""
        place = f"{self._env.address}:{self._env.port} {self._parts()}"
        found = self._door_container()
        if found is None or found.labels.get(_PLACE) != place:
            # Asked before the old door goes: where the new one could not listen, the old one serves on. It has the old port itself.
            self._free(self._env.address, 0 if found and _port(found) == self._env.port else self._env.port)
        if found and found.labels.get(_PLACE) != place:
            self._engine.remove(found.id)
            found = None
        if found is None:
            found = self._created_door(place)
        if not found.running:
            # What was settled last serves again.
            self._write_configuration(found.id, self._remembered(found))
            self._engine.start(found.id)
            self._engine.keep_running(found.id)
            Door(self._engine, found.id).wait()
        door = Door(self._engine, found.id)
        if not door.has(self._configuration(frozenset())):
            door.configure(self._configuration(self._open(door)))
        return found

    def _configuration(self, admitted: frozenset[int]) -> str:
        slots = max(_SLOTS, 4 * self._env.replicas, *map(_slot, self._containers()))
        return configuration(
            self._subnet(),
            slots,
            port=self._app.port,
            ready=self._app.ready,
            in_flight=self._env.in_flight,
            answer_within=self._env.answer_within,
            admitted=admitted,
        )

    def _remember(self, door: Door, image: str) -> None:
        """Writes the slots of an image into the door's file, for when it is restarted; one that was restarted meanwhile opens them now."""
        mine, now = [container for container in self._containers() if container.labels[_IMAGE] == image], door.slots()
        for container in mine:
            if not now[_slot(container)].admitted:
                self._admitted(door, container)
        self._write_configuration(door.container, frozenset(map(_slot, mine)))

    def _remembered(self, door: Container) -> frozenset[int]:
        """The slots of the release that was settled last; where the door's file is lost, those of all that runs."""
        files = self._engine.files(door.id, STATE) or {}
        found = opened(files.get(CONFIG, b"").decode("utf-8", "replace"))
        return frozenset(_slot(container) for container in self._containers() if container.running) if found is None else found

    def _open(self, door: Door) -> frozenset[int]:
        return frozenset(slot.number for slot in door.slots().values() if slot.admitted)

    def _write_configuration(self, door: str, admitted: frozenset[int]) -> None:
        text = self._configuration(admitted).encode()
        # A file that is right is left alone: a full disk, or a crash, might leave half of a new one.
        if (self._engine.files(door, STATE) or {}).get(CONFIG) != text:
            self._engine.put_file(door, f"{STATE}/{CONFIG}", text)

    def _created_door(self, place: str) -> Container:
        self._engine.volume(self._prefix, self._labels)
        return self._engine.create(
            Spec(
                name=f"{self._prefix}-door",
                image=self._parts(),
                labels=self._role("door") | {_PLACE: place},
                command=COMMAND,
                network=self._prefix,
                ip=address(self._subnet(), None),
                ports={PORT: (self._env.address, self._env.port)},
                volumes={self._prefix: (STATE, False)},
                restart=True,
            )
        )

    def _door_container(self) -> Container | None:
        return next(iter(self._engine.containers(self._role("door"))), None)

    def _running_door(self) -> Door | None:
        found = self._door_container()
        return Door(self._engine, found.id) if found and found.running else None

    def _subnet(self) -> str:
        return self._engine.network(self._prefix, self._labels)

    # --- containers

    def _role(self, role: str) -> dict[str, str]:
        return self._labels | {_ROLE: role}

    def _containers(self) -> list[Container]:
        return self._engine.containers(self._role("replica"))

    def _now(self, container: Container) -> Container | None:
        return next((found for found in self._containers() if found.id == container.id), None)


def _slot(container: Container) -> int:
    return int(container.labels[_SLOT])


def _port(door: Container) -> int:
    """The port that a door was made for; 0 where nothing says so."""
    published = door.labels.get(_PLACE, "").partition(" ")[0].rpartition(":")[2]
    return int(published) if published.isdecimal() else 0


def _parsed(kind: type[_Record], data: bytes) -> _Record | None:
    """A record, or None for a file that a killed engine left unfinished."""
    try:
        return kind.from_json(data)
    except ValidationError:
        return None
