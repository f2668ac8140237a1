"""The rules of the target protocol, as tests that any target can run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from deploy.ci.run import current_user
from deploy.clients.http import Endpoint
from deploy.errors import RolloutFailed, RolloutLocked
from deploy.records import Ending, Release
from deploy.rollout.logs import LogSource, LogTarget, Window, read_last_lines
from deploy.rollout.target import ReplicaState, Target
from tests.fakes.engine import Script
from tests.fakes.releases import attempt

CRASHING = Script(exits=3, says="loading the model\nout of memory")
TALKING = Script(says="loading the model\nlistening")
NEVER_READY = Script(ready_after=None, says="waiting for a file that is not there")


class Place(Protocol):
    """An environment in which a target is tested."""

    def target(self, *, replicas: int = 2, **changed: object) -> Target:
        """Return the target as another process opens it, with some settings changed."""

    def release(self, code: str, script: Script | None = None) -> Release:
        """Return a release whose replicas respond with that text and behave like that script."""

    def answers(self, **changed: object) -> set[str]:
        """Return the texts of the responses at the endpoint now."""

    def lose(self, replica: str) -> None:
        """End a replica for good."""


def trust(_endpoint: Endpoint) -> None:
    """Find no fault with new replicas."""


def states(target: Target) -> list[tuple[str, ReplicaState]]:
    """Return the image and the state of every replica."""
    return sorted((replica.image, replica.state) for replica in target.replicas())


def replicas(
    release: Release, state: ReplicaState, count: int = 2
) -> list[tuple[str, ReplicaState]]:
    """Return what `states` returns for replicas of a release."""
    return [(release.image.digest, state)] * count


class Places:
    """Base of the rules; subclasses have the fixture `place`, an environment without a release."""

    @pytest.fixture
    def place(self) -> Place:
        """An environment without a release."""
        raise NotImplementedError

    @pytest.fixture
    def a(self, place: Place) -> Release:
        """A good release."""
        return place.release("a")

    @pytest.fixture
    def b(self, place: Place) -> Release:
        """Another good release."""
        return place.release("b")


class TargetContract(Places):
    """The rules of every target.

    Attributes:
        patience: the seconds to wait for a replica that never becomes ready.
    """

    patience = 2.0

    def test_an_empty_environment_has_nothing(self, place: Place, a: Release) -> None:
        """Reading it is no error."""
        target = place.target()
        assert target.history() == ()
        assert target.replicas() == ()
        assert not target.serves(a)

    def test_a_first_release_serves_with_all_its_replicas(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """It gets all requests, and the target says so."""
        target = place.target()
        target.serve(a, trust)
        assert place.answers() == {"a"}
        assert states(target) == replicas(a, ReplicaState.SERVING)
        assert target.serves(a)
        assert not target.serves(b)

    def test_replicas_that_need_time_are_waited_for(self, place: Place) -> None:
        """A replica gets requests once it is ready, not once it has started."""
        target = place.target()
        target.serve(slow := place.release("slow", Script(ready_after=4)), trust)
        assert target.serves(slow)
        assert place.answers() == {"slow"}

    def test_serving_what_serves_changes_nothing(self, place: Place, a: Release) -> None:
        """A rollout can be repeated."""
        target = place.target()
        target.serve(a, trust)
        before = target.replicas()
        place.target().serve(a, trust)
        place.target().settle(a)
        assert place.target().replicas() == before

    def test_many_rollouts_in_a_row_leave_one_release(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """A rollout frees what it used, so that any number of them finds room."""
        target = place.target()
        for release in (a, b, a, b):
            target.serve(release, trust)
            target.settle(release)
        assert states(target) == replicas(b, ReplicaState.SERVING)
        assert place.answers() == {"b"}

    @pytest.mark.parametrize(
        ("script", "what", "line"),
        [
            (CRASHING, "exit code 3", "out of memory"),
            (NEVER_READY, "not ready within", "a file that is not there"),
        ],
    )
    def test_a_release_that_does_not_start_is_an_error_with_its_log(
        self, place: Place, a: Release, script: Script, what: str, line: str
    ) -> None:
        """The previous release still gets all requests."""
        place.target().serve(a, trust)
        with pytest.raises(RolloutFailed, match=what) as caught:
            place.target(ready_within=self.patience).serve(place.release("broken", script), trust)
        assert line in caught.value.detail
        assert place.answers() == {"a"}

    @pytest.mark.parametrize("script", [CRASHING, NEVER_READY])
    def test_a_release_that_does_not_start_can_be_undone(
        self, place: Place, a: Release, script: Script
    ) -> None:
        """Restore and settle leave exactly the replicas that were there before."""
        target = place.target()
        target.serve(a, trust)
        before = target.replicas()
        with pytest.raises(RolloutFailed):
            place.target(ready_within=self.patience).serve(place.release("broken", script), trust)
        target.restore(a)
        target.settle(a)
        assert target.replicas() == before
        assert place.answers() == {"a"}

    def test_a_first_release_that_does_not_start_leaves_nothing(self, place: Place) -> None:
        """If nothing served before, all replicas are removed."""
        target = place.target()
        with pytest.raises(RolloutFailed):
            target.serve(place.release("broken", CRASHING), trust)
        target.settle()
        assert target.replicas() == ()

    def test_a_replica_in_a_used_place_is_checked_itself(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """A replica that is not ready gets no requests, though an earlier one there was ready."""
        target = place.target()
        for release in (a, b):
            target.serve(release, trust)
            target.settle(release)
        with pytest.raises(RolloutFailed, match="not ready within"):
            place.target(ready_within=self.patience).serve(
                place.release("broken", NEVER_READY), trust
            )
        assert place.answers() == {"b"}

    def test_what_a_killed_run_left_is_removed(self, place: Place, a: Release, b: Release) -> None:
        """Replicas of an unfinished rollout are removed by the next, also if they ended."""
        target = place.target()
        target.serve(a, trust)
        target.serve(b, trust)
        place.lose(
            next(replica.name for replica in target.replicas() if replica.image == b.image.digest)
        )
        again = place.target()
        again.serve(c := place.release("c"), trust)
        again.settle(c)
        assert states(again) == replicas(c, ReplicaState.SERVING)
        assert place.answers() == {"c"}

    def test_a_run_continues_where_a_killed_one_stopped(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """Replicas of the release that run already are used, and no others are started."""
        target = place.target()
        target.serve(a, trust)
        target.serve(b, trust)
        started = {replica.name for replica in target.replicas() if replica.image == b.image.digest}
        again = place.target()
        again.serve(b, trust)
        again.settle(b)
        assert {replica.name for replica in again.replicas()} == started

    def test_a_lost_replica_is_replaced(self, place: Place, a: Release) -> None:
        """Without it the release does not serve as the settings say."""
        target = place.target()
        target.serve(a, trust)
        place.lose(target.replicas()[0].name)
        assert not target.serves(a)
        target.serve(a, trust)
        target.settle(a)
        assert target.serves(a)
        assert place.answers() == {"a"}

    @pytest.mark.parametrize("count", [1, 3])
    def test_another_number_of_replicas_is_reached_by_releasing_again(
        self, place: Place, a: Release, count: int
    ) -> None:
        """Until then, the release does not serve as the settings say."""
        place.target(replicas=2).serve(a, trust)
        changed = place.target(replicas=count)
        assert changed.replica_count() == count
        assert not changed.serves(a)
        changed.serve(a, trust)
        changed.settle(a)
        assert changed.serves(a)
        assert states(changed) == replicas(a, ReplicaState.SERVING, count)
        assert place.answers() == {"a"}

    # --- history

    def test_attempts_are_recorded_in_the_environment(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """Other processes read them; an attempt without an ending is unfinished."""
        first = attempt(1, a)
        second = attempt(2, b, "rollback")
        ending = Ending(outcome="undone", at=first.at + timedelta(seconds=9), why="a replica ended")
        target = place.target()
        with target.lock():
            target.begin(first)
            target.end(first, ending)
            target.begin(second)
        history = place.target().history()
        assert [rollout.attempt for rollout in history] == [first, second]
        assert [rollout.ending for rollout in history] == [ending, None]
        assert [rollout.outcome for rollout in history] == ["undone", "unfinished"]

    def test_attempts_are_recorded_in_their_order(self, place: Place, a: Release) -> None:
        """Also if there are more than nine."""
        target = place.target()
        with target.lock():
            for number in (1, 2, 9, 10, 11):
                target.begin(attempt(number, a))
        assert [rollout.attempt.id for rollout in place.target().history()] == [1, 2, 9, 10, 11]

    # --- the lock

    def test_a_second_deployer_is_refused_with_the_name_of_the_first(self, place: Place) -> None:
        """It changes nothing."""
        one = place.target(lock_wait=0.0)
        two = place.target(lock_wait=0.0)
        with one.lock(), pytest.raises(RolloutLocked) as caught, two.lock():
            pytest.fail("two deployers at once")
        assert current_user() in caught.value.what

    def test_the_lock_is_released_after_a_failure(self, place: Place) -> None:
        """The next rollout can begin at once."""
        target = place.target(lock_wait=0.0)
        with pytest.raises(KeyboardInterrupt), target.lock():
            raise KeyboardInterrupt
        with place.target(lock_wait=0.0).lock():
            pass


class LogTargetContract(Places):
    """The rules of a target whose logs can be read."""

    def sources(self, place: Place, release: Release) -> list[LogSource]:
        """Return the logs of the replicas of a release, as another process finds them."""
        target = place.target()
        assert isinstance(target, LogTarget)
        digest = release.image.digest
        return [source for source in target.log_sources() if source.image == digest]

    def test_the_logs_of_all_replicas_are_read_during_a_rollout(self, place: Place) -> None:
        """Each has a name and the times of its lines; the lock of a deployer does not matter."""
        target = place.target()
        target.serve(talking := place.release("talking", TALKING), trust)
        with target.lock():
            found = self.sources(place, talking)
            logs = {source.name: list(source.read(Window())) for source in found}
            last = [list(source.read(Window(lines=1))) for source in found]
            later = datetime.now(UTC) + timedelta(days=1)
            none = [list(source.read(Window(since=later))) for source in found]
        assert len(logs) == 2
        for lines in logs.values():
            assert [text for _, text in lines][:2] == ["loading the model", "listening"]
            assert [at for at, _ in lines] == sorted(at for at, _ in lines)
        assert [len(lines) for lines in last] == [1, 1]
        assert none == [[], []]

    def test_the_last_lines_of_a_release_that_does_not_start_are_read_until_it_is_removed(
        self, place: Place
    ) -> None:
        """So the history can keep them."""
        target = place.target()
        broken = place.release("broken", CRASHING)
        with pytest.raises(RolloutFailed):
            target.serve(broken, trust)
        lines = read_last_lines(place.target(), broken.image.digest)
        assert "out of memory" in {line.text for line in lines}
        target.settle()
        assert target.replicas() == ()


class StandbyContract(Places):
    """The rules of a target that keeps the previous replicas until a rollout is settled."""

    def test_old_replicas_are_standby_until_the_rollout_is_settled(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """The new release gets all requests, and the old one none; settling removes it."""
        target = place.target()
        target.serve(a, trust)
        target.settle(a)
        target.serve(b, trust)
        assert place.answers() == {"b"}
        assert states(target) == sorted(
            replicas(a, ReplicaState.STANDBY) + replicas(b, ReplicaState.SERVING)
        )
        assert not target.serves(b)
        target.settle(b)
        assert states(target) == replicas(b, ReplicaState.SERVING)
        assert target.serves(b)

    def test_a_restore_starts_nothing(self, place: Place, a: Release, b: Release) -> None:
        """Until a rollout is settled, the replicas that served before only get requests again."""
        target = place.target()
        target.serve(a, trust)
        before = {replica.name for replica in target.replicas()}
        target.serve(b, trust)
        target.restore(a)
        target.settle(a)
        assert {replica.name for replica in target.replicas()} == before
        assert place.answers() == {"a"}


class StandbyTargetContract(TargetContract, StandbyContract, LogTargetContract):
    """All rules of a target that keeps the previous replicas, and whose logs can be read."""
