"""The target on this machine's Docker engine: its contracts, and requests that go through the door meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import requests

from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Engine
from deploy.machine.host import require_free
from deploy.records import Release
from deploy.rollout.target import Target
from deploy.settings.environments import Docker
from deploy.settings.reading import App
from deploy.targets.docker.state import APP
from deploy.targets.docker.target import DockerTarget
from tests.contracts.docker_target import DockerPlace, DockerTargetContract
from tests.contracts.target import trust
from tests.fakes.engine import Script
from tests.fakes.releases import release
from tests.integration.deploy.responder import built

pytestmark = pytest.mark.integration


class RealPlace:
    """An environment on a real engine, with replicas that are proxies answering by themselves."""

    def __init__(
        self, engine: DockerEngine, app: str, parts: str, free_port: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._parts = parts
        self._free_port = free_port
        self.app = app
        self.port = free_port()
        self._others: list[socket.socket] = []

    @property
    def engine(self) -> Engine:
        return self._engine

    def target(self, *, replicas: int = 2, **changed: Any) -> Target:
        settings: dict[str, Any] = {
            "port": self.port,
            "ready_within": 20.0,
            "drain_within": 5.0,
            "lock_wait": 0.0,
            **changed,
        }
        env = Docker(replicas=replicas, **settings)
        return DockerTarget(
            self._engine,
            App(name=self.app),
            "local",
            env,
            lambda: self._parts,
            lambda: None,
            require_free,
        )

    def release(self, code: str, script: Script | None = None) -> Release:
        # One that drops what it works on when it is stopped shows whether it was stopped too early.
        image = built(
            self._engine,
            self._parts,
            f"{self.app}:{code}",
            code,
            script or Script(),
            check=0.1,
            stop="SIGKILL",
        )
        return release(code, config=image)

    def answers(self, **changed: object) -> set[str]:
        url = f"http://127.0.0.1:{changed.get('port', self.port)}/"
        return {self._asked(url) for _ in range(12)}

    def _asked(self, url: str) -> str:
        try:
            answer = requests.get(url, timeout=5)
        except requests.RequestException as error:
            return type(error).__name__
        return answer.text if answer.ok else str(answer.status_code)

    def lose(self, replica: str) -> None:
        self._engine.stop(replica, 1)

    def crash(self, replica: str) -> None:
        # A first process ignores every signal that it has no handler for; this one the proxy handles, by ending.
        self._engine.execute(replica, ("sh", "-c", "kill -USR1 1"))

    def renew(self) -> None:
        newer = f"{self.app}:parts"
        self._engine.tag(self._parts, newer)
        self._parts = newer

    def other_port(self) -> int:
        return self._free_port()

    def taken_port(self) -> int:
        other = socket.socket()
        other.bind(("127.0.0.1", 0))
        other.listen()
        self._others.append(other)
        return int(other.getsockname()[1])

    def close(self) -> None:
        """Removes all of it."""
        for other in self._others:
            other.close()
        self._engine.remove_labelled({APP: self.app})


@pytest.fixture
def place(
    engine: DockerEngine, prefix: str, parts_image: str, free_port: Callable[[], int]
) -> Iterator[RealPlace]:
    """An environment of the test's own."""
    place = RealPlace(engine, prefix, parts_image, free_port)
    yield place
    place.close()


class TestDockerTarget(DockerTargetContract):
    """The target keeps its contracts on a real engine."""

    @pytest.fixture
    def docker(
        self, engine: DockerEngine, prefix: str, parts_image: str, free_port: Callable[[], int]
    ) -> Iterator[DockerPlace]:
        """An environment of the test's own."""
        docker = RealPlace(engine, prefix, parts_image, free_port)
        yield docker
        docker.close()


@contextmanager
def asking(place: RealPlace) -> Iterator[list[str]]:
    """Asks at the front door again and again; gives what was answered."""
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not over.is_set():
                try:
                    answer = session.get(f"http://127.0.0.1:{place.port}/", timeout=10)
                    answers.append(answer.text if answer.ok else str(answer.status_code))
                except requests.RequestException as error:
                    answers.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_no_request_is_lost_in_rollouts_and_their_undoing(place: RealPlace) -> None:
    """Forwards, back, and forwards again, every request is answered by one of the two releases."""
    target = place.target()
    a = place.release("a")
    b = place.release("b")
    target.serve(a, trust)
    with asking(place) as answers:
        target.serve(b, trust)
        target.restore(a)
        target.serve(b, trust)
        target.settle(b)
    assert len(answers) > 100
    assert set(answers) == {"a", "b"}
    assert answers[-1] == "b"


def test_a_slow_request_is_answered_by_the_replica_that_began_it(place: RealPlace) -> None:
    """A replica is not stopped under a request that it works on."""
    # One replica, so that the request outlasts the start of the next by far.
    target = place.target(replicas=1, drain_within=20.0)
    target.serve(place.release("a"), trust)
    b = place.release("b")
    got: list[int] = []
    slow = threading.Thread(
        target=lambda: got.append(
            requests.get(f"http://127.0.0.1:{place.port}/slow", timeout=60).status_code
        )
    )
    slow.start()
    _wait_for_a_request(place)
    target.serve(b, trust)
    target.settle(b)
    slow.join()
    assert got == [429]


def _wait_for_a_request(place: RealPlace) -> None:
    """Returns when a replica works on something."""
    from deploy.targets.docker.proxy import Proxy

    door = Proxy(
        place.engine,
        next(
            found.id
            for found in place.engine.containers({APP: place.app})
            if found.name.endswith("-door")
        ),
    )
    deadline = time.monotonic() + 10
    while not any(slot.in_flight for slot in door.slots().values()):
        assert time.monotonic() < deadline, "no request came through"
        time.sleep(0.02)


def test_a_door_that_crashes_is_started_again_by_the_engine(place: RealPlace) -> None:
    """It opens to the release that was settled last, without anybody's doing."""
    target = place.target()
    target.serve(place.release("a"), trust)
    target.serve(b := place.release("b"), trust)
    target.settle(b)
    door = next(
        found for found in place.engine.containers({APP: place.app}) if found.name.endswith("-door")
    )
    with suppress(Exception):
        place.engine.execute(door.id, ("sh", "-c", "kill -TERM 1"))
    deadline = time.monotonic() + 15
    while place.answers() != {"b"}:
        assert time.monotonic() < deadline, "the door did not come back"
    assert (
        next(
            found.restarts
            for found in place.engine.containers({APP: place.app})
            if found.id == door.id
        )
        == 1
    )
