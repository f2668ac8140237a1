"""What a target on a Docker host does beyond what every target does, on an engine in memory or a real one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.errors import PortTaken, RolloutLocked, SettingsInvalid
from deploy.machine.process import ProcessId, machine_id
from deploy.records import Release
from deploy.rollout.target import ReplicaState, Target
from deploy.targets.docker.haproxy import STATE_FOLDER
from deploy.targets.docker.state import APP
from tests.contracts.engine import until
from tests.contracts.target import Place, WarmTargetContract, states, trust
from tests.fakes.releases import attempt

PROCESS_THAT_NEVER_WAS = 4_194_305
"""More than Linux gives numbers to processes."""


class DockerPlace(Place, Protocol):
    """An environment on a Docker host."""

    app: str

    @property
    def engine(self) -> Engine:
        """The host's engine."""

    def crash(self, replica: str) -> None:
        """The process of a replica ends by itself."""

    def renew(self) -> None:
        """From now on deployers have another image for the door, as after an upgrade."""

    def other_port(self) -> int:
        """A port on which nobody listens."""

    def taken_port(self) -> int:
        """A port on which another program listens."""


class DockerTargetContract(WarmTargetContract):
    """Subclasses give the fixture `docker`: an environment to which nothing was released yet."""

    @pytest.fixture
    def docker(self) -> DockerPlace:
        """The environment."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, docker: DockerPlace) -> Place:
        """The environment, as of any target."""
        return docker

    def door(self, docker: DockerPlace) -> Container:
        """The container of the front door."""
        return next(
            found
            for found in docker.engine.containers({APP: docker.app})
            if found.name.endswith("-door")
        )

    def test_a_door_that_was_stopped_opens_what_it_opened(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """The next deployer starts it again, and the release serves without having been released again."""
        docker.target().serve(a, trust)
        docker.target().settle(a)
        docker.engine.stop(self.door(docker).id, 1)
        with docker.target().lock():
            pass
        until(lambda: docker.answers() == {"a"}, "the release serves")
        until(lambda: docker.target().serves(a), "all its replicas are healthy")

    def test_a_door_that_was_stopped_in_mid_rollout_opens_to_the_release_before(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """A release that nobody has settled, because it is not proven yet, gets no requests when the door comes back."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.serve(b, trust)
        docker.engine.stop(self.door(docker).id, 1)
        with docker.target().lock():
            pass
        until(
            lambda: states(target).count((a.image.digest, ReplicaState.SERVING)) == 2,
            "the release serves",
        )
        assert docker.answers() == {"a"}
        assert (b.image.digest, ReplicaState.SERVING) not in states(target)

    def test_a_door_that_was_restarted_in_mid_rollout_opens_when_that_is_settled(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """The rollout goes on, and its release has all requests in the end."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.serve(b, trust)
        docker.engine.stop(self.door(docker).id, 1)
        target.settle(b)
        assert docker.answers() == {"b"}
        assert states(target) == [(b.image.digest, ReplicaState.SERVING)] * 2

    def test_a_door_that_was_stopped_opens_none_of_many_old_replicas(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """Also where the old release had more replicas than the new one has."""
        docker.target(replicas=3).serve(a, trust)
        target = docker.target(replicas=1)
        target.serve(b, trust)
        target.settle(b, a)
        docker.engine.stop(self.door(docker).id, 1)
        with docker.target(replicas=1).lock():
            pass
        until(
            lambda: states(target).count((b.image.digest, ReplicaState.SERVING)) == 1,
            "the release serves",
        )
        assert docker.answers() == {"b"}

    def test_a_door_without_its_file_opens_to_all_that_runs(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """A file that a crash spoilt is written anew; a door that opens to nobody would be worse than any other."""
        target = docker.target()
        target.serve(a, trust)
        door = self.door(docker).id
        docker.engine.stop(door, 1)
        docker.engine.put_file(door, f"{STATE_FOLDER}/haproxy.cfg", b"global\n    stats so")
        with docker.target().lock():
            pass
        until(lambda: docker.answers() == {"a"}, "the release serves")

    def test_a_door_that_is_gone_is_made_again(self, docker: DockerPlace, a: Release) -> None:
        """History and release outlive the door's container."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.begin(attempt(1, a))
        docker.engine.remove(self.door(docker).id)
        with docker.target().lock():
            pass
        until(lambda: docker.target().serves(a), "the release serves")
        assert [rollout.attempt.id for rollout in docker.target().history()] == [1]

    def test_another_port_moves_the_door(self, docker: DockerPlace, a: Release) -> None:
        """The same replicas are reached on the new port, and the history moves along."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        target.begin(attempt(1, a))
        before = {replica.name for replica in target.replicas()}
        port = docker.other_port()
        moved = docker.target(port=port)
        with moved.lock():
            pass
        until(lambda: docker.answers(port=port) == {"a"}, "the release serves on the other port")
        assert {replica.name for replica in moved.replicas()} == before
        assert [rollout.attempt.id for rollout in moved.history()] == [1]

    def test_a_port_that_is_taken_leaves_the_old_door_open(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """Nothing is given up before the new port is known to be free."""
        docker.target().serve(a, trust)
        moved = docker.target(port=docker.taken_port())
        with pytest.raises(PortTaken), moved.lock():
            pytest.fail("it was moved to a port that another program listens on")
        assert docker.answers() == {"a"}
        with docker.target(lock_wait=0.0).lock():
            assert docker.target().serves(a)

    def test_a_release_behind_a_door_on_another_port_does_not_serve(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """Where the settings name a new port, releasing again must not stop at what serves on the old one."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        until(lambda: target.serves(a), "the release serves")
        moved = docker.target(port=docker.other_port())
        assert not moved.serves(a)
        with moved.lock():
            until(lambda: moved.serves(a), "the release serves on the other port")
        assert not target.serves(a)

    def test_a_running_door_of_another_image_is_kept(
        self, docker: DockerPlace, a: Release, b: Release
    ) -> None:
        """Making it anew would lose every request until the new one listens; it is led to the next release as it is."""
        docker.target().serve(a, trust)
        docker.target().settle(a)
        door = self.door(docker)
        docker.renew()
        target = docker.target(in_flight=7)
        with target.lock():
            target.serve(b, trust)
            target.settle(b)
        assert docker.answers() == {"b"}
        assert self.door(docker) == door
        assert target.serves(b)

    def test_a_door_of_another_image_that_was_stopped_is_made_anew(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """Nobody came through it, so that it can take the image of now; it opens what it opened."""
        docker.target().serve(a, trust)
        docker.target().settle(a)
        door = self.door(docker)
        docker.engine.stop(door.id, 1)
        docker.renew()
        with docker.target().lock():
            pass
        until(lambda: docker.answers() == {"a"}, "the release serves")
        assert self.door(docker).id != door.id

    @pytest.mark.parametrize(
        "changed", [{"in_flight": 7}, {"answer_within": 7.0}], ids=["in_flight", "answer_within"]
    )
    def test_a_release_behind_a_door_with_other_settings_does_not_serve(
        self, docker: DockerPlace, a: Release, changed: dict[str, Any]
    ) -> None:
        """Releasing again must not stop at what serves, for the running door has yet to be told."""
        target = docker.target()
        target.serve(a, trust)
        target.settle(a)
        door = self.door(docker)
        other = docker.target(**changed)
        assert target.serves(a)
        assert not other.serves(a)
        with other.lock():
            until(lambda: other.serves(a), "the release serves as the settings say")
        assert not target.serves(a)
        assert self.door(docker) == door

    def test_an_address_that_is_not_this_machines_leaves_the_old_door_open(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """The same port on an address where nothing can listen is found out before the old door goes."""
        docker.target().serve(a, trust)
        moved = docker.target(address="192.0.2.1")
        with pytest.raises(SettingsInvalid), moved.lock():
            pytest.fail("it was moved to an address that this machine does not have")
        assert docker.answers() == {"a"}
        with docker.target(lock_wait=0.0).lock():
            assert docker.target().serves(a)

    def test_a_first_release_to_a_port_that_is_taken_changes_nothing(
        self, docker: DockerPlace
    ) -> None:
        """Not even a door is left that nobody can enter."""
        moved = docker.target(port=docker.taken_port())
        with pytest.raises(PortTaken), moved.lock():
            pytest.fail("it was opened on a port that another program listens on")
        assert docker.engine.containers({APP: docker.app}) == []

    @pytest.mark.parametrize("data", [b"", b"{", b'{"id": 2, "environment": "local"}', b"\xff\xfe"])
    def test_half_a_file_in_the_journal_is_no_attempt(
        self, docker: DockerPlace, a: Release, data: bytes
    ) -> None:
        """What a killed engine left unfinished is passed over; what else was written down is still known."""
        target = docker.target()
        with target.lock():
            target.begin(attempt(1, a))
            door = self.door(docker).id
            docker.engine.put_file(door, f"{STATE_FOLDER}/000001-end.json", data)
            docker.engine.put_file(door, f"{STATE_FOLDER}/000002-begin.json", data)
        assert [(rollout.attempt.id, rollout.outcome) for rollout in target.history()] == [
            (1, "unfinished")
        ]

    def test_a_replica_that_ends_later_is_started_again_by_the_engine(
        self, docker: DockerPlace, a: Release
    ) -> None:
        """Nobody has to be there when a process of a proven release dies."""
        target = docker.target()
        target.serve(a, trust)
        docker.crash(target.replicas()[0].name)
        until(
            lambda: (
                sum(found.restarts for found in docker.engine.containers({APP: docker.app})) == 1
            ),
            "it was started again",
        )
        until(lambda: target.serves(a), "the release serves with all its replicas")

    def leave_lock(self, docker: DockerPlace, on: str) -> str:
        """Makes a lock whose holder is no process of this machine, but was one of that; gives its id."""
        door = self.door(docker)
        owner = ProcessId(
            ProcessId.current().person, ProcessId.current().host, PROCESS_THAT_NEVER_WAS, "1"
        )
        labels = {
            **door.labels,
            "dev.twinship.role": "lock",
            "dev.twinship.owner": str(owner),
            "dev.twinship.machine": on,
        }
        labels["dev.twinship.since"] = datetime.now(UTC).isoformat()
        name = door.name.removesuffix("-door") + "-lock"
        return docker.engine.create(
            Spec(name=name, image=door.image, labels=labels, command=("sleep", "600"))
        ).id

    @pytest.mark.parametrize("started", [True, False])
    def test_a_lock_whose_holder_is_gone_is_cleared(
        self, docker: DockerPlace, a: Release, started: bool
    ) -> None:
        """A lock that outlived its holder, or was made but never held, keeps nobody out."""
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
    def test_a_lock_of_a_machine_of_the_same_name_is_left_alone(
        self, docker: DockerPlace, a: Release, on: str
    ) -> None:
        """Whether its holder lives cannot be seen from here, whatever the machines are called."""
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

    def test_looking_makes_nothing(self, docker: DockerPlace, a: Release) -> None:
        """History, replicas and status of an environment without releases leave no container behind."""
        target: Target = docker.target()
        target.history()
        target.replicas()
        target.serves(a)
        assert docker.engine.containers({APP: docker.app}) == []
