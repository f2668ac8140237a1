"""One Docker host: N replicas behind a front door, replaced one by one, and a history that lives on the host itself.

Everything is found by labels on the engine, and the history is kept in a volume there, so any clone of the application on
this machine, and any later run after a killed one, sees the same. A replica is only started in a free slot, gets requests
only once its health check passes, and is only stopped when it has none left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy import progress
from deploy.clients.docker.protocol import Container, Engine, Spec, find_image_id
from deploy.clients.http import Endpoint
from deploy.errors import EngineFailed
from deploy.records import Attempt, Ending, Release, Rollout
from deploy.rollout.target import Prove, Replica, replica_error
from deploy.settings.environments import Docker
from deploy.settings.reading import App
from deploy.targets.docker.haproxy import slot_address
from deploy.targets.docker.history import History
from deploy.targets.docker.lock import Lock
from deploy.targets.docker.proxy import Proxy, Slot
from deploy.targets.docker.proxy_container import ProxyContainer
from deploy.targets.docker.state import IMAGE, SLOT, DockerState, slot_of

_POLL = 0.05
_LINES = 15


class DockerTarget:
    """An environment on a Docker host.

    Args:
        engine: the host's engine.
        app: what serves.
        name: the environment's name.
        env: its settings.
        parts: gives the image of the proxy, made if it is missing.
        login: gives user and password for the registry, if it has them; asked when an image has to be pulled.
        free: makes sure that nobody listens on an address and port; raises PortTaken.
    """

    def __init__(
        self,
        engine: Engine,
        app: App,
        name: str,
        env: Docker,
        parts: Callable[[], str],
        login: Callable[[], tuple[str, str] | None],
        free: Callable[[str, int], None],
    ) -> None:
        self._engine = engine
        self._env = env
        self._login = login
        self.environment = name
        self.url = env.url
        self.endpoint = Endpoint(env.url)
        self._premises = DockerState(engine, app.name, name)
        self._lock = Lock(self._premises, parts)
        self._keeper = ProxyContainer(self._premises, app, env, parts, free)
        self._history = History(self._premises, self._keeper)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the lock, with the door open."""
        with self._lock.acquire(self._env.lock_wait):
            self._keeper.ensure()
            yield

    # --- memory

    def history(self) -> tuple[Rollout, ...]:
        """Reads the history."""
        return self._history.read()

    def begin(self, attempt: Attempt) -> None:
        """Writes the beginning of an attempt."""
        self._history.begin(attempt)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Writes the end of an attempt."""
        self._history.end(attempt, ending)

    # --- what runs

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica, with what the proxy says of it."""
        slots = self._slots()
        found = []
        for container in self._premises.replicas():
            seen = slots.get(slot_of(container))
            state = "stopped" if not container.running else "starting"
            if container.running and seen and seen.healthy:
                state = "serving" if seen.admitted else "standing by"
            found.append(Replica(name=container.name, image=container.labels[IMAGE], state=state))
        return tuple(found)

    def _slots(self) -> dict[int, Slot]:
        """What the proxy says of its slots; nothing, where it does not run or, after a while, does not answer."""
        door = self._keeper.running()
        try:
            return door.slots() if door else {}
        except EngineFailed:
            return {}

    def serves(self, release: Release) -> bool:
        """Whether all replicas, and no others, run that image and pass their health check, behind a door that is as the settings say."""
        found = self.replicas()
        whole = len(found) == self._env.replicas and all(item.state == "serving" for item in found)
        return (
            whole
            and {item.image for item in found} == {release.image.digest}
            and self._keeper.matches_settings()
        )

    # --- moving

    def shift(self, release: Release, prove: Prove | None = None) -> None:
        """Replaces one by one: a new replica must be ready before an old one is asked to take no more.

        A door that is restarted meanwhile, by a crash or with the engine, opens the slots that it opened before; it is told anew.
        """
        self._ensure_image(release)
        mine = [
            container
            for container in self._premises.replicas()
            if container.labels[IMAGE] == release.image.digest
        ]
        mine = [container for container in mine if self._revived(container)]
        old = [
            container
            for container in self._premises.replicas()
            if container.id not in {item.id for item in mine}
        ]
        door = self._keeper.ensure(room=max(0, self._env.replicas - len(mine)))
        for container in mine[self._env.replicas :]:
            self._retire(door, container)
        new: list[Container] = []
        for index in range(self._env.replicas):
            new.append(mine[index] if index < len(mine) else self._started(door, release))
            self._admitted(door, new[-1])
            if index < len(old):
                door.admit(slot_of(old[index]), "drain")
        self._hand_over(door, old, new)

    def settle(self, *keep: Release) -> None:
        """Retires every replica that is not of those releases; from now on a door that is restarted opens to the first of them."""
        door = self._keeper.ensure()
        self._remember(door, keep[0].image.digest if keep else "")
        for container in self._premises.replicas():
            if container.labels[IMAGE] not in {release.image.digest for release in keep}:
                self._retire(door, container)

    def _remember(self, door: Proxy, image: str) -> None:
        """Has the door open the slots of an image when it is restarted; one that was restarted meanwhile opens them now."""
        mine = [
            container for container in self._premises.replicas() if container.labels[IMAGE] == image
        ]
        # In this order: a door that is restarted between the two opens them by itself.
        self._keeper.save_admitted(door, frozenset(map(slot_of, mine)))
        self._let_in(door, mine)

    def _ensure_image(self, release: Release) -> None:
        if find_image_id(self._engine, release.image) is None:
            self._engine.pull(release.reference, self._login(), progress.report)

    def _revived(self, container: Container) -> bool:
        """Whether a replica found here can be kept; one that died is removed."""
        if container.running:
            return True
        self._engine.remove(container.id)
        return False

    def _started(self, door: Proxy, release: Release) -> Container:
        """A new replica in a free slot that gets no requests yet."""
        premises = self._premises
        taken = {slot_of(container) for container in premises.replicas()}
        number = next(number for number in range(1, len(taken) + 2) if number not in taken)
        door.admit(number, "drain")
        spec = Spec(
            name=f"{premises.name}-{number}",
            image=find_image_id(self._engine, release.image) or release.reference,
            labels=premises.role("replica") | {SLOT: str(number), IMAGE: release.image.digest},
            network=premises.name,
            ip=slot_address(premises.subnet(), number),
            grace=int(self._env.drain_within),
        )
        container = self._engine.create(spec)
        self._engine.start(container.id)
        return container

    def _admitted(self, door: Proxy, container: Container) -> None:
        """Lets requests in once the replica is ready, and from then on has the engine keep it alive."""
        number = slot_of(container)
        deadline = time.monotonic() + self._env.ready_within
        if not door.slots()[number].healthy:
            door.admit(number, "drain")
        while not (seen := door.slots()[number]).healthy:
            if not seen.checked:
                # A door that was restarted meanwhile does not know of this replica.
                door.admit(number, "drain")
            now = self._now(container)
            if now is None or not now.running:
                code = f" with exit code {now.exit_code}" if now else ""
                raise replica_error(
                    f"a replica ended{code} before it was ready",
                    container.name,
                    self._engine.logs(container.id, _LINES),
                )
            if time.monotonic() > deadline:
                within = progress.format_seconds(self._env.ready_within)
                raise replica_error(
                    f"a replica was not ready within {within}",
                    container.name,
                    self._engine.logs(container.id, _LINES),
                )
            progress.report(f"waiting for {container.name} to be ready")
            time.sleep(_POLL)
        self._engine.keep_running(container.id)
        door.admit(number, "ready")

    def _hand_over(self, door: Proxy, old: list[Container], new: list[Container]) -> None:
        """Lets no more requests into the old replicas, once all the new ones take them, and waits until theirs are done.

        A door that was restarted meanwhile has closed the new ones, and opened the old ones again.
        """
        while True:
            self._let_in(door, new)
            for container in old:
                door.admit(slot_of(container), "drain")
            self._drained(door, old)
            if not self._kept_out(door, new):
                return

    def _let_in(self, door: Proxy, containers: list[Container]) -> None:
        """Lets requests into those replicas that get none."""
        for container in self._kept_out(door, containers):
            self._admitted(door, container)

    def _kept_out(self, door: Proxy, containers: list[Container]) -> list[Container]:
        slots = door.slots()
        return [container for container in containers if not slots[slot_of(container)].admitted]

    def _drained(self, door: Proxy, containers: list[Container]) -> None:
        """Waits until no request is under way in those replicas, or for as long as the settings allow."""
        deadline = time.monotonic() + self._env.drain_within
        while time.monotonic() < deadline:
            now = door.slots()
            left = sum(now[slot_of(container)].in_flight for container in containers)
            if not left:
                return
            progress.report(f"waiting for {left} requests to finish")
            time.sleep(_POLL)

    def _retire(self, door: Proxy, container: Container) -> None:
        door.admit(slot_of(container), "drain")
        self._drained(door, [container])
        self._engine.stop(container.id, int(self._env.drain_within))
        self._engine.remove(container.id)
        door.admit(slot_of(container), "maint")

    def _now(self, container: Container) -> Container | None:
        return next(
            (found for found in self._premises.replicas() if found.id == container.id), None
        )
