"""Other deployers than the one that a test is: one that lives and moves in turn with it, and one that is killed."""

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
    """Works beside the test: each of the two goes on only while the other one sleeps, so that every run of a test is the same.

    Args:
        application: what it deploys; from now on whoever sleeps by its clock lets the other one go on.
        work: what it does.
    """

    def __init__(self, application: Application, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._clock = application.clock
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._done = False
        self._came_to: list[T] = []
        self._failure: BaseException | None = None
        application.clock = Clock(self._clock.now, self._sleep, self._clock.now_with_suspend)
        self.start()

    def until(self, moment: Callable[[], bool]) -> None:
        """Lets it go on until that is so."""
        while not moment():
            assert not self._done, f"it ended before: {self._failure!r}"
            self._let_go_on()

    def outcome(self) -> T:
        """What its work comes to; raises what it ends with."""
        while not self._done:
            self._let_go_on()
        if self._failure:
            raise self._failure
        return self._came_to[0]

    def run(self) -> None:
        """Works, when it may."""
        self._go.acquire()
        try:
            self._came_to.append(self._work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test gets it
            self._failure = error
        self._done = True
        self._back.release()

    def _sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
        if threading.current_thread() is self:
            self._back.release()
            self._go.acquire()
        elif not self._done:
            self._let_go_on()

    def _let_go_on(self) -> None:
        self._go.release()
        assert self._back.acquire(timeout=_PATIENCE), "the deployer neither sleeps nor ends"


def is_held(application: Application) -> bool:
    """Whether a canary is held in `staging`: requests go to both of its sides."""
    service = application.cluster.objects.get("Service", "classifier-staging")
    return service is not None and TRACK_LABEL not in service["spec"]["selector"]


class Killed(BaseException):
    """The end of a deployer that nothing in it can stop."""


class Mortal:
    """A cluster as a deployer sees it who is killed by what it asks of it, and asks nothing more then.

    Args:
        cluster: the cluster itself.
        dies: whether it is killed before it does that, by the name of the operation.
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
    """Within this, a deployer is killed at that moment; after it everybody can see that it is dead."""
    application.architecture.clusters[""] = cast("Cluster", Mortal(application.cluster, dies))
    try:
        yield
    finally:
        application.architecture.clusters[""] = application.cluster
        lease = application.cluster.objects.get("Lease", f"classifier-{environment}-deployer")
        if lease and lease["spec"]["holderIdentity"]:
            lease["spec"]["holderIdentity"] = str(ProcessId("grace", socket.gethostname(), 0, ""))
