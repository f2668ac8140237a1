"""The lock of an environment on a Docker host: only one deployer at a time.

The lock is a container with a unique name. It ends when the process that started it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from deploy import progress
from deploy.clients.docker.protocol import Container, Spec
from deploy.clock import REAL, Clock
from deploy.errors import EngineUnavailable, RolloutLocked
from deploy.machine.process import ProcessId, has_ended, machine_id
from deploy.targets.docker.state import DockerState

_OWNER = "dev.twinship.owner"
_MACHINE = "dev.twinship.machine"
_SINCE = "dev.twinship.since"
_STARTS_WITHIN = 30.0
_POLL = 0.2


class Lock:
    """The right to change one environment.

    Args:
        state: finds what the environment has on the host.
        image: returns the image of the container.
        clock: measures time and lets it pass.
    """

    def __init__(self, state: DockerState, image: Callable[[], str], clock: Clock = REAL) -> None:
        self._state = state
        self._engine = state.engine
        self._image = image
        self._clock = clock

    @contextmanager
    def acquire(self, wait: float) -> Iterator[None]:
        """Hold the lock during a `with` block.

        Args:
            wait: the seconds to wait for another deployer.

        Raises:
            RolloutLocked: another deployer holds the lock for longer than that.
        """
        container = self._take(wait)
        try:
            yield
        except BaseException:
            # An engine that stopped has ended the lock as well; the first error must be reported.
            with suppress(EngineUnavailable):
                self._engine.end_tied(container)
            raise
        self._engine.end_tied(container)

    def _take(self, wait: float) -> object:
        deadline = self._clock.now() + wait
        while True:
            container = self._engine.start_tied(self._spec())
            if container is not None:
                return container
            holder = self._describe_holder()
            if self._clock.now() > deadline:
                raise RolloutLocked(
                    f"another deployer is at work: {holder or 'unknown'}",
                    on=f"environment {self._state.environment}",
                    next="wait until it is done, then run again; nothing was changed",
                )
            progress.report(f"waiting for {holder}")
            self._clock.sleep(_POLL)

    def _spec(self) -> Spec:
        owner = {
            _OWNER: str(ProcessId.current()),
            _MACHINE: machine_id(),
            _SINCE: datetime.now(UTC).isoformat(),
        }
        return Spec(
            name=f"{self._state.name}-lock",
            image=self._image(),
            labels=self._state.lock_labels | owner,
            command=("cat",),
        )

    def _describe_holder(self) -> str:
        """Return who holds the lock and since when; remove a lock that nothing holds."""
        container = self._state.lock()
        if container is None:
            return ""
        owner = container.labels[_OWNER]
        since = datetime.fromisoformat(container.labels[_SINCE])
        machine = container.labels.get(_MACHINE, "")
        if _never_started(container, since) or has_ended(owner, machine):
            self._engine.remove(container.id)
        return f"{ProcessId.parse(owner).display}, since {since.astimezone():%H:%M:%S}"


def _never_started(container: Container, since: datetime) -> bool:
    """Return whether a container was created so long ago that its deployer must have ended."""
    age = (datetime.now(UTC) - since).total_seconds()
    return not container.running and age > _STARTS_WITHIN
