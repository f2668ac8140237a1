"""One deployer at a time on a Docker host: a container that ends with its holder's process; its unique name is the lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from deploy import progress
from deploy.clients.docker.protocol import Container, Spec
from deploy.errors import EngineUnavailable, RolloutLocked
from deploy.machine.process import ProcessId, has_ended, machine_id
from deploy.targets.docker.state import DockerState

_OWNER = "dev.twinship.owner"
_MACHINE = "dev.twinship.machine"
_SINCE = "dev.twinship.since"
_STILLBORN = 30.0
_POLL = 0.2


class Lock:
    """The right to change one environment.

    Args:
        premises: the environment's.
        image: gives the image of the container.
    """

    def __init__(self, premises: DockerState, image: Callable[[], str]) -> None:
        self._premises = premises
        self._engine = premises.engine
        self._image = image

    @contextmanager
    def acquire(self, wait: float) -> Iterator[None]:
        """Holds the lock for the time of a `with` block.

        Args:
            wait: seconds to wait for another holder.

        Raises:
            RolloutLocked: somebody else holds it for longer than that.
        """
        held = self._taken(wait)
        try:
            yield
        except BaseException:
            # An engine that is gone has ended the lock as well, and cannot say so; what went wrong before is what has to be told.
            with suppress(EngineUnavailable):
                self._engine.end_tied(held)
            raise
        self._engine.end_tied(held)

    def _taken(self, wait: float) -> object:
        deadline = time.monotonic() + wait
        while True:
            held = self._engine.start_tied(self._spec())
            if held is not None:
                return held
            holder = self._holder()
            if time.monotonic() > deadline:
                raise RolloutLocked(
                    f"another deployer is at work: {holder or 'unknown'}",
                    on=f"environment {self._premises.environment}",
                    next="wait until it is done, then run again; nothing was changed",
                )
            progress.report(f"waiting for {holder}")
            time.sleep(_POLL)

    def _spec(self) -> Spec:
        mine = {
            _OWNER: str(ProcessId.current()),
            _MACHINE: machine_id(),
            _SINCE: datetime.now(UTC).isoformat(),
        }
        labels = self._premises.role("lock") | mine
        return Spec(
            name=f"{self._premises.name}-lock", image=self._image(), labels=labels, command=("cat",)
        )

    def _holder(self) -> str:
        """Who has the lock and since when; one whose holder has ended, or that was made but never held, is removed."""
        for container in self._engine.containers(self._premises.role("lock")):
            since = datetime.fromisoformat(container.labels[_SINCE])
            if _is_stillborn(container, since) or has_ended(
                container.labels[_OWNER], container.labels.get(_MACHINE, "")
            ):
                self._engine.remove(container.id)
            return f"{ProcessId.parse(container.labels[_OWNER]).display}, since {since.astimezone():%H:%M:%S}"
        return ""


def _is_stillborn(container: Container, since: datetime) -> bool:
    return not container.running and (datetime.now(UTC) - since).total_seconds() > _STILLBORN
