"""Keeping the front door of a Docker host: that there is one, that it is where the settings have it, and works as they say."""

from __future__ import annotations

from collections.abc import Callable

from deploy.clients.docker.protocol import Container, Spec
from deploy.settings.environments import Docker
from deploy.settings.reading import App
from deploy.targets.docker.haproxy import (
    COMMAND,
    CONFIG,
    PORT,
    STATE_FOLDER,
    read_admitted,
    render_configuration,
    slot_address,
)
from deploy.targets.docker.proxy import Proxy
from deploy.targets.docker.state import DockerState, slot_of

_PLACE = "dev.twinship.place"
_SLOTS = 12


class ProxyContainer:
    """Who makes an environment's front door, mends it, and tells it what the settings say.

    Args:
        premises: the environment's.
        app: what serves.
        env: the environment's settings.
        parts: gives the image of the proxy, made if it is missing.
        free: makes sure that nobody listens on an address and port; raises PortTaken.
    """

    def __init__(
        self,
        premises: DockerState,
        app: App,
        env: Docker,
        parts: Callable[[], str],
        free: Callable[[str, int], None],
    ) -> None:
        self._premises = premises
        self._engine = premises.engine
        self._app = app
        self._env = env
        self._parts = parts
        self._free = free
        self._listens = f"{env.address}:{env.port}"

    def ensure(self, room: int = 0) -> Proxy:
        """The running door, made or mended if need be.

        One that runs where it should is kept with the image that it was made from: another one cannot take over its port, and every request
        until it listens would be lost. It takes the image of now when it moves, or has been stopped.

        Args:
            room: how many slots there must be beside those that were taken until now.
        """
        found = self._in_place()
        if not found.running:
            # What was settled last serves again.
            self._write(found.id, self._configuration(self._needed(room), self._remembered(found)))
            self._engine.start(found.id)
            self._engine.keep_running(found.id)
            Proxy(self._engine, found.id).wait()
        door = Proxy(self._engine, found.id)
        due = self._due(door, room)
        if due:
            door.configure(
                self._configuration(
                    due, frozenset(number for number, now in door.slots().items() if now.admitted)
                )
            )
        return door

    def running(self) -> Proxy | None:
        """The door, if its container runs."""
        found = self._premises.proxy()
        return Proxy(self._engine, found.id) if found and found.running else None

    def matches_settings(self) -> bool:
        """Whether the door is open where the settings have it, and works as they say."""
        found = self._premises.proxy()
        return (
            found is not None
            and found.running
            and self._is_here(found)
            and not self._due(Proxy(self._engine, found.id))
        )

    def save_admitted(self, door: Proxy, admitted: frozenset[int]) -> None:
        """From now on the door opens those slots when it is restarted."""
        self._write(door.container, self._configuration(len(door.slots()), admitted))

    # --- its container

    def _in_place(self) -> Container:
        """The door's container, made anew if it is not where it should be, or was stopped and is of another image than the one of now."""
        place = f"{self._listens} {self._parts()}"
        found = self._premises.proxy()
        if found and (
            found.labels.get(_PLACE) == place or (found.running and self._is_here(found))
        ):
            return found
        # Asked before the old door goes: where the new one could not listen, the old one serves on. It has the old port itself.
        self._free(
            self._env.address,
            0 if found and found.running and _port(found) == self._env.port else self._env.port,
        )
        if found:
            self._engine.remove(found.id)
        return self._made(place)

    def _is_here(self, door: Container) -> bool:
        return _listens(door) == self._listens

    def _made(self, place: str) -> Container:
        premises = self._premises
        self._engine.volume(premises.name, premises.labels)
        return self._engine.create(
            Spec(
                name=f"{premises.name}-door",
                image=self._parts(),
                labels=premises.role("door") | {_PLACE: place},
                command=COMMAND,
                network=premises.name,
                ip=slot_address(premises.subnet(), None),
                ports={PORT: (self._env.address, self._env.port)},
                volumes={premises.name: (STATE_FOLDER, False)},
                restart=True,
            )
        )

    # --- what it works by

    def _due(self, door: Proxy, room: int = 0) -> int:
        """With how many slots the door has yet to be configured; 0 if it works as it should. What it has more than needed, it keeps."""
        needed = self._needed(room)
        if door.has(self._configuration(needed)):
            return 0
        slots = max(needed, len(door.slots()))
        return 0 if slots > needed and door.has(self._configuration(slots)) else slots

    def _needed(self, room: int) -> int:
        return max(
            _SLOTS,
            4 * self._env.replicas,
            room + max(map(slot_of, self._premises.replicas()), default=0),
        )

    def _configuration(self, slots: int, admitted: frozenset[int] = frozenset()) -> str:
        return render_configuration(
            self._premises.subnet(),
            slots,
            port=self._app.port,
            ready=self._app.ready,
            in_flight=self._env.in_flight,
            answer_within=self._env.answer_within,
            admitted=admitted,
        )

    def _remembered(self, door: Container) -> frozenset[int]:
        """The slots of the release that was settled last; where the door's file is lost, those of all that runs."""
        files = self._engine.files(door.id, STATE_FOLDER) or {}
        found = read_admitted(files.get(CONFIG, b"").decode("utf-8", "replace"))
        return (
            frozenset(slot_of(replica) for replica in self._premises.replicas() if replica.running)
            if found is None
            else found
        )

    def _write(self, door: str, text: str) -> None:
        # A file that is right is left alone: a full disk, or a crash, might leave half of a new one.
        if (self._engine.files(door, STATE_FOLDER) or {}).get(CONFIG) != text.encode():
            self._engine.put_file(door, f"{STATE_FOLDER}/{CONFIG}", text.encode())


def _listens(door: Container) -> str:
    """The address and port that a door was made for; empty where nothing says so."""
    return door.labels.get(_PLACE, "").partition(" ")[0]


def _port(door: Container) -> int:
    """The port of them; 0 where nothing says so."""
    port = _listens(door).rpartition(":")[2]
    return int(port) if port.isdecimal() else 0
