"""Other deployers: one that works in turn with the test, and one that is killed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from deploy.clients.kubernetes.protocol import Cluster
from deploy.clock import Clock
from deploy.machine.process import ProcessId
from deploy.targets.kubernetes.render import TRACK_LABEL
from tests.fakes.application import Application
from tests.fakes.kubernetes.api_server import FakeCluster

T = TypeVar("T")
_PATIENCE = 30.0


class Deployer(threading.Thread, Generic[T]):
    """A thread that takes turns with the test, so that every run of a test is the same.

    Each of the two works only while the other one sleeps.

    Args:
        application: the application that it deploys; its clock lets the other thread work.
        work: what the deployer does.
    """

    def __init__(self, application: Application, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._clock = application.clock
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._done = False
        self._results: list[T] = []
        self._failure: BaseException | None = None
        application.clock = Clock(self._clock.now, self._sleep, self._clock.now_with_suspend)
        self.start()

    def until(self, moment: Callable[[], bool]) -> None:
        """Let it work until a condition is true."""
        while not moment():
            assert not self._done, f"it ended before: {self._failure!r}"
            self._take_turn()

    def outcome(self) -> T:
        """Let it work to its end; return or raise what the work does."""
        while not self._done:
            self._take_turn()
        if self._failure:
            raise self._failure
        return self._results[0]

    def run(self) -> None:
        """Do the work, in turns."""
        self._go.acquire()
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - the test gets any error
            self._failure = error
        self._done = True
        self._back.release()

    def _sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        if threading.current_thread() is self:
            self._back.release()
            self._go.acquire()
        elif not self._done:
            self._take_turn()

    def _take_turn(self) -> None:
        self._go.release()
        assert self._back.acquire(timeout=_PATIENCE), "the deployer neither sleeps nor ends"


def is_held(application: Application) -> bool:
    """Return whether a canary is on hold in `staging`: requests go to both tracks."""
    service = application.cluster.objects.get("Service", "classifier-staging")
    return service is not None and TRACK_LABEL not in service["spec"]["selector"]


class Killed(BaseException):
    """The end of a deployer that nothing in it can stop."""


class Mortal:
    """A cluster as seen by a deployer that is killed at an operation, and does nothing after it.

    Args:
        cluster: the cluster itself.
        dies: returns whether it is killed before an operation of that name.
    """

    def __init__(self, cluster: FakeCluster, dies: Callable[[str], bool]) -> None:
        self._cluster = cluster
        self._dies = dies
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        self._dead = self._dead or self._dies(name)
        if self._dead:
            raise Killed
        return getattr(self._cluster, name)


@contextmanager
def mortal(
    application: Application, environment: str, dies: Callable[[str], bool]
) -> Iterator[None]:
    """Kill a deployer at an operation in a `with` block; then its lock shows that it has ended."""
    application.machine.clusters[""] = cast("Cluster", Mortal(application.cluster, dies))
    try:
        yield
    finally:
        application.machine.clusters[""] = application.cluster
        lease = application.cluster.objects.get("Lease", f"classifier-{environment}-deployer")
        if lease and lease["spec"]["holderIdentity"]:
            lease["spec"]["holderIdentity"] = str(ProcessId("grace", socket.gethostname(), 0, ""))
