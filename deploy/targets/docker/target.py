"""One Docker host: replicas behind a proxy, which are replaced one by one.

Everything is found by labels on the engine, and the history is in a volume there, so that another
clone of the application on this machine, and a later run after a killed one, see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from deploy import progress
from deploy.clients.docker.protocol import Container, Engine, find_image_id
from deploy.clients.http import Endpoint, SendOnce, send
from deploy.clock import REAL, Clock
from deploy.errors import EngineFailed
from deploy.machine.labels import IMAGE
from deploy.records import Attempt, Ending, Release, Rollout
from deploy.rollout.history import current
from deploy.rollout.logs import LogSource
from deploy.rollout.target import Prove, Replica, ReplicaState
from deploy.settings.app import App
from deploy.settings.environments import Docker
from deploy.targets.docker.history import History
from deploy.targets.docker.lock import Lock
from deploy.targets.docker.logs import find_log_sources
from deploy.targets.docker.proxy import Proxy, ProxyState, Slot
from deploy.targets.docker.proxy_container import ProxyContainer
from deploy.targets.docker.published_port import PublishedPort
from deploy.targets.docker.replicas import Replicas
from deploy.targets.docker.state import DockerState, attempt_of, slot_of, variables_of
from deploy.variables import NO_VARIABLES, Variables

_STABLE_AFTER = timedelta(seconds=30)


@dataclass(frozen=True)
class Supplies:
    """What new replicas need from outside of the host.

    Attributes:
        login: returns user and password for the pull of a release, or None.
        variables: returns the variables of the settings, or raises SettingsInvalid.
    """

    login: Callable[[Release], tuple[str, str] | None]
    variables: Callable[[], Variables] = lambda: NO_VARIABLES


class DockerTarget:
    """An environment on a Docker host.

    Args:
        engine: the host's engine.
        app: the application to serve.
        name: the environment's name.
        env: the environment's settings.
        services_image: returns the image of the proxy and the lock, and builds it if missing.
        supplies: what replicas need from outside of the host.
        require_free_port: raises PortTaken if another program listens on an address and port.
        send: sends one request to an endpoint, or raises NoResponse.
        clock: measures time and lets it pass.
    """

    def __init__(
        self,
        engine: Engine,
        app: App,
        name: str,
        env: Docker,
        services_image: Callable[[], str],
        supplies: Supplies,
        require_free_port: Callable[[str, int], None],
        send: SendOnce = send,
        clock: Clock = REAL,
    ) -> None:
        self._engine = engine
        self._env = env
        self._clock = clock
        self._supplies = supplies
        self._given: Variables | None = None
        self.environment = name
        self.url = env.url
        self.endpoint = Endpoint(env.url)
        self._state = DockerState(engine, app.name, name)
        self._lock = Lock(self._state, services_image, clock)
        self._published_port = PublishedPort(self.endpoint, app.ready, send)
        self._proxy_container = ProxyContainer(
            self._state, app, env, services_image, self._published_port, require_free_port, clock
        )
        self._history = History(self._state, self._proxy_container)
        self._replicas = Replicas(self._state, env, clock)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock, with the proxy running as the settings say."""
        with self._lock.acquire(self._env.lock_wait):
            self._proxy_container.ensure()
            yield

    # --- history

    def history(self) -> tuple[Rollout, ...]:
        """Return all attempts, oldest first."""
        return self._history.read()

    def begin(self, attempt: Attempt, variables: Variables | None = None) -> None:
        """Record that an attempt begins; `restore` needs only the proxy's file and old replicas."""
        self._given = variables
        self._history.begin(attempt)

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """Record how an attempt ended."""
        self._history.end(attempt, ending)

    # --- state

    def replicas(self) -> tuple[Replica, ...]:
        """Return every replica, with the state that engine and proxy report."""
        return self._read_replicas(self._read_proxy())

    def _read_replicas(self, proxy: ProxyState | None) -> tuple[Replica, ...]:
        slots = proxy.slots if proxy else {}
        now = self._clock.utc()
        return tuple(
            Replica(
                name=container.name,
                image=container.labels[IMAGE],
                state=_replica_state(container, slots.get(slot_of(container)), now),
                restarts=container.restarts,
                started=container.started if container.running else None,
                last_exit=self._engine.find_last_exit(container),
            )
            for container in self._state.replicas()
        )

    def _read_proxy(self) -> ProxyState | None:
        """Return the proxy's state; None if it does not run, or does not respond for a while."""
        proxy = self._proxy_container.running()
        try:
            return proxy.read() if proxy else None
        except EngineFailed:
            return None

    def replica_count(self) -> int:
        """Return how many replicas the settings name."""
        return self._env.replicas

    def serves(self, release: Release) -> bool:
        """Return whether all replicas serve that release, behind a proxy as the settings say."""
        proxy = self._read_proxy()
        found = self._read_replicas(proxy)
        return (
            proxy is not None
            and len(found) == self._env.replicas
            and all(item.state is ReplicaState.SERVING for item in found)
            and {item.image for item in found} == {release.image.digest}
            and self._proxy_container.matches_settings(proxy)
            and not self.find_endpoint_problem()
        )

    def variables(self) -> Variables:
        """Return the variables of what serves, from its replicas."""
        given = [variables_of(replica) for replica in self._state.replicas()]
        # Mostly all have the same: then the history, which the engine reads slowly, is not needed.
        if given and not any(given[0].differences(other) for other in given[1:]):
            return given[0]
        now = current(self._history.read())
        found = self._find_serving(now.attempt.release) if now else []
        return next(map(variables_of, found), NO_VARIABLES)

    def variables_for(self, returns_to: int | None) -> Variables:
        """Return those of the settings, or of an attempt whose replicas are still there."""
        if returns_to == self._last_proven():
            return self.variables()
        left = [item for item in self._state.replicas() if attempt_of(item) == returns_to]
        return variables_of(left[0]) if left else self._supplies.variables()

    def find_endpoint_problem(self) -> str:
        """Return why clients are not served at the published port; empty if they are."""
        return self._published_port.find_problem()

    def log_sources(self) -> tuple[LogSource, ...]:
        """Return the replicas and the proxy, whose log has a line for each request."""
        return find_log_sources(self._state)

    # --- rollout

    def serve(self, release: Release, prove: Prove) -> None:
        """Replace the replicas one by one: a new one is ready before an old one is drained.

        Replicas can only be reached through the proxy, so they are not proven before they serve.
        """
        number = max((item.attempt.id for item in self._history.read()), default=0)
        variables = self._supplies.variables() if self._given is None else self._given
        # Replicas of the same release that have other variables are told apart by their attempts:
        # there may be those of the last that was proven, and those of this one.
        proven, unproven = self._split_by_proof(release)
        serving = {item.id for item in self._find_proven(release)}
        self._retire([item for item in proven if item.id not in serving])
        self._replace(release, variables, number)
        self._retire([item for item in unproven if variables.differences(variables_of(item))])

    def restore(self, release: Release) -> None:
        """Admit the replicas of the previous release again, and drain the others."""
        own = next(map(variables_of, self._find_proven(release)), None)
        variables = self._supplies.variables() if own is None else own
        self._replace(release, variables, self._last_proven())

    def _split_by_proof(self, release: Release) -> tuple[list[Container], list[Container]]:
        """Return the replicas of a release from attempts up to the last proven one, and later."""
        last = self._last_proven()
        found = self._replicas.find(release)
        return (
            [item for item in found if attempt_of(item) <= last],
            [item for item in found if attempt_of(item) > last],
        )

    def _last_proven(self) -> int:
        """Return the number of the last attempt that succeeded; 0 if none has."""
        now = current(self._history.read())
        return now.attempt.id if now else 0

    def _find_proven(self, release: Release) -> list[Container]:
        """Return the replicas by which a release served last, running or not."""
        return self._replicas.find_generation(release, self._last_proven())

    def _retire(self, containers: list[Container]) -> None:
        if containers:
            proxy = self._proxy_container.ensure()
            for container in containers:
                self._replicas.retire(proxy, container)

    def _replace(self, release: Release, variables: Variables, attempt: int) -> None:
        self._ensure_image(release)
        wanted = self._env.replicas
        kept = self._replicas.find_usable(release, variables)
        kept_ids = {item.id for item in kept}
        old = [item for item in self._state.replicas() if item.id not in kept_ids]
        proxy = self._proxy_container.ensure(room=max(0, wanted - len(kept)))
        for container in kept[wanted:]:
            self._replicas.retire(proxy, container)
        new: list[Container] = []
        for index in range(wanted):
            reused = index < len(kept)
            new.append(
                kept[index] if reused else self._replicas.start(proxy, release, variables, attempt)
            )
            self._replicas.admit(proxy, new[-1])
            if index < len(old):
                proxy.admit(slot_of(old[index]), "drain")
        self._replicas.hand_over(proxy, old, new)

    def _ensure_image(self, release: Release) -> None:
        if find_image_id(self._engine, release.image) is None:
            self._engine.pull(release.reference, self._supplies.login(release), progress.report)

    def settle(self, *keep: Release) -> None:
        """Retire every replica of another release, and of other variables than those that serve.

        From now on a proxy that is restarted sends requests to the first of the given releases.
        """
        proxy = self._proxy_container.ensure()
        serving = self._find_serving(keep[0]) if keep else []
        self._save_admitted(proxy, serving)
        standby = {release.image.digest for release in keep[1:]}
        kept = {item.id for item in serving}
        for container in self._state.replicas():
            if container.id not in kept and container.labels[IMAGE] not in standby:
                self._replicas.retire(proxy, container)

    def _find_serving(self, release: Release) -> list[Container]:
        """Return the replicas by which a release serves, whose attempt may not have ended."""
        return self._find_proven(release) or self._replicas.find(release)

    def _save_admitted(self, proxy: Proxy, serving: list[Container]) -> None:
        """Have the proxy admit those replicas now and whenever it is restarted."""
        # In this order: a proxy that is restarted between the two admits them by its file.
        self._proxy_container.save_admitted(proxy, frozenset(map(slot_of, serving)))
        self._replicas.admit_all(proxy, serving)


def _replica_state(container: Container, slot: Slot | None, now: datetime) -> ReplicaState:
    if container.status == "paused":
        return ReplicaState.UNHEALTHY
    if container.status == "restarting" or _has_just_restarted(container, now):
        return ReplicaState.STARTING
    if not container.running:
        return ReplicaState.STOPPED
    if slot is None or not slot.healthy:
        return ReplicaState.STARTING
    return ReplicaState.SERVING if slot.admitted else ReplicaState.STANDBY


def _has_just_restarted(container: Container, now: datetime) -> bool:
    """Return whether a replica runs again after a crash, but not for so long that it seems over.

    Between two crashes of many it passes its health checks as well.
    """
    return (
        container.running
        and container.restarts > 0
        and container.started is not None
        and now - container.started < _STABLE_AFTER
    )
