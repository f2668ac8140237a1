"""The replicas on a Docker host: containers in the proxy's slots, which a rollout replaces.

A replica is only started in a free slot, only gets requests once its health check passes, and is
only stopped when it has no request left.
"""

from __future__ import annotations

from deploy import progress
from deploy.clients.docker.protocol import Container, Spec, find_image_id
from deploy.clock import REAL, Clock
from deploy.errors import RolloutFailed
from deploy.machine.labels import ATTEMPT, IMAGE, SLOT
from deploy.records import Release
from deploy.rollout.target import replica_error
from deploy.settings.environments import Docker
from deploy.targets.docker.haproxy import slot_address
from deploy.targets.docker.proxy import Proxy, Slot
from deploy.targets.docker.state import (
    DockerState,
    attempt_of,
    slot_of,
    variable_labels,
    variables_of,
)
from deploy.variables import Variables

_POLL = 0.05
_LOG_LINES = 15


class Replicas:
    """The replicas of one environment.

    A proxy that is restarted in the meantime, after a crash or with the engine, admits the slots
    of the last rollout that was settled. Therefore the methods check what the proxy admits, and
    instruct it again.

    Args:
        state: finds what the environment has on the host.
        env: the environment's settings.
        clock: measures time and lets it pass.
    """

    def __init__(self, state: DockerState, env: Docker, clock: Clock = REAL) -> None:
        self._state = state
        self._engine = state.engine
        self._env = env
        self._clock = clock

    def find(self, release: Release) -> list[Container]:
        """Return the replicas of a release, running or not."""
        digest = release.image.digest
        return [item for item in self._state.replicas() if item.labels[IMAGE] == digest]

    def find_generation(self, release: Release, last: int) -> list[Container]:
        """Return the replicas of a release that have the variables that an attempt gave them.

        Args:
            release: the release.
            last: the attempt; without replicas of its own, the last before it that has some.
        """
        found = self.find(release)
        started = [item for item in found if attempt_of(item) <= last]
        if not started:
            return []
        variables = variables_of(max(started, key=attempt_of))
        return [item for item in found if not variables.differences(variables_of(item))]

    def find_usable(self, release: Release, variables: Variables) -> list[Container]:
        """Return the running replicas of a release with those variables; remove ended ones."""
        found = [
            item for item in self.find(release) if not variables.differences(variables_of(item))
        ]
        for container in found:
            if not container.running:
                self._engine.remove(container.id)
        return [container for container in found if container.running]

    def start(
        self, proxy: Proxy, release: Release, variables: Variables, attempt: int
    ) -> Container:
        """Start a replica in a free slot; it gets no requests yet.

        Args:
            proxy: the proxy.
            release: the release that it runs.
            variables: the variables that it gets.
            attempt: the number of the attempt that starts it.
        """
        state = self._state
        used = {slot_of(container) for container in state.replicas()}
        slot = next(number for number in range(1, len(used) + 2) if number not in used)
        proxy.admit(slot, "drain")
        own = {SLOT: str(slot), IMAGE: release.image.digest, ATTEMPT: str(attempt)}
        container = self._engine.create(
            Spec(
                name=f"{state.name}-{slot}",
                image=find_image_id(self._engine, release.image) or release.reference,
                labels=state.replica_labels | own | variable_labels(variables),
                environment=variables.environment,
                network=state.name,
                ip=slot_address(state.subnet(), slot),
                limits=self._env.limits(release.image.layer.size),
            )
        )
        self._engine.start(container.id)
        return container

    def admit(self, proxy: Proxy, container: Container) -> None:
        """Send requests to a replica once it is ready; from then on the engine restarts it.

        Raises:
            RolloutFailed: it ended, or was not ready in time.
        """
        number = slot_of(container)
        deadline = self._clock.now() + self._env.ready_within
        if not proxy.slots()[number].healthy:
            proxy.admit(number, "drain")
        while not (slot := proxy.slots()[number]).healthy:
            if not slot.checked:
                # The proxy was restarted in the meantime, with this slot disabled.
                proxy.admit(number, "drain")
            self._require_running(container)
            if self._clock.now() > deadline:
                raise self._error(container, self._describe_unready(slot))
            progress.report(f"waiting for {container.name} to be ready")
            self._clock.sleep(_POLL)
        self._engine.enable_restart(container.id)
        proxy.admit(number, "ready")

    def admit_all(self, proxy: Proxy, containers: list[Container]) -> None:
        """Send requests to those of the replicas that get none."""
        for container in _excluded(proxy, containers):
            self.admit(proxy, container)

    def hand_over(self, proxy: Proxy, old: list[Container], new: list[Container]) -> None:
        """Send all requests to the new replicas, and wait until the old ones have none left."""
        while True:
            self.admit_all(proxy, new)
            for container in old:
                proxy.admit(slot_of(container), "drain")
            self._wait_until_idle(proxy, old)
            if not _excluded(proxy, new):
                return

    def retire(self, proxy: Proxy, container: Container) -> None:
        """Drain a replica, stop and remove it, and free its slot."""
        proxy.admit(slot_of(container), "drain")
        self._wait_until_idle(proxy, [container])
        self._engine.stop(container.id, int(self._env.drain_within))
        self._engine.remove(container.id)
        proxy.admit(slot_of(container), "maint")

    def _wait_until_idle(self, proxy: Proxy, containers: list[Container]) -> None:
        """Wait until the replicas have no requests left, at most for the time of the settings."""
        deadline = self._clock.now() + self._env.drain_within
        while self._clock.now() < deadline:
            slots = proxy.slots()
            left = sum(slots[slot_of(container)].in_flight for container in containers)
            if not left:
                return
            progress.report(f"waiting for {left} requests to finish")
            self._clock.sleep(_POLL)

    def _describe_unready(self, slot: Slot) -> str:
        within = progress.format_seconds(self._env.ready_within)
        last = f": its ready path answered {slot.status}" if slot.status else ""
        return f"a replica was not ready within {within}{last}"

    def _require_running(self, container: Container) -> None:
        now = next((item for item in self._state.replicas() if item.id == container.id), None)
        if now is None or not now.running:
            raise self._error(container, _describe_end(now))

    def _error(self, container: Container, what: str) -> RolloutFailed:
        log = self._engine.logs(container.id, _LOG_LINES)
        return replica_error(what, container.name, variables_of(container).hide(log))


def _describe_end(container: Container | None) -> str:
    """Return how a replica ended that was never ready; None for one that was removed."""
    if container is None:
        return "a replica ended before it was ready"
    if container.out_of_memory:
        return "a replica needed more memory than its limit before it was ready"
    return f"a replica ended with exit code {container.exit_code} before it was ready"


def _excluded(proxy: Proxy, containers: list[Container]) -> list[Container]:
    """Return those of the replicas that get no requests."""
    slots = proxy.slots()
    return [container for container in containers if not slots[slot_of(container)].admitted]
