"""Rollouts: bring a release into service, prove it, and undo it after a failure."""

from __future__ import annotations

from collections.abc import Callable
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
    SettingsInvalid,
    UndoFailed,
    VerifyFailed,
)
from deploy.records import Release, Rollout
from deploy.rollout.apply import abort, apply, take_over, verify
from deploy.rollout.history import Choice, current
from deploy.rollout.target import ReplicaState, replica_error
from deploy.variables import Variables
from tests.contracts.variables import NEW, OLD
from tests.fakes.golden import GOLDEN_SET, FakePlayer, golden_set_with, return_in_turn
from tests.fakes.releases import release, rollout
from tests.fakes.target import MemoryCanaryTarget, MemoryTarget

A = release("a")
B = release("b")
C = release("c")
NOW = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.fixture
def target() -> MemoryTarget:
    """An environment without a release."""
    return MemoryTarget()


def roll_out(target: MemoryTarget, value: Release, problem: str = "") -> Rollout:
    """Roll a release out; with a problem, the first response at the endpoint is wrong."""
    play = FakePlayer(return_in_turn([problem]))
    return apply(
        value, target, GOLDEN_SET, trigger="release", by="ada", clock=lambda: NOW, play=play
    )


def test_a_proven_release_serves_alone(target: MemoryTarget) -> None:
    """It is recorded before and after, and proven before the old release is removed."""
    target.add_history(rollout(1, A))
    done = roll_out(target, B)
    assert target.calls == ["begin 2", "serve b1", "end 2", "settle b1"]
    assert target.serves(B)
    assert target.history()[-1] == done
    assert (done.attempt.id, done.outcome, done.attempt.by, done.attempt.at) == (
        2,
        "succeeded",
        "ada",
        NOW,
    )


def test_a_release_is_proven_at_the_endpoint(target: MemoryTarget) -> None:
    """The golden cases of its model are played at the environment's URL."""
    play = FakePlayer()
    apply(A, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    assert play.played == [(target.url, ("three",))]


def test_a_wrong_response_restores_the_previous_release(target: MemoryTarget) -> None:
    """The error has expected and actual value, and the history the reason."""
    target.add_history(rollout(1, A))
    with pytest.raises(GoldenMiss) as caught:
        roll_out(target, B, problem="expected 3, got 8")
    assert "three: expected 3, got 8" in caught.value.detail
    assert target.serves(A)
    assert target.calls == ["begin 2", "serve b1", "restore a1", "settle a1", "end 2"]
    ended = target.history()[-1]
    assert (ended.outcome, ended.ending and ended.ending.why) == ("undone", caught.value.what)


def test_a_replica_that_does_not_start_restores_the_previous_release(target: MemoryTarget) -> None:
    """The error is that of the target, with the log, and no golden case is played."""
    target.add_history(rollout(1, A))
    target.fail_release(B)
    play = FakePlayer()
    with pytest.raises(RolloutFailed) as caught:
        apply(B, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    assert "out of memory" in caught.value.detail
    assert target.serves(A)
    assert target.history()[-1].outcome == "undone"
    assert play.played == []


def test_an_undone_release_leaves_its_evidence_in_the_history(target: MemoryTarget) -> None:
    """The golden cases that it missed, and the last lines of its replicas, which are gone."""
    target.add_history(rollout(1, A))
    target.write(A, "fine", at=NOW)
    target.write(B, "loading", "division by zero", at=NOW)
    with pytest.raises(GoldenMiss):
        roll_out(target, B, problem="expected 3, got 8")
    ending = target.history()[-1].ending
    assert ending
    assert ending.evidence
    assert ending.evidence.misses == {"three": "expected 3, got 8"}
    assert {line.text for line in ending.evidence.log} == {"loading", "division by zero"}
    assert B.image.digest not in {replica.image for replica in target.replicas()}


def test_a_release_that_crashed_leaves_its_last_lines(target: MemoryTarget) -> None:
    """No golden case was played."""
    target.add_history(rollout(1, A))
    target.fail_release(B)
    target.write(B, "out of memory", at=NOW)
    with pytest.raises(RolloutFailed):
        roll_out(target, B)
    ending = target.history()[-1].ending
    assert ending
    assert ending.evidence
    assert ending.evidence.misses == {}
    assert [line.text for line in ending.evidence.log] == ["out of memory"]


def test_a_proven_release_has_no_evidence_of_a_failure(target: MemoryTarget) -> None:
    """Its record is as it was before there was any."""
    target.write(A, "loading", at=NOW)
    done = roll_out(target, A)
    assert done.ending
    assert done.ending.evidence is None


def test_a_first_release_that_fails_leaves_nothing(target: MemoryTarget) -> None:
    """If nothing served before, nothing serves after."""
    with pytest.raises(GoldenMiss):
        roll_out(target, A, problem="expected 3, got 8")
    assert target.replicas() == ()
    assert target.history()[-1].outcome == "failed"
    assert current(target.history()) is None


def test_an_undo_that_fails_has_both_reasons(target: MemoryTarget) -> None:
    """The attempt stays unfinished, so that the next run completes the undo."""
    target.add_history(rollout(1, A))
    target.fail_release(B, replica_error("a replica ended", "replica-3", "out of memory"))
    target.fail_release(A, replica_error("a replica was not ready", "replica-4", "no disk"))
    with pytest.raises(UndoFailed) as caught:
        roll_out(target, B)
    assert "a replica ended" in caught.value.what
    assert "a replica was not ready" in caught.value.what
    assert "no disk" in caught.value.detail
    assert isinstance(caught.value.__cause__, RolloutFailed)
    assert target.history()[-1].outcome == "unfinished"
    assert not target.locked


def test_one_reason_for_both_failures_is_named_once(target: MemoryTarget) -> None:
    """For example, the engine stopped; its own advice comes first."""
    target.add_history(rollout(1, A))
    for broken in (A, B):
        target.fail_release(
            broken,
            EngineUnavailable("the engine stopped answering", on="replica-3", next="start it"),
        )
    with pytest.raises(UndoFailed) as caught:
        roll_out(target, B)
    assert (
        caught.value.what
        == "the engine stopped answering; and the previous release could not be restored"
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
def test_an_interrupted_rollout_is_undone(
    target: MemoryTarget, interruption: BaseException, why: str
) -> None:
    """The previous release is restored before the process ends, and the history has the reason."""
    target.add_history(rollout(1, A))
    target.fail_release(B, interruption)
    with pytest.raises(type(interruption)):
        roll_out(target, B)
    assert target.serves(A)
    ended = target.history()[-1]
    assert (ended.outcome, ended.ending and ended.ending.why) == ("undone", why)


@pytest.mark.parametrize("moment", ["end 2", "settle b1"])
def test_ctrl_c_after_the_proof_is_deferred(target: MemoryTarget, moment: str) -> None:
    """The release serves alone, and the history says so."""
    target.add_history(rollout(1, A))
    target.interrupt(moment)
    roll_out(target, B)
    assert target.calls == ["begin 2", "serve b1", "end 2", "settle b1"]
    assert target.history()[-1].outcome == "succeeded"


FULL = DiskFull("no space is left on the disk", on="here", next="free some")


def test_a_release_whose_success_cannot_be_recorded_is_undone(target: MemoryTarget) -> None:
    """What serves is what the history says."""
    target.add_history(rollout(1, A))
    target.fail("end 2", FULL)
    with pytest.raises(DiskFull):
        roll_out(target, B)
    assert target.calls == ["begin 2", "serve b1", "end 2", "restore a1", "settle a1", "end 2"]
    assert target.serves(A)
    ended = target.history()[-1]
    assert (ended.outcome, ended.ending and ended.ending.why) == ("undone", FULL.what)


def test_a_failed_removal_after_a_success_undoes_nothing(
    target: MemoryTarget, caplog: pytest.LogCaptureFixture
) -> None:
    """The command fails, so that a person sees it, and says that the release serves."""
    target.add_history(rollout(1, A))
    target.fail("settle b1", FULL)
    with pytest.raises(DiskFull):
        roll_out(target, B)
    assert target.calls == ["begin 2", "serve b1", "end 2", "settle b1"]
    assert target.history()[-1].outcome == "succeeded"
    assert "release 2 is proven and serves" in caplog.text


@pytest.mark.parametrize("moment", ["restore a1", "settle a1", "end 2"])
def test_ctrl_c_does_not_end_an_undo(target: MemoryTarget, moment: str) -> None:
    """The previous release serves again, and the error is why the new one does not."""
    target.add_history(rollout(1, A))
    target.interrupt(moment)
    with pytest.raises(GoldenMiss):
        roll_out(target, B, problem="expected 3, got 8")
    assert target.calls == ["begin 2", "serve b1", "restore a1", "settle a1", "end 2"]
    assert target.history()[-1].outcome == "undone"


def test_a_killed_rollout_is_undone_first(target: MemoryTarget) -> None:
    """The proven release serves before a third one is rolled out."""
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, ReplicaState.SERVING)
    roll_out(target, C)
    assert target.calls == [
        "restore a1",
        "settle a1 c1",
        "begin 3",
        "serve c1",
        "end 3",
        "settle c1",
    ]
    assert target.serves(C)


def test_a_killed_rollout_of_the_same_release_is_continued(target: MemoryTarget) -> None:
    """The replicas that it started are used."""
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, ReplicaState.SERVING)
    roll_out(target, B)
    assert target.calls == ["begin 3", "serve b1", "end 3", "settle b1"]


def test_releasing_the_proven_release_after_a_killed_rollout_is_one_step(
    target: MemoryTarget,
) -> None:
    """An undo would do the same."""
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, ReplicaState.SERVING)
    roll_out(target, A)
    assert target.calls == ["begin 3", "serve a1", "end 3", "settle a1"]
    assert target.serves(A)


def test_a_killed_first_rollout_is_replaced(target: MemoryTarget) -> None:
    """Without a proven release there is nothing to restore first."""
    target.add_history(rollout(1, A, "unfinished"))
    target.add_replicas(A, ReplicaState.SERVING)
    roll_out(target, B)
    assert target.serves(B)


def test_attempts_are_numbered_on_however_they_ended(target: MemoryTarget) -> None:
    """A number names one attempt for ever."""
    target.add_history(rollout(1, A), rollout(7, B, "unfinished"))
    target.fail_release(C)
    with pytest.raises(RolloutFailed):
        roll_out(target, C)
    roll_out(target, B)
    assert [one.attempt.id for one in target.history()] == [1, 7, 8, 9]


def test_an_undo_returns_to_the_last_proven_release(target: MemoryTarget) -> None:
    """A release that was undone is never restored."""
    target.add_history(rollout(1, A), rollout(2, B, "undone"))
    with pytest.raises(GoldenMiss):
        roll_out(target, C, problem="expected 3, got 8")
    assert target.serves(A)


def test_while_another_deployer_is_at_work_nothing_changes(target: MemoryTarget) -> None:
    """No attempt is recorded."""
    target.locked = True
    with pytest.raises(RolloutLocked):
        roll_out(target, A)
    assert target.calls == []


def roll_out_by(target: MemoryTarget, value: Release, *seen: Rollout) -> Rollout:
    """Roll out a release that was chosen by that history."""
    return apply(
        value,
        target,
        GOLDEN_SET,
        trigger="rollback",
        by="ada",
        choice=Choice(seen),
        play=FakePlayer(),
    )


@pytest.mark.parametrize("seen", [(), (rollout(1, A),)])
def test_a_choice_before_another_release_is_refused(
    target: MemoryTarget, seen: tuple[Rollout, ...]
) -> None:
    """It would undo a release that was not there yet; the error names who made that."""
    target.add_history(rollout(1, A), rollout(2, B))
    with pytest.raises(
        RolloutLocked, match="another deployer released in the meantime: ada, release 2"
    ):
        roll_out_by(target, C, *seen)
    assert target.calls == []
    assert target.serves(B)
    assert not target.locked


@pytest.mark.parametrize("later", [(), (rollout(2, B, "undone"),), (rollout(2, B, "unfinished"),)])
def test_a_choice_is_valid_while_the_same_release_serves(
    target: MemoryTarget, later: tuple[Rollout, ...]
) -> None:
    """Attempts that did not succeed have changed nothing."""
    target.add_history(rollout(1, A), *later)
    assert roll_out_by(target, C, rollout(1, A)).succeeded


def test_a_choice_is_valid_if_nothing_served(target: MemoryTarget) -> None:
    """It can undo nothing."""
    assert roll_out_by(target, A).succeeded


def test_the_history_has_the_command_and_the_person(target: MemoryTarget) -> None:
    """So that a rollback differs from a release."""
    done = apply(A, target, GOLDEN_SET, trigger="rollback", by="ci", play=FakePlayer())
    assert (done.attempt.trigger, done.attempt.by) == ("rollback", "ci")


def test_the_history_has_the_ci_run(target: MemoryTarget) -> None:
    """By its address the log is found; a person's rollout has none."""
    done = apply(
        A,
        target,
        GOLDEN_SET,
        trigger="promote",
        by="ci",
        run="https://ci.example/7",
        play=FakePlayer(),
    )
    assert (target.history()[0].attempt.trigger, done.attempt.run) == (
        "promote",
        "https://ci.example/7",
    )
    assert roll_out(target, B).attempt.run == ""


def test_times_have_a_zone(target: MemoryTarget) -> None:
    """A history is read on other machines too."""
    assert (
        apply(
            A, target, GOLDEN_SET, trigger="release", by="ada", play=FakePlayer()
        ).attempt.at.utcoffset()
        is not None
    )


# --- proving before requests go there

NEW_REPLICAS = Endpoint("http://new-replicas")


def test_new_replicas_are_proven_before_they_get_requests(target: MemoryTarget) -> None:
    """If the target can reach them; then the endpoint is proven."""
    target.direct = NEW_REPLICAS
    play = FakePlayer()
    apply(A, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    assert play.played == [(NEW_REPLICAS.url, ("three",)), (target.url, ("three",))]


def test_new_replicas_with_wrong_responses_never_get_requests(target: MemoryTarget) -> None:
    """The error names their endpoint, and the environment's own is not asked."""
    target.add_history(rollout(1, A))
    target.direct = NEW_REPLICAS
    play = FakePlayer()
    play.wrong[NEW_REPLICAS.url] = "expected 3, got 8"
    with pytest.raises(GoldenMiss) as caught:
        apply(B, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    assert caught.value.on.startswith("http://new-replicas, ")
    assert [url for url, _ in play.played] == [NEW_REPLICAS.url]
    assert target.serves(A)
    assert target.history()[-1].outcome == "undone"


def test_a_restored_release_is_not_proven_again(target: MemoryTarget) -> None:
    """It was proven before, and the golden cases are those of another model."""
    target.add_history(rollout(1, A))
    target.direct = NEW_REPLICAS
    play = FakePlayer()
    play.wrong[target.url] = "expected 3, got 8"
    with pytest.raises(GoldenMiss):
        apply(B, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    assert [url for url, _ in play.played] == [NEW_REPLICAS.url, target.url]


def test_a_canary_that_takes_over_is_proven_at_the_endpoint_alone() -> None:
    """Another person decided that it takes over, so its replicas are not proven again."""
    target = MemoryCanaryTarget()
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, ReplicaState.SERVING)
    target.direct = NEW_REPLICAS
    play = FakePlayer()
    done = take_over(B, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    assert target.calls == ["begin 3", "take over b1", "end 3", "settle b1"]
    assert [url for url, _ in play.played] == [target.url]
    assert target.history()[-1] == done
    assert target.serves(B)


def test_a_canary_that_takes_over_and_answers_wrongly_is_undone() -> None:
    """As any other release."""
    target = MemoryCanaryTarget()
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, ReplicaState.SERVING)
    play = FakePlayer(return_in_turn(["expected 3, got 8"]))
    with pytest.raises(GoldenMiss):
        take_over(B, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    assert target.calls == ["begin 3", "take over b1", "restore a1", "settle a1", "end 3"]
    assert target.serves(A)


# --- what another deployer left


@pytest.mark.parametrize(
    "state", [ReplicaState.STARTING, ReplicaState.SERVING, ReplicaState.UNHEALTHY]
)
def test_unproven_replicas_are_undone_first(target: MemoryTarget, state: ReplicaState) -> None:
    """In any state in which they may get requests."""
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, state)
    roll_out(target, C)
    assert target.calls[:2] == ["restore a1", "settle a1 c1"]


def test_standby_replicas_need_no_undo(target: MemoryTarget) -> None:
    """They get no requests, and are removed when the next release serves."""
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, ReplicaState.STANDBY)
    roll_out(target, C)
    assert target.calls == ["begin 3", "serve c1", "end 3", "settle c1"]
    assert target.serves(C)


def test_a_deployer_that_lost_its_lock_changes_nothing_more(
    target: MemoryTarget,
) -> None:
    """It restores and records nothing; that is for the deployer that has the lock."""
    target.add_history(rollout(1, A))
    target.fail_release(
        B, RolloutLocked("the lock was lost", on="environment local", next="run again")
    )
    with pytest.raises(RolloutLocked, match="the lock was lost"):
        roll_out(target, B)
    assert target.calls == ["begin 2", "serve b1"]
    assert target.history()[-1].outcome == "unfinished"


# --- abort an attempt whose deployer has ended


def test_an_attempt_whose_deployer_has_ended_can_be_aborted(target: MemoryTarget) -> None:
    """The previous release serves alone, and the history has who aborted the attempt."""
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.add_replicas(B, ReplicaState.SERVING)
    done = abort(target, "ada", lambda: NOW)
    assert target.calls == ["restore a1", "settle a1", "end 2"]
    assert target.serves(A)
    assert target.history()[-1] == done
    assert (done.attempt.id, done.outcome, done.ending and done.ending.why) == (
        2,
        "undone",
        "aborted by ada",
    )
    assert done.ending
    assert done.ending.at == NOW


def test_a_first_attempt_that_is_aborted_leaves_nothing(target: MemoryTarget) -> None:
    """There is nothing to restore."""
    target.add_history(rollout(1, A, "unfinished"))
    target.add_replicas(A, ReplicaState.STARTING)
    assert abort(target, "ada").outcome == "failed"
    assert target.replicas() == ()


@pytest.mark.parametrize(
    "history", [(), (rollout(1, A),), (rollout(1, A, "unfinished"), rollout(2, A, "undone"))]
)
def test_an_attempt_that_has_ended_cannot_be_aborted(
    target: MemoryTarget, history: tuple[Rollout, ...]
) -> None:
    """Nothing changes."""
    target.add_history(*history)
    with pytest.raises(ReleaseUnknown, match="no rollout is under way"):
        abort(target, "ada")
    assert target.calls == []


def test_an_attempt_whose_deployer_is_at_work_cannot_be_aborted(target: MemoryTarget) -> None:
    """That deployer has the lock."""
    target.add_history(rollout(1, A, "unfinished"))
    target.locked = True
    with pytest.raises(RolloutLocked):
        abort(target, "ada")
    assert target.calls == []


def test_an_attempt_that_cannot_be_undone_stays_unfinished(target: MemoryTarget) -> None:
    """The error has both reasons, and the next run continues."""
    target.add_history(rollout(1, A), rollout(2, B, "unfinished"))
    target.fail_release(A)
    with pytest.raises(UndoFailed, match=r"aborted by ada; and .* a replica ended"):
        abort(target, "ada")
    assert target.history()[-1].outcome == "unfinished"


# --- verify


def test_verifying_changes_nothing(target: MemoryTarget) -> None:
    """It only plays the golden cases."""
    assert verify(target, GOLDEN_SET, FakePlayer()).passed
    assert target.calls == []


def test_verifying_raises_for_a_wrong_response(target: MemoryTarget) -> None:
    """The error names the commands that show the replicas and return to an earlier release."""
    with pytest.raises(VerifyFailed) as caught:
        verify(target, GOLDEN_SET, FakePlayer(lambda: "expected 3, got 8"))
    assert "three: expected 3, got 8" in caught.value.detail
    assert "rollback" in caught.value.next


@pytest.mark.parametrize(
    ("outcome", "expected"), [("succeeded", 2), ("undone", 1), ("failed", 1), ("unfinished", 1)]
)
def test_the_current_attempt_is_the_last_that_succeeded(
    outcome: Literal["succeeded", "undone", "failed", "unfinished"], expected: int
) -> None:
    """Attempts that were undone or are unfinished do not count."""
    now = current((rollout(1, A), rollout(2, B, outcome)))
    assert now is not None
    assert now.attempt.id == expected


def test_an_error_of_a_replica_has_the_end_of_its_log() -> None:
    """Its lines are indented; an empty log is named as such."""
    assert (
        replica_error("a replica ended", "replica-1", "one\ntwo\n").detail
        == "  its log ends with:\n    one\n    two"
    )
    assert isinstance(replica_error("a replica ended", "replica-1", ""), ReleaseError)
    assert replica_error("a replica ended", "replica-1", "").detail.endswith("(nothing)")


# --- variables


def test_a_rollout_is_proven_with_the_variables_of_its_replicas(target: MemoryTarget) -> None:
    """So is a rollback, whose release has its own, and what serves."""
    play = FakePlayer()
    target.settings = lambda: OLD
    apply(A, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    target.settings = lambda: NEW
    apply(B, target, GOLDEN_SET, trigger="release", by="ada", play=play)
    back = Choice(target.history(), returns_to=1)
    apply(A, target, GOLDEN_SET, trigger="rollback", by="ada", choice=back, play=play)
    verify(target, GOLDEN_SET, play)
    assert play.variables == [OLD, NEW, OLD, OLD]


@pytest.mark.parametrize("roll", [apply, take_over])
def test_a_golden_case_that_names_an_unknown_variable_changes_nothing(
    target: MemoryTarget, roll: Callable[..., Rollout]
) -> None:
    """Case, header, name and tables are in the error."""
    target.add_history(rollout(1, A))
    with pytest.raises(SettingsInvalid) as caught:
        roll(B, target, golden_set_with("${NO_KEY}"), trigger="release", by="ada")
    assert caught.value.on == "golden case three, header X-Key"
    assert caught.value.next.startswith(
        "add NO_KEY to [environments.local.env] or [environments.local.secrets]"
    )
    assert target.calls == []
    with pytest.raises(SettingsInvalid):
        verify(target, golden_set_with("${NO_KEY}"))


def test_a_secret_that_is_not_set_changes_nothing(target: MemoryTarget) -> None:
    """The attempt is not recorded."""

    def missing() -> Variables:
        raise SettingsInvalid("the environment variable KEY is not set", on="", next="")

    target.add_history(rollout(1, A))
    target.settings = missing
    with pytest.raises(SettingsInvalid):
        roll_out(target, B)
    assert target.calls == []
    assert target.serves(A)
