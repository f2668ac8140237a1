"""What every target does, whatever releases are served by."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

import pytest

from deploy.clients.http import Endpoint
from deploy.errors import RolloutFailed, RolloutLocked
from deploy.machine.process import current_user
from deploy.records import Ending, Release
from deploy.rollout.target import ReplicaState, Target
from tests.fakes.engine import Script
from tests.fakes.releases import attempt

CRASHING = Script(exits=3, says="loading the model\nout of memory")
NEVER_READY = Script(ready_after=None, says="waiting for a file that is not there")


class Place(Protocol):
    """An environment in which a target is tried."""

    def target(self, *, replicas: int = 2, **changed: object) -> Target:
        """The environment's target as another process would make it, with settings that may have changed."""

    def release(self, code: str, script: Script | None = None) -> Release:
        """A release whose replicas answer with that text, and behave like that script."""

    def answers(self, **changed: object) -> set[str]:
        """The texts that are answered at the front door now."""

    def lose(self, replica: str) -> None:
        """A replica goes, and nobody brings it back."""


def trust(_endpoint: Endpoint) -> None:
    """Find no fault with new replicas."""


def states(target: Target) -> list[tuple[str, ReplicaState]]:
    """The image and the state of every replica."""
    return sorted((replica.image, replica.state) for replica in target.replicas())


def replicas(
    release: Release, state: ReplicaState, count: int = 2
) -> list[tuple[str, ReplicaState]]:
    """That many replicas of a release in a state."""
    return [(release.image.digest, state)] * count


class Places:
    """Subclasses give the fixture `place`: an environment to which nothing was released yet."""

    @pytest.fixture
    def place(self) -> Place:
        """The environment."""
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
    """What every target keeps; `patience` is for how many seconds a replica that is never ready is waited for."""

    patience = 2.0

    def test_before_a_first_release_there_is_nothing(self, place: Place, a: Release) -> None:
        """Looking at an empty environment is no error."""
        target = place.target()
        assert target.history() == ()
        assert target.replicas() == ()
        assert not target.serves(a)

    def test_a_first_release_serves_with_all_its_replicas(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """All requests are answered by it, and that can be asked."""
        target = place.target()
        target.serve(a, trust)
        assert place.answers() == {"a"}
        assert states(target) == replicas(a, ReplicaState.SERVING)
        assert target.serves(a)
        assert not target.serves(b)

    def test_replicas_that_need_time_are_waited_for(self, place: Place) -> None:
        """A replica gets requests when it says that it is ready, not when it has started."""
        target = place.target()
        target.serve(slow := place.release("slow", Script(ready_after=4)), trust)
        assert target.serves(slow)
        assert place.answers() == {"slow"}

    def test_shifting_to_what_serves_changes_nothing(self, place: Place, a: Release) -> None:
        """A rollout may be repeated."""
        target = place.target()
        target.serve(a, trust)
        before = target.replicas()
        place.target().serve(a, trust)
        place.target().settle(a)
        assert place.target().replicas() == before

    def test_many_rollouts_in_a_row_leave_one_release(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """What a rollout takes it gives back, so that there is room for any number of them."""
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
    def test_a_release_that_will_not_serve_is_an_error_with_its_log(
        self, place: Place, a: Release, script: Script, what: str, line: str
    ) -> None:
        """What was seen and the end of the replica's log are told; the old release still has all requests."""
        place.target().serve(a, trust)
        with pytest.raises(RolloutFailed, match=what) as caught:
            place.target(ready_within=self.patience).serve(place.release("broken", script), trust)
        assert line in caught.value.detail
        assert place.answers() == {"a"}

    @pytest.mark.parametrize("script", [CRASHING, NEVER_READY])
    def test_a_release_that_will_not_serve_can_be_taken_back(
        self, place: Place, a: Release, script: Script
    ) -> None:
        """Shifting back and settling leaves exactly what was there before."""
        target = place.target()
        target.serve(a, trust)
        before = target.replicas()
        with pytest.raises(RolloutFailed):
            place.target(ready_within=self.patience).serve(place.release("broken", script), trust)
        target.restore(a)
        target.settle(a)
        assert target.replicas() == before
        assert place.answers() == {"a"}

    def test_a_first_release_that_will_not_serve_leaves_nothing(self, place: Place) -> None:
        """Where nothing served before, everything is taken away."""
        target = place.target()
        with pytest.raises(RolloutFailed):
            target.serve(place.release("broken", CRASHING), trust)
        target.settle()
        assert target.replicas() == ()

    def test_replicas_in_the_place_of_others_are_asked_themselves(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """A replica that is not ready gets no requests, though one that was served from the same place before."""
        target = place.target()
        for release in (a, b):
            target.serve(release, trust)
            target.settle(release)
        with pytest.raises(RolloutFailed, match="not ready within"):
            place.target(ready_within=self.patience).serve(
                place.release("broken", NEVER_READY), trust
            )
        assert place.answers() == {"b"}

    def test_what_a_killed_run_left_is_cleared(self, place: Place, a: Release, b: Release) -> None:
        """Replicas of a rollout that nobody ended go when the next one is settled, also if they are dead."""
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

    def test_a_run_goes_on_where_a_killed_one_stopped(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """Replicas of the wanted release that were started already are taken, not started again."""
        target = place.target()
        target.serve(a, trust)
        target.serve(b, trust)
        started = {replica.name for replica in target.replicas() if replica.image == b.image.digest}
        again = place.target()
        again.serve(b, trust)
        again.settle(b)
        assert {replica.name for replica in again.replicas()} == started

    def test_a_lost_replica_is_replaced(self, place: Place, a: Release) -> None:
        """A release with fewer replicas than it should have does not count as serving, and is made whole by releasing it again."""
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
        """More are started, or those too many are retired; until then the release does not count as serving."""
        place.target(replicas=2).serve(a, trust)
        changed = place.target(replicas=count)
        assert not changed.serves(a)
        changed.serve(a, trust)
        changed.settle(a)
        assert changed.serves(a)
        assert states(changed) == replicas(a, ReplicaState.SERVING, count)
        assert place.answers() == {"a"}

    # --- memory

    def test_attempts_are_remembered_by_the_environment(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """Beginnings and ends are read by whoever comes next; an attempt without an end is unfinished."""
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

    def test_attempts_are_remembered_in_their_order(self, place: Place, a: Release) -> None:
        """Also after more than nine of them."""
        target = place.target()
        with target.lock():
            for number in (1, 2, 9, 10, 11):
                target.begin(attempt(number, a))
        assert [rollout.attempt.id for rollout in place.target().history()] == [1, 2, 9, 10, 11]

    # --- one at a time

    def test_two_deployers_are_kept_apart_by_name(self, place: Place) -> None:
        """The second is told who is at work, and changes nothing."""
        one = place.target(lock_wait=0.0)
        two = place.target(lock_wait=0.0)
        with one.lock(), pytest.raises(RolloutLocked) as caught, two.lock():
            pytest.fail("two deployers at once")
        assert current_user() in caught.value.what

    def test_the_environment_is_free_again_after_a_deployer_has_failed(self, place: Place) -> None:
        """However a rollout ends, the next one can begin at once."""
        target = place.target(lock_wait=0.0)
        with pytest.raises(KeyboardInterrupt), target.lock():
            raise KeyboardInterrupt
        with place.target(lock_wait=0.0).lock():
            pass


class WarmContract(Places):
    """What a target keeps beside, if it keeps the replicas of the release before until a rollout is settled."""

    def test_old_replicas_stand_by_until_the_rollout_is_settled(
        self, place: Place, a: Release, b: Release
    ) -> None:
        """After the shift the new release has all requests and the old one none; settling removes it."""
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

    def test_going_back_starts_nothing(self, place: Place, a: Release, b: Release) -> None:
        """Until a rollout is settled, the replicas that served before are only let in again."""
        target = place.target()
        target.serve(a, trust)
        before = {replica.name for replica in target.replicas()}
        target.serve(b, trust)
        target.restore(a)
        target.settle(a)
        assert {replica.name for replica in target.replicas()} == before
        assert place.answers() == {"a"}


class WarmTargetContract(TargetContract, WarmContract):
    """All that a target keeps which keeps old replicas."""
