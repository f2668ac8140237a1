"""The target on this machine's Docker engine: its rules, and requests during rollouts."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.clients.docker.client import DockerEngine
from deploy.clients.docker.protocol import Engine
from deploy.errors import EngineFailed
from deploy.machine.host import require_free_port
from deploy.machine.labels import APP, ROLE
from deploy.records import Release
from deploy.rollout.target import Target
from deploy.settings.app import App
from deploy.settings.environments import Docker
from deploy.targets.docker.proxy import Proxy
from deploy.targets.docker.target import DockerTarget, Supplies
from deploy.variables import NO_VARIABLES
from tests.contracts.docker_target import DockerPlace, DockerTargetContract, proxy_of
from tests.contracts.engine import wait_until
from tests.contracts.target import trust
from tests.contracts.variables import GivingPlace, VariablesContract, parse_environment
from tests.fakes.engine import Script
from tests.fakes.releases import release
from tests.integration.deploy.responder import build_replica
from tests.missing import lacking

pytestmark = pytest.mark.integration


class RealPlace:
    """An environment on a real engine, whose replicas are proxies that respond by themselves."""

    def __init__(
        self, engine: DockerEngine, app: str, services_image: str, free_port: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._services_image = services_image
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
        variables = settings.pop("variables", NO_VARIABLES)
        env = Docker(replicas=replicas, **settings)
        return DockerTarget(
            self._engine,
            App(name=self.app),
            "local",
            env,
            lambda: self._services_image,
            Supplies(lambda _: None, lambda: variables),
            require_free_port,
        )

    def release(self, code: str, script: Script | None = None) -> Release:
        # A replica that drops its requests when it is stopped shows whether that was too early.
        image = build_replica(
            self._engine,
            self._services_image,
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

    def environments(self) -> list[dict[str, str]]:
        found = self._engine.containers({APP: self.app, ROLE: "replica"})
        return [
            parse_environment(self._engine.execute(item.id, ("cat", "/proc/1/environ"))[1])
            for item in found
            if item.running
        ]

    def lose(self, replica: str) -> None:
        self._engine.stop(replica, 1)

    def crash(self, replica: str) -> None:
        # The first process of a container ignores signals that it does not handle.
        self._engine.execute(replica, ("sh", "-c", "kill -USR1 1"))

    def pass_time(self) -> None:
        """Leave the waiting to the test."""

    def close_port(self) -> None:
        # From a container, because the process belongs to root.
        api = self._engine._api
        killer = api.create_container(
            self._services_image,
            ["sh", "-c", f"kill -9 {find_forwarder(self.port)}"],
            user="0",
            labels={APP: self.app},
            host_config=api.create_host_config(pid_mode="host"),
        )["Id"]
        api.start(killer)
        assert api.wait(killer)["StatusCode"] == 0
        self._engine.remove(killer)

    def upgrade(self) -> None:
        newer = f"{self.app}:services"
        self._engine.tag(self._services_image, newer)
        self._services_image = newer

    def free_port(self) -> int:
        return self._free_port()

    def taken_port(self) -> int:
        other = socket.socket()
        other.bind(("127.0.0.1", 0))
        other.listen()
        self._others.append(other)
        return int(other.getsockname()[1])

    def close(self) -> None:
        """Remove what it has on the engine, and close its sockets."""
        for other in self._others:
            other.close()
        self._engine.remove_labelled({APP: self.app})


def find_forwarder(port: int) -> int:
    """Return the number of the process by which the engine forwards a port of this machine."""
    found = next(
        (folder for folder in Path("/proc").glob("[0-9]*") if forwards(folder, port)), None
    )
    if found is None:
        lacking("no process forwards published ports", "run an engine with its `userland-proxy`")
    return int(found.name)


def forwards(folder: Path, port: int) -> bool:
    """Return whether a process, by its folder in /proc, forwards a port."""
    try:
        words = (folder / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return words[0].endswith("docker-proxy") and str(port) in words


@pytest.fixture
def place(
    engine: DockerEngine, prefix: str, parts_image: str, free_port: Callable[[], int]
) -> Iterator[RealPlace]:
    """An environment for one test."""
    place = RealPlace(engine, prefix, parts_image, free_port)
    yield place
    place.close()


class TestDockerTarget(DockerTargetContract):
    """The rules of a target, on a real engine."""

    @pytest.fixture
    def docker(
        self, engine: DockerEngine, prefix: str, parts_image: str, free_port: Callable[[], int]
    ) -> Iterator[DockerPlace]:
        """An environment for one test."""
        docker = RealPlace(engine, prefix, parts_image, free_port)
        yield docker
        docker.close()


class TestVariables(VariablesContract):
    """The rules of variables, as the processes of replicas have them."""

    @pytest.fixture
    def place(
        self, engine: DockerEngine, prefix: str, parts_image: str, free_port: Callable[[], int]
    ) -> Iterator[GivingPlace]:
        """An environment for one test."""
        docker = RealPlace(engine, prefix, parts_image, free_port)
        yield docker
        docker.close()


@contextmanager
def send_requests(place: RealPlace) -> Iterator[list[str]]:
    """Send requests to the endpoint without a pause; yield the texts of the responses."""
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


def test_no_request_is_lost_in_rollouts_and_undos(place: RealPlace) -> None:
    """Every request has a response from one of the two releases."""
    target = place.target()
    a = place.release("a")
    b = place.release("b")
    target.serve(a, trust)
    with send_requests(place) as answers:
        target.serve(b, trust)
        target.restore(a)
        target.serve(b, trust)
        target.settle(b)
    assert len(answers) > 100
    assert set(answers) == {"a", "b"}
    assert answers[-1] == "b"


def test_a_slow_request_gets_its_response_from_the_replica_that_began_it(place: RealPlace) -> None:
    """A replica is not stopped while it works on a request."""
    # One replica, so that the request takes longer than the start of the next one.
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
    """Return when a replica works on something."""
    proxy = Proxy(place.engine, proxy_of(place.engine, place.app).id)
    wait_until(
        lambda: any(slot.in_flight for slot in proxy.slots().values()), "a replica has a request"
    )


def test_a_proxy_that_crashes_is_restarted_by_the_engine(place: RealPlace) -> None:
    """It admits the release that was settled last, without a deployer."""
    target = place.target()
    target.serve(place.release("a"), trust)
    target.serve(b := place.release("b"), trust)
    target.settle(b)
    proxy = proxy_of(place.engine, place.app)
    with suppress(EngineFailed):
        place.engine.execute(proxy.id, ("sh", "-c", "kill -TERM 1"))
    wait_until(lambda: place.answers() == {"b"}, "the release serves again")
    assert proxy_of(place.engine, place.app).restarts == 1
