"""The rules of a target on a Docker host, on an engine in memory or a real one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.errors import PortTaken, RolloutLocked, SettingsInvalid
from deploy.machine.labels import APP
from deploy.machine.process import ProcessId, machine_id
from deploy.records import Release
from deploy.rollout.target import ReplicaState, Target
from deploy.targets.docker.haproxy import STATE_FOLDER
from deploy.targets.docker.state import DockerState
from tests.contracts.engine import wait_until
from tests.contracts.target import Place, StandbyTargetContract, states, trust
from tests.fakes.releases import attempt

UNUSED_PROCESS_ID = 4_194_305
"""A number above the highest that Linux gives to a process."""


def proxy_of(engine: Engine, app: str) -> Container:
    """Return the container of an application's proxy."""
    found = DockerState(engine, app, "local").proxy()
    assert found
    return found


class DockerPlace(Place, Protocol):
    """An environment on a Docker host."""

    app: str

    @property
    def engine(self) -> Engine:
        """The host's engine."""

    def crash(self, replica: str) -> None:
        """End the process of a replica, as a crash does."""

    def pass_time(self) -> None:
        """Let half a minute pass, or leave that to the test's own waiting."""

    def close_port(self) -> None:
        """End the process by which the engine forwards the proxy's published port."""

    def upgrade(self) -> None:
        """Give deployers another image for the proxy from now on."""

    def free_port(self) -> int:
        """Return a port on which no program listens."""

    def taken_port(self) -> int:
        """Return a port on which another program listens."""


class DockerTargetContract(StandbyTargetContract):
    """The rules; subclasses have the fixture `docker`, an environment without a release."""

    @pytest.fixture
    def docker(self) -> DockerPlace:
        """The environment."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, docker: DockerPlace) -> Place:
        """The environment, as of any target."""
        return docker

    def proxy(self, docker: DockerPlace) -> Container:
        """Return the container of the proxy."""
        return proxy_of(docker.engine, docker.app)

    def test_a_proxy_that_was_stopped_admits_what_it_admitted(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """The next deployer starts it, and the release serves without another rollout."""
        docker.target().serve(a, trust)
        docker.target().settle(a)
        docker.engine.stop(self.proxy(docker).id, 1)
        with docker.target().lock():
            pass
        wait_until(lambda: docker.answers() == {"a"}, "the release serves")
        wait_until(lambda: docker.target().serves(a), "all its replicas are healthy")

    def test_a_proxy_that_was_stopped_during_a_rollout_admits_the_previous_release(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """A release that is not settled, and so not proven, gets no requests after a restart."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.serve(b, trust)
        docker.engine.stop(self.proxy(docker).id, 1)
        with docker.target().lock():
            pass
        wait_until(
            lambda: states(target).count((a.image.digest, ReplicaState.SERVING)) == 2,
            "the release serves",
        )
        assert docker.answers() == {"a"}
        assert (b.image.digest, ReplicaState.SERVING) not in states(target)

    def test_a_proxy_that_was_restarted_during_a_rollout_admits_its_release_in_the_end(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """Settling the rollout gives its release all requests."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.serve(b, trust)
        docker.engine.stop(self.proxy(docker).id, 1)
        target.settle(b)
        assert docker.answers() == {"b"}
        assert states(target) == [(b.image.digest, ReplicaState.SERVING)] * 2

    def test_a_proxy_that_was_stopped_admits_none_of_many_old_replicas(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """Also if the old release had more replicas than the new one."""
        docker.target(replicas=3).serve(a, trust)
        target = docker.target(replicas=1)
        target.serve(b, trust)
        target.settle(b, a)
        docker.engine.stop(self.proxy(docker).id, 1)
        with docker.target(replicas=1).lock():
            pass
        wait_until(
            lambda: states(target).count((b.image.digest, ReplicaState.SERVING)) == 1,
            "the release serves",
        )
        assert docker.answers() == {"b"}

    def test_a_proxy_without_its_file_admits_all_running_replicas(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """A damaged file is written again; a proxy that admits nothing would be worse."""
        target = docker.target()
        target.serve(a, trust)
        proxy = self.proxy(docker).id
        docker.engine.stop(proxy, 1)
        docker.engine.put_file(proxy, f"{STATE_FOLDER}/haproxy.cfg", b"global\n    stats so")
        with docker.target().lock():
            pass
        wait_until(lambda: docker.answers() == {"a"}, "the release serves")

    def test_a_proxy_that_was_removed_is_created_again(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """History and release do not depend on the proxy's container."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.begin(attempt(1, a))
        docker.engine.remove(self.proxy(docker).id)
        with docker.target().lock():
            pass
        wait_until(lambda: docker.target().serves(a), "the release serves")
        assert [rollout.attempt.id for rollout in docker.target().history()] == [1]

    def test_a_published_port_that_is_closed_is_opened_by_the_next_deployer(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """Until then the release does not serve, though proxy and replicas run, and it says why."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        before = target.replicas()
        docker.close_port()
        assert target.replicas() == before
        assert not target.serves(a)
        assert target.find_endpoint_problem() == "the endpoint refuses connections"
        with docker.target().lock():
            pass
        wait_until(lambda: docker.target().serves(a), "the release serves")
        assert docker.answers() == {"a"}
        assert target.replicas() == before
        assert target.find_endpoint_problem() == ""

    def test_another_port_moves_the_proxy(self, docker: DockerPlace, a: Release) -> None:
        """The same replicas are reached on the new port, and the history stays."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.begin(attempt(1, a))
        before = {replica.name for replica in target.replicas()}
        port = docker.free_port()
        moved = docker.target(port=port)
        with moved.lock():
            pass
        wait_until(
            lambda: docker.answers(port=port) == {"a"}, "the release serves on the other port"
        )
        assert {replica.name for replica in moved.replicas()} == before
        assert [rollout.attempt.id for rollout in moved.history()] == [1]

    def test_a_port_that_is_taken_leaves_the_old_proxy_running(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """Nothing is removed before the new port is known to be free."""
        docker.target().serve(a, trust)
        moved = docker.target(port=docker.taken_port())
        with pytest.raises(PortTaken), moved.lock():
            pytest.fail("the proxy moved to a port on which another program listens")
        assert docker.answers() == {"a"}
        with docker.target(lock_wait=0.0).lock():
            assert docker.target().serves(a)

    def test_a_release_behind_a_proxy_on_another_port_does_not_serve(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """A release must not be skipped because it serves on the old port."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        wait_until(lambda: target.serves(a), "the release serves")
        moved = docker.target(port=docker.free_port())
        assert not moved.serves(a)
        with moved.lock():
            wait_until(lambda: moved.serves(a), "the release serves on the other port")
        assert not target.serves(a)

    def test_a_running_proxy_of_another_image_is_kept(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """A new one would lose all requests until it listens; the old one stays in use."""
        docker.target().serve(a, trust)
        docker.target().settle(a)
        proxy = self.proxy(docker)
        docker.upgrade()
        target = docker.target(in_flight=7)
        with target.lock():
            target.serve(b, trust)
            target.settle(b)
        assert docker.answers() == {"b"}
        assert self.proxy(docker) == proxy
        assert target.serves(b)

    def test_a_stopped_proxy_of_another_image_is_created_again(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """It had no requests to lose, so that it gets the present image."""
        docker.target().serve(a, trust)
        docker.target().settle(a)
        proxy = self.proxy(docker)
        docker.engine.stop(proxy.id, 1)
        docker.upgrade()
        with docker.target().lock():
            pass
        wait_until(lambda: docker.answers() == {"a"}, "the release serves")
        assert self.proxy(docker).id != proxy.id

    @pytest.mark.parametrize(
        "changed", [{"in_flight": 7}, {"answer_within": 7.0}], ids=["in_flight", "answer_within"]
    )
    def test_a_release_behind_a_proxy_with_other_settings_does_not_serve(
        self, docker: DockerPlace, a: Release, changed: dict[str, Any]
    ) -> None:
        """A release must not be skipped as long as the running proxy has the old settings."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        proxy = self.proxy(docker)
        other = docker.target(**changed)
        assert target.serves(a)
        assert not other.serves(a)
        with other.lock():
            wait_until(lambda: other.serves(a), "the release serves as the settings say")
        assert not target.serves(a)
        assert self.proxy(docker) == proxy

    def test_an_address_of_another_machine_leaves_the_old_proxy_running(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """An address on which nothing can listen is an error before the old proxy is removed."""
        docker.target().serve(a, trust)
        moved = docker.target(address="192.0.2.1")
        with pytest.raises(SettingsInvalid), moved.lock():
            pytest.fail("the proxy moved to an address that this machine does not have")
        assert docker.answers() == {"a"}
        with docker.target(lock_wait=0.0).lock():
            assert docker.target().serves(a)

    def test_a_first_release_to_a_port_that_is_taken_changes_nothing(
        self, docker: DockerPlace
    ) -> None:
        """It leaves no proxy behind."""
        moved = docker.target(port=docker.taken_port())
        with pytest.raises(PortTaken), moved.lock():
            pytest.fail("the proxy was started on a port on which another program listens")
        assert docker.engine.containers({APP: docker.app}) == []

    @pytest.mark.parametrize("data", [b"", b"{", b'{"id": 2, "environment": "local"}', b"\xff\xfe"])
    def test_half_a_file_in_the_history_is_no_attempt(
        self, docker: DockerPlace, a: Release, data: bytes
    ) -> None:
        """A file that a killed engine left half is skipped; the other files are read."""
        target = docker.target()
        with target.lock():
            target.begin(attempt(1, a))
            proxy = self.proxy(docker).id
            docker.engine.put_file(proxy, f"{STATE_FOLDER}/000001-end.json", data)
            docker.engine.put_file(proxy, f"{STATE_FOLDER}/000002-begin.json", data)
        assert [(rollout.attempt.id, rollout.outcome) for rollout in target.history()] == [
            (1, "unfinished")
        ]

    def test_a_replica_that_ends_later_is_started_again_by_the_engine(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """A proven release recovers from a crash without a deployer."""
        target = docker.target()
        target.serve(a, trust)
        docker.crash(target.replicas()[0].name)
        wait_until(
            lambda: (
                sum(found.restarts for found in docker.engine.containers({APP: docker.app})) == 1
            ),
            "it was started again",
        )
        (again,) = (replica for replica in target.replicas() if replica.restarts)
        assert again.started
        assert again.last_exit
        # Its health check passes now, as it does between two crashes of many.
        assert ReplicaState.STARTING in {replica.state for replica in target.replicas()}
        assert not target.serves(a)
        docker.pass_time()
        wait_until(lambda: target.serves(a), "the release serves with all its replicas")

    def leave_lock(self, docker: DockerPlace, on: str) -> str:
        """Create a lock whose holder was a process of a machine and has ended; return its id."""
        proxy = self.proxy(docker)
        owner = ProcessId(
            ProcessId.current().user, ProcessId.current().host, UNUSED_PROCESS_ID, "1"
        )
        labels = {
            **proxy.labels,
            "dev.twinship.role": "lock",
            "dev.twinship.owner": str(owner),
            "dev.twinship.machine": on,
        }
        labels["dev.twinship.since"] = datetime.now(UTC).isoformat()
        name = f"{DockerState(docker.engine, docker.app, 'local').name}-lock"
        return docker.engine.create(
            Spec(name=name, image=proxy.image, labels=labels, command=("sleep", "600"))
        ).id

    @pytest.mark.parametrize("started", [True, False])
    def test_a_lock_whose_holder_has_ended_is_removed(
        self, docker: DockerPlace, a: Release, started: bool
    ) -> None:
        """A lock that was left, or that was created and never started, stops no deployer."""
        target = docker.target(lock_wait=30.0)
        target.serve(a, trust)
        left = self.leave_lock(docker, machine_id())
        if started:
            docker.engine.start(left)
        with target.lock():
            assert [
                found.id
                for found in docker.engine.containers({APP: docker.app})
                if found.id == left
            ] == []

    @pytest.mark.parametrize("on", ["another machine", ""])
    def test_a_lock_of_another_machine_of_the_same_name_stays(
        self, docker: DockerPlace, a: Release, on: str
    ) -> None:
        """This machine cannot see whether the holder still runs."""
        docker.target().serve(a, trust)
        left = self.leave_lock(docker, on)
        docker.engine.start(left)
        with pytest.raises(RolloutLocked), docker.target(lock_wait=0.0).lock():
            pytest.fail("two deployers at once")
        assert [
            found.running
            for found in docker.engine.containers({APP: docker.app})
            if found.id == left
        ] == [True]

    def test_reading_creates_nothing(self, docker: DockerPlace, a: Release) -> None:
        """History, replicas and status of an environment without a release create no container."""
        target: Target = docker.target()
        target.history()
        target.replicas()
        target.serves(a)
        assert docker.engine.containers({APP: docker.app}) == []
