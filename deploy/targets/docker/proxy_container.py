"""The proxy's container on a Docker host: created, started and configured as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable

from deploy.clients.docker.protocol import Container, Spec
from deploy.clock import REAL, Clock
from deploy.errors import EngineFailed
from deploy.settings.app import App
from deploy.settings.environments import Docker
from deploy.targets.docker.haproxy import (
    COMMAND,
    CONFIG,
    PORT,
    STATE_FOLDER,
    count_slots,
    read_admitted,
    render_configuration,
    slot_address,
)
from deploy.targets.docker.proxy import Proxy, ProxyState
from deploy.targets.docker.published_port import PublishedPort
from deploy.targets.docker.state import DockerState, slot_of

log = logging.getLogger(__name__)

_PLACE = "dev.twinship.place"
_STOPS_WITHIN = 5
_SLOTS = 12


class ProxyContainer:
    """The container in which an environment's proxy runs.

    Args:
        state: finds what the environment has on the host.
        app: the application behind the proxy.
        env: the environment's settings.
        image: returns the proxy's image, and builds it if it is missing.
        published_port: where clients reach the proxy.
        require_free_port: raises PortTaken if another program listens on an address and port.
        clock: measures time and lets it pass.
    """

    def __init__(
        self,
        state: DockerState,
        app: App,
        env: Docker,
        image: Callable[[], str],
        published_port: PublishedPort,
        require_free_port: Callable[[str, int], None],
        clock: Clock = REAL,
    ) -> None:
        self._state = state
        self._engine = state.engine
        self._app = app
        self._env = env
        self._image = image
        self._published_port = published_port
        self._require_free_port = require_free_port
        self._clock = clock
        self._address = f"{env.address}:{env.port}"

    def ensure(self, room: int = 0) -> Proxy:
        """Return the running proxy; create, start and configure it first where that is needed.

        A proxy whose published port is closed is restarted, as no request reaches it.

        A running proxy at the right address keeps the image that it was created from: a new one
        cannot take over its port, and every request until that one listens would be lost. It gets
        the present image when its address changes, or after it was stopped.

        Args:
            room: how many slots are needed in addition to those of the replicas that exist.

        Raises:
            EngineFailed: the environment's network has too few addresses.
        """
        self._require_addresses(room)
        container = self._ensure_container()
        proxy = self._connect(container)
        if not self._is_reachable(container):
            # The engine opens a published port when its container starts, and at no other time.
            self._engine.stop(container.id, _STOPS_WITHIN)
            self._start(container, room)
            proxy.wait()
        state = proxy.read()
        slots = self._missing_slots(state, room)
        if slots:
            admitted = {number for number, slot in state.slots.items() if slot.admitted}
            proxy.configure(self._configuration(slots, frozenset(admitted)))
        return proxy

    def running(self) -> Proxy | None:
        """Return the proxy, if its container runs."""
        container = self._state.proxy()
        return self._connect(container) if container and container.running else None

    def matches_settings(self, state: ProxyState) -> bool:
        """Return whether the proxy runs with the address and configuration of the settings.

        Args:
            state: what it says of itself.
        """
        container = self._state.proxy()
        return (
            container is not None
            and container.running
            and _read_address(container) == self._address
            and not self._missing_slots(state)
        )

    def save_admitted(self, proxy: Proxy, admitted: frozenset[int]) -> None:
        """Have the proxy admit those slots whenever it is restarted."""
        self._write(proxy.container, self._configuration(len(proxy.slots()), admitted))

    def _is_reachable(self, container: Container) -> bool:
        """Return whether the container runs and its published port accepts connections."""
        if container.running and self._published_port.is_closed():
            log.warning("%s refuses connections: the proxy is restarted", self._address)
            return False
        return container.running

    def _connect(self, container: Container) -> Proxy:
        return Proxy(self._engine, container.id, self._clock)

    # --- its container

    def _ensure_container(self) -> Container:
        """Return the container, created again if it cannot be used as it is."""
        image = self._image()
        place = f"{self._address} {image}"
        found = self._state.proxy()
        if found and (
            found.labels.get(_PLACE) == place
            or (found.running and _read_address(found) == self._address)
        ):
            return found
        # Checked before the old container goes: it serves on if the new one could not listen.
        # Its own port is free for the new one.
        own_port = found is not None and found.running and _read_port(found) == self._env.port
        self._require_free_port(self._env.address, 0 if own_port else self._env.port)
        if found:
            self._engine.remove(found.id)
        return self._create(image, place)

    def _create(self, image: str, place: str) -> Container:
        state = self._state
        self._engine.ensure_volume(state.name, state.labels)
        return self._engine.create(
            Spec(
                name=state.proxy_name,
                image=image,
                labels=state.proxy_labels | {_PLACE: place},
                command=COMMAND,
                network=state.name,
                ip=slot_address(state.subnet(), None),
                ports={PORT: (self._env.address, self._env.port)},
                volumes={state.name: (STATE_FOLDER, False)},
                restart=True,
            )
        )

    def _start(self, container: Container, room: int) -> None:
        """Start the container with the slots admitted that were admitted after the last rollout."""
        admitted = self._read_admitted(container)
        self._write(container.id, self._configuration(self._needed_slots(room), admitted))
        self._engine.start(container.id)
        self._engine.enable_restart(container.id)

    # --- its configuration

    def _missing_slots(self, state: ProxyState, room: int = 0) -> int:
        """Return the slots with which the proxy must be configured; 0 if it is as needed.

        Slots that it has in addition to those needed are kept.
        """
        needed = self._needed_slots(room)
        if state.has(self._configuration(needed)):
            return 0
        slots = max(needed, len(state.slots))
        return 0 if slots > needed and state.has(self._configuration(slots)) else slots

    def _needed_slots(self, room: int) -> int:
        """Return how many slots the proxy needs; a small network has addresses for few of them."""
        wanted = max(_SLOTS, 4 * self._env.replicas, room + self._used_slots())
        return min(wanted, count_slots(self._state.subnet()))

    def _used_slots(self) -> int:
        return max(map(slot_of, self._state.replicas()), default=0)

    def _require_addresses(self, room: int) -> None:
        """Raise if the network has no addresses for a rollout: old and new replicas run together.

        Raises:
            EngineFailed: it has too few.
        """
        subnet = self._state.subnet()
        needed = max(2 * self._env.replicas, room + self._used_slots())
        possible = count_slots(subnet)
        if possible < needed:
            raise EngineFailed(
                f"the network has addresses for {possible} replicas, and a rollout needs {needed}",
                on=f"{subnet}, which the engine's address pools gave {self._state.name}",
                next="set fewer `replicas`, or larger networks in `default-address-pools` of the "
                "engine's daemon.json; after that `invoke down --purge` removes this network",
            )

    def _configuration(self, slots: int, admitted: frozenset[int] = frozenset()) -> str:
        return render_configuration(
            self._state.subnet(),
            slots,
            port=self._app.port,
            ready=self._app.ready,
            idempotent=self._app.idempotent,
            private=self._env.private,
            in_flight=self._env.in_flight,
            answer_within=self._env.answer_within,
            admitted=admitted,
        )

    def _read_admitted(self, container: Container) -> frozenset[int]:
        """Return the slots that the file admits; those of all running replicas if it is damaged."""
        files = self._engine.files(container.id, STATE_FOLDER) or {}
        admitted = read_admitted(files.get(CONFIG, b"").decode("utf-8", "replace"))
        if admitted is None:
            return frozenset(slot_of(item) for item in self._state.replicas() if item.running)
        return admitted

    def _write(self, container: str, text: str) -> None:
        # An equal file is not written: a full disk or a crash can leave half of a new one.
        if (self._engine.files(container, STATE_FOLDER) or {}).get(CONFIG) != text.encode():
            self._engine.put_file(container, f"{STATE_FOLDER}/{CONFIG}", text.encode())


def _read_address(container: Container) -> str:
    """Return the address and port that a container was created for; empty if it has no label."""
    return container.labels.get(_PLACE, "").partition(" ")[0]


def _read_port(container: Container) -> int:
    port = _read_address(container).rpartition(":")[2]
    return int(port) if port.isdecimal() else 0
