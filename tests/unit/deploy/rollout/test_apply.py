"""Making a release serve, taking it back when it fails, and choosing what to go back to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest

from deploy.clients.http import Endpoint
from deploy.errors import (
    DiskFull,
    EngineUnavailable,
    GoldenMiss,
    ReleaseError,
    ReleaseUnknown,
    RolloutFailed,
    RolloutLocked,
    UndoFailed,
    VerifyFailed,
)
from deploy.records import Release, Rollout
from deploy.rollout.apply import abort, apply, current, replica_error, verify
from tests.fakes.proof import PROOF, FakePlayer, in_turn
from tests.fakes.releases import release, rollout
from tests.fakes.target import MemoryTarget

A = release("a")
B = release("b")
C = release("c")
NOW = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.fixture
def target() -> MemoryTarget:
    """An environment to which nothing was released yet."""
    return MemoryTarget()


def applied(target: MemoryTarget, value: Release, problem: str = "") -> Rollout:
    """Applies a release, and has the front door answer wrongly if there is a problem."""
    play = FakePlayer(in_turn([problem]))
    return apply(value, target, PROOF, trigger="release", by="ada", clock=lambda: NOW, play=play)


def test_a_release_that_proves_itself_serves_alone(target: MemoryTarget) -> None:
    """It is written down before anything moves, proven before the old one is removed, and its end is written down."""
    target.served(rollout(1, A))
    done = applied(target, B)
    assert target.happened == ["begin 2", "shift b1", "end 2", "settle b1"]
    assert target.serves(B)
    assert target.history()[-1] == done
    assert (done.attempt.id, done.outcome, done.attempt.by, done.attempt.at) == (
        2,
        "succeeded",
        "ada",
        NOW,
    )


def test_a_release_is_proven_at_the_front_door(target: MemoryTarget) -> None:
    """The golden cases of its model are played against the environment's own URL."""
    play = FakePlayer()
    apply(A, target, PROOF, trigger="release", by="ada", play=play)
    assert play.played == [(target.url, ("three",))]


def test_a_wrong_answer_puts_the_previous_release_back(target: MemoryTarget) -> None:
    """Expected and actual are told, the previous release serves alone, and the history says why."""
    target.served(rollout(1, A))
    with pytest.raises(GoldenMiss) as caught:
        applied(target, B, problem="expected 3, got 8")
    assert "three: expected 3, got 8" in caught.value.detail
    assert target.serves(A)
    assert target.happened == ["begin 2", "shift b1", "shift a1", "settle a1", "end 2"]
    ended = target.history()[-1]
    assert (ended.outcome, ended.ending and ended.ending.why) == ("undone", caught.value.what)


def test_a_replica_that_will_not_serve_puts_the_previous_release_back(target: MemoryTarget) -> None:
    """The error is the target's own, with the log, and the front door is not even asked."""
    target.served(rollout(1, A))
    target.breaks(B)
    play = FakePlayer()
    with pytest.raises(RolloutFailed) as caught:
        apply(B, target, PROOF, trigger="release", by="ada", play=play)
    assert "out of memory" in caught.value.detail
    assert target.serves(A)
    assert target.history()[-1].outcome == "undone"
    assert play.played == []


def test_a_first_release_that_fails_leaves_nothing(target: MemoryTarget) -> None:
    """Where nothing served before, nothing serves after."""
    with pytest.raises(GoldenMiss):
        applied(target, A, problem="expected 3, got 8")
    assert target.replicas() == ()
    assert target.history()[-1].outcome == "failed"
    assert current(target.history()) is None


def test_an_undo_that_fails_tells_both_reasons(target: MemoryTarget) -> None:
    """The attempt stays without an end, so that the next run knows that it has something to finish."""
    target.served(rollout(1, A))
    target.breaks(B, replica_error("a replica ended", "replica-3", "out of memory"))
    target.breaks(A, replica_error("a replica was not ready", "replica-4", "no disk"))
    with pytest.raises(UndoFailed) as caught:
        applied(target, B)
    assert "a replica ended" in caught.value.what
    assert "a replica was not ready" in caught.value.what
    assert "no disk" in caught.value.detail
    assert isinstance(caught.value.__cause__, RolloutFailed)
    assert target.history()[-1].outcome == "unfinished"
    assert not target.busy


def test_one_reason_for_both_failures_is_told_once(target: MemoryTarget) -> None:
    """As when the place itself went away; what brings it back comes before running again."""
    target.served(rollout(1, A))
    for broken in (A, B):
        target.breaks(
            broken,
            EngineUnavailable("the engine stopped answering", on="replica-3", next="start it"),
        )
    with pytest.raises(UndoFailed) as caught:
        applied(target, B)
    assert (
        caught.value.what
        == "the engine stopped answering; and the previous release could not be put back"
    )
    assert caught.value.next.startswith("start it; ")


@pytest.mark.parametrize(
    ("interruption", "why"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "SystemExit"),
        (ValueError("a bug"), "ValueError"),
    ],
)
def test_a_rollout_that_is_interrupted_is_undone(
    target: MemoryTarget, interruption: BaseException, why: str
) -> None:
    """Whatever ends it, the previous release is put back before the process goes, and the history names it."""
    target.served(rollout(1, A))
    target.breaks(B, interruption)
    with pytest.raises(type(interruption)):
        applied(target, B)
    assert target.serves(A)
    ended = target.history()[-1]
    assert (ended.outcome, ended.ending and ended.ending.why) == ("undone", why)


@pytest.mark.parametrize("moment", ["end 2", "settle b1"])
def test_ctrl_c_after_the_proof_comes_too_late(target: MemoryTarget, moment: str) -> None:
    """The release serves alone, and the history says so: neither half of that is left out."""
    target.served(rollout(1, A))
    target.presses(moment)
    applied(target, B)
    assert target.happened == ["begin 2", "shift b1", "end 2", "settle b1"]
    assert target.history()[-1].outcome == "succeeded"


FULL = DiskFull("no space is left on the disk", on="here", next="free some")


def test_a_release_whose_success_cannot_be_written_down_is_taken_back(target: MemoryTarget) -> None:
    """What serves is what the history says."""
    target.served(rollout(1, A))
    target.fails("end 2", FULL)
    with pytest.raises(DiskFull):
        applied(target, B)
    assert target.happened == ["begin 2", "shift b1", "end 2", "shift a1", "settle a1", "end 2"]
    assert target.serves(A)
    ended = target.history()[-1]
    assert (ended.outcome, ended.ending and ended.ending.why) == ("undone", FULL.what)


def test_what_cannot_be_removed_after_a_success_takes_nothing_back(
    target: MemoryTarget, caplog: pytest.LogCaptureFixture
) -> None:
    """The command fails, because somebody has to see to it, and says that the release serves."""
    target.served(rollout(1, A))
    target.fails("settle b1", FULL)
    with pytest.raises(DiskFull):
        applied(target, B)
    assert target.happened == ["begin 2", "shift b1", "end 2", "settle b1"]
    assert target.history()[-1].outcome == "succeeded"
    assert "release 2 is proven and serves" in caplog.text


@pytest.mark.parametrize("moment", ["shift a1", "settle a1", "end 2"])
def test_ctrl_c_does_not_end_an_undoing(target: MemoryTarget, moment: str) -> None:
    """The previous release serves again, and what is told is the reason why the new one does not."""
    target.served(rollout(1, A))
    target.presses(moment)
    with pytest.raises(GoldenMiss):
        applied(target, B, problem="expected 3, got 8")
    assert target.happened == ["begin 2", "shift b1", "shift a1", "settle a1", "end 2"]
    assert target.history()[-1].outcome == "undone"


def test_what_a_killed_rollout_left_is_taken_back_first(target: MemoryTarget) -> None:
    """Requests go back to what was proven before a third release is tried, and the unproven one is gone."""
    target.served(rollout(1, A), rollout(2, B, "unfinished"))
    target.standing += [(B.image.digest, "serving")]
    applied(target, C)
    assert target.happened == [
        "shift a1",
        "settle a1 c1",
        "begin 3",
        "shift c1",
        "end 3",
        "settle c1",
    ]
    assert target.serves(C)


def test_a_killed_rollout_of_the_same_release_is_gone_on_with(target: MemoryTarget) -> None:
    """What it had started already is used."""
    target.served(rollout(1, A), rollout(2, B, "unfinished"))
    target.standing += [(B.image.digest, "serving")]
    applied(target, B)
    assert target.happened == ["begin 3", "shift b1", "end 3", "settle b1"]


def test_releasing_what_served_before_a_killed_rollout_takes_one_move(target: MemoryTarget) -> None:
    """Going back to what was proven is what is asked for anyway."""
    target.served(rollout(1, A), rollout(2, B, "unfinished"))
    target.standing += [(B.image.digest, "serving")]
    applied(target, A)
    assert target.happened == ["begin 3", "shift a1", "end 3", "settle a1"]
    assert target.serves(A)


def test_a_killed_first_rollout_is_replaced(target: MemoryTarget) -> None:
    """Where nothing was ever proven there is nothing to go back to first."""
    target.served(rollout(1, A, "unfinished"))
    target.standing = [(A.image.digest, "serving")]
    applied(target, B)
    assert target.serves(B)


def test_attempts_are_numbered_on_whatever_came_of_them(target: MemoryTarget) -> None:
    """A number names one attempt for ever."""
    target.served(rollout(1, A), rollout(7, B, "unfinished"))
    target.breaks(C)
    with pytest.raises(RolloutFailed):
        applied(target, C)
    applied(target, B)
    assert [one.attempt.id for one in target.history()] == [1, 7, 8, 9]


def test_a_release_after_an_undone_one_falls_back_to_what_was_proven(target: MemoryTarget) -> None:
    """What was taken back is never put back."""
    target.served(rollout(1, A), rollout(2, B, "undone"))
    with pytest.raises(GoldenMiss):
        applied(target, C, problem="expected 3, got 8")
    assert target.serves(A)


def test_another_deployer_at_work_changes_nothing(target: MemoryTarget) -> None:
    """Not even an attempt is written down."""
    target.busy = True
    with pytest.raises(RolloutLocked):
        applied(target, A)
    assert target.happened == []


def decided(target: MemoryTarget, value: Release, *seen: Rollout) -> Rollout:
    """Applies a release that was chosen by that history."""
    return apply(
        value, target, PROOF, trigger="rollback", by="ada", decided_on=seen, play=FakePlayer()
    )


@pytest.mark.parametrize("seen", [(), (rollout(1, A),)])
def test_what_was_decided_before_somebody_else_released_is_not_done(
    target: MemoryTarget, seen: tuple[Rollout, ...]
) -> None:
    """It would take back what nobody had seen; who made it is told."""
    target.served(rollout(1, A), rollout(2, B))
    with pytest.raises(RolloutLocked, match="somebody else released meanwhile: ada, release 2"):
        decided(target, C, *seen)
    assert target.happened == []
    assert target.serves(B)
    assert not target.busy


@pytest.mark.parametrize("later", [(), (rollout(2, B, "undone"),), (rollout(2, B, "unfinished"),)])
def test_what_was_decided_on_what_still_serves_is_done(
    target: MemoryTarget, later: tuple[Rollout, ...]
) -> None:
    """Attempts that came to nothing have changed nothing."""
    target.served(rollout(1, A), *later)
    assert decided(target, C, rollout(1, A)).succeeded


def test_what_was_decided_where_nothing_served_is_done(target: MemoryTarget) -> None:
    """Nothing can be taken back there."""
    assert decided(target, A).succeeded


def test_the_history_says_what_asked_for_a_rollout(target: MemoryTarget) -> None:
    """A rollback is told from a release."""
    done = apply(A, target, PROOF, trigger="rollback", by="ci", play=FakePlayer())
    assert (done.attempt.trigger, done.attempt.by) == ("rollback", "ci")


def test_the_history_says_which_ci_run_asked_for_a_rollout(target: MemoryTarget) -> None:
    """So that its log is found again; where a person asked there is none."""
    done = apply(
        A, target, PROOF, trigger="promote", by="ci", run="https://ci.example/7", play=FakePlayer()
    )
    assert (target.history()[0].attempt.trigger, done.attempt.run) == (
        "promote",
        "https://ci.example/7",
    )
    assert applied(target, B).attempt.run == ""


def test_times_are_told_with_their_zone(target: MemoryTarget) -> None:
    """A history is read in other places than where it was written."""
    assert (
        apply(
            A, target, PROOF, trigger="release", by="ada", play=FakePlayer()
        ).attempt.at.utcoffset()
        is not None
    )


# --- proving before requests go there

BESIDE = Endpoint("http://beside")


def test_new_replicas_are_proven_before_they_get_requests(target: MemoryTarget) -> None:
    """Where the target lets them be asked; the front door is asked after that."""
    target.beside = BESIDE
    play = FakePlayer()
    apply(A, target, PROOF, trigger="release", by="ada", play=play)
    assert play.played == [(BESIDE.url, ("three",)), (target.url, ("three",))]


def test_new_replicas_that_answer_wrongly_never_get_requests(target: MemoryTarget) -> None:
    """The front door is not asked, and it is told where the wrong answer came from."""
    target.served(rollout(1, A))
    target.beside = BESIDE
    play = FakePlayer()
    play.wrong[BESIDE.url] = "expected 3, got 8"
    with pytest.raises(GoldenMiss) as caught:
        apply(B, target, PROOF, trigger="release", by="ada", play=play)
    assert caught.value.on.startswith("http://beside, ")
    assert [url for url, _ in play.played] == [BESIDE.url]
    assert target.serves(A)
    assert target.history()[-1].outcome == "undone"


def test_what_is_put_back_is_not_proven_again(target: MemoryTarget) -> None:
    """It served until now, and its model's golden cases are not those of the release that failed."""
    target.served(rollout(1, A))
    target.beside = BESIDE
    play = FakePlayer()
    play.wrong[target.url] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        apply(B, target, PROOF, trigger="release", by="ada", play=play)
    assert [url for url, _ in play.played] == [BESIDE.url, target.url]


def test_what_was_held_long_enough_is_proven_at_the_front_door_alone(target: MemoryTarget) -> None:
    """Somebody has decided that it takes over."""
    target.beside = BESIDE
    play = FakePlayer()
    apply(A, target, PROOF, trigger="release", by="ada", hold=False, play=play)
    assert [url for url, _ in play.played] == [target.url]


# --- what others left


@pytest.mark.parametrize("state", ["starting", "serving", "failing"])
def test_replicas_that_nobody_proved_are_taken_back_first(target: MemoryTarget, state: str) -> None:
    """Whatever state they are in, if they may get requests."""
    target.served(rollout(1, A), rollout(2, B, "unfinished"))
    target.standing += [(B.image.digest, state)]
    applied(target, C)
    assert target.happened[:2] == ["shift a1", "settle a1 c1"]


def test_replicas_that_stand_by_hold_up_nothing(target: MemoryTarget) -> None:
    """They get no requests, and are removed when the next release serves."""
    target.served(rollout(1, A), rollout(2, B, "unfinished"))
    target.standing += [(B.image.digest, "standing by")]
    applied(target, C)
    assert target.happened == ["begin 3", "shift c1", "end 3", "settle c1"]
    assert target.serves(C)


def test_a_deployer_that_lost_its_lock_leaves_everything_to_whoever_has_it(
    target: MemoryTarget,
) -> None:
    """It puts nothing back, writes nothing down, and says why."""
    target.served(rollout(1, A))
    target.breaks(B, RolloutLocked("the lock was lost", on="environment local", next="run again"))
    with pytest.raises(RolloutLocked, match="the lock was lost"):
        applied(target, B)
    assert target.happened == ["begin 2", "shift b1"]
    assert target.history()[-1].outcome == "unfinished"


# --- giving up what a deployer that is gone began


def test_an_attempt_whose_deployer_is_gone_is_taken_back(target: MemoryTarget) -> None:
    """The previous release serves alone, and the history says who gave the other one up."""
    target.served(rollout(1, A), rollout(2, B, "unfinished"))
    target.standing += [(B.image.digest, "serving")]
    done = abort(target, "ada", lambda: NOW)
    assert target.happened == ["shift a1", "settle a1", "end 2"]
    assert target.serves(A)
    assert target.history()[-1] == done
    assert (done.attempt.id, done.outcome, done.ending and done.ending.why) == (
        2,
        "undone",
        "given up by ada",
    )
    assert done.ending
    assert done.ending.at == NOW


def test_a_first_attempt_that_is_given_up_leaves_nothing(target: MemoryTarget) -> None:
    """There is nothing to put back."""
    target.served(rollout(1, A, "unfinished"))
    target.standing = [(A.image.digest, "starting")]
    assert abort(target, "ada").outcome == "failed"
    assert target.replicas() == ()


@pytest.mark.parametrize(
    "history", [(), (rollout(1, A),), (rollout(1, A, "unfinished"), rollout(2, A, "undone"))]
)
def test_what_has_ended_cannot_be_given_up(
    target: MemoryTarget, history: tuple[Rollout, ...]
) -> None:
    """Nothing is changed then."""
    target.served(*history)
    with pytest.raises(ReleaseUnknown, match="nothing is under way"):
        abort(target, "ada")
    assert target.happened == []


def test_what_a_living_deployer_works_at_cannot_be_given_up(target: MemoryTarget) -> None:
    """It has the lock."""
    target.served(rollout(1, A, "unfinished"))
    target.busy = True
    with pytest.raises(RolloutLocked):
        abort(target, "ada")
    assert target.happened == []


def test_an_attempt_that_cannot_be_taken_back_stays_open(target: MemoryTarget) -> None:
    """Both reasons are told, and the next run goes on from there."""
    target.served(rollout(1, A), rollout(2, B, "unfinished"))
    target.breaks(A)
    with pytest.raises(UndoFailed, match=r"given up by ada; and .* a replica ended"):
        abort(target, "ada")
    assert target.history()[-1].outcome == "unfinished"


# --- verifying


def test_verifying_changes_nothing(target: MemoryTarget) -> None:
    """The verdict is given, and the target was only asked for its URL."""
    assert verify(target, PROOF, FakePlayer()).passed
    assert target.happened == []


def test_verifying_tells_what_is_wrong(target: MemoryTarget) -> None:
    """A wrong answer is an error of its own, with the way to look and the way back."""
    with pytest.raises(VerifyFailed) as caught:
        verify(target, PROOF, FakePlayer(lambda: "expected 3, got 8"))
    assert "three: expected 3, got 8" in caught.value.detail
    assert "rollback" in caught.value.next


@pytest.mark.parametrize(
    ("outcome", "expected"), [("succeeded", 2), ("undone", 1), ("failed", 1), ("unfinished", 1)]
)
def test_what_should_serve_is_what_was_proven_last(
    outcome: Literal["succeeded", "undone", "failed", "unfinished"], expected: int
) -> None:
    """Attempts that were taken back, or whose end nobody wrote down, do not count."""
    now = current((rollout(1, A), rollout(2, B, outcome)))
    assert now is not None
    assert now.attempt.id == expected


def test_the_end_of_a_log_is_shown_as_such() -> None:
    """Lines are indented under what they belong to; a replica that wrote nothing is said to have written nothing."""
    assert (
        replica_error("a replica ended", "replica-1", "one\ntwo\n").detail
        == "  its log ends with:\n    one\n    two"
    )
    assert isinstance(replica_error("a replica ended", "replica-1", ""), ReleaseError)
    assert replica_error("a replica ended", "replica-1", "").detail.endswith("(nothing)")
