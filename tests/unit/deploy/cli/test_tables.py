"""Records as people and scripts read them."""

from __future__ import annotations

import json

import pytest

from deploy.cli import tables
from deploy.pipeline import ReleaseResult
from deploy.plan import Step
from tests.fakes.proof import verdict
from tests.fakes.releases import release, rollout
from tests.fakes.target import MemoryTarget

A = release("a", "1")
B = release("b", "2")


@pytest.fixture
def target() -> MemoryTarget:
    """An environment with a release that serves and one that was taken back."""
    target = MemoryTarget()
    target.add_history(rollout(1, A), rollout(2, B, "undone", why="it missed a golden case"))
    return target


def test_a_rollout_tells_the_whole_story_flat() -> None:
    """Who, when, what, where and how it ended, with whole digests, as JSON can hold it."""
    shown = tables.rollout(rollout(2, B, "undone", "rollback", "a replica ended"))
    image = B.image
    assert json.loads(json.dumps(shown)) == {
        "id": 2,
        "environment": "local",
        "trigger": "rollback",
        "commit": image.app.commit.full,
        "model": "digits@2",
        "model_digest": image.layer.model.digest,
        "app_digest": image.app.manifest.digest,
        "digest": image.digest,
        "reference": f"registry.example/classifier@{image.digest}",
        "by": "ada",
        "at": "2026-01-01T12:02:00+00:00",
        "ended": "2026-01-01T12:02:20+00:00",
        "url": "http://127.0.0.1:8080",
        "run": "",
        "outcome": "undone",
        "why": "a replica ended",
    }


def test_a_rollout_tells_the_ci_run_that_asked_for_it() -> None:
    """And that it was a promotion."""
    shown = tables.rollout(rollout(2, B, trigger="promote", run="https://ci.example/7"))
    assert (shown["trigger"], shown["run"]) == ("promote", "https://ci.example/7")


def test_a_rollout_without_an_end_says_so() -> None:
    """It is running, or its deployer was killed."""
    shown = tables.rollout(rollout(1, A, "unfinished"))
    assert (shown["outcome"], shown["ended"], shown["why"]) == ("unfinished", None, "")


def test_status_tells_what_should_serve_and_what_does(target: MemoryTarget) -> None:
    """The last attempt is told beside the one that serves."""
    shown = tables.status(target)
    assert (shown["serving"]["id"], shown["last"]["id"], shown["healthy"]) == (1, 2, True)
    assert [(replica["image"], replica["state"]) for replica in shown["replicas"]] == [
        (A.image.digest, "serving")
    ] * 2


def test_status_tells_a_release_that_does_not_serve_as_it_should(target: MemoryTarget) -> None:
    """A replica less is not healthy."""
    target.running.pop()
    assert tables.status(target)["healthy"] is False


def test_status_of_an_empty_environment_is_told_with_the_same_keys(target: MemoryTarget) -> None:
    """A script need not ask which there are."""
    empty = tables.status(MemoryTarget())
    assert empty.keys() == tables.status(target).keys()
    assert (empty["serving"], empty["last"], empty["healthy"], empty["replicas"]) == (
        None,
        None,
        False,
        [],
    )


def test_a_history_is_told_newest_first_and_marks_what_serves(target: MemoryTarget) -> None:
    """Every row has the header's columns, and an end that is no success says why."""
    rows = tables.history_rows(target.history())
    assert [row[0] for row in rows] == ["2", "1*"]
    assert [row[-1] for row in rows] == ["undone: it missed a golden case", "succeeded"]
    assert all(len(row) == len(tables.HISTORY) for row in rows)
    assert rows[1][2:7] == [
        "ada",
        "release",
        str(A.image.app.commit),
        "digits@1",
        A.image.digest[7:19],
    ]


def test_a_prediction_is_one_line_with_the_url() -> None:
    """It proves that something serves, and where."""
    assert tables.prediction(verdict("http://door")) == "http://door  three → 3, 99.1 (12 ms)"


def test_what_a_release_came_to_holds_its_proof() -> None:
    """The rollout, whether anything changed, and the golden cases as they were answered."""
    shown = tables.released(
        ReleaseResult(
            rollout=rollout(1, A), verdict=verdict("http://door", "expected 3"), changed=True
        )
    )
    assert (shown["id"], shown["changed"], shown["golden"]["passed"]) == (1, True, False)
    assert shown["golden"]["cases"][0]["problem"] == "expected 3"


def test_a_step_of_a_plan_is_a_row() -> None:
    """What moves is told where it is known and not nothing."""
    steps = (
        Step(stage="push", runs=True, why="new", moves=18_500_000),
        Step(stage="build", runs=False, why="built", moves=0),
    )
    assert tables.step_rows(steps) == [
        ["push", "run", "new", "18.5 MB"],
        ["build", "skip", "built", ""],
    ]
    assert all(len(row) == len(tables.STEPS) for row in tables.step_rows(steps))


@pytest.mark.parametrize(
    ("commit", "shown"),
    [
        ("0123456789abcdef", "0123456789ab"),
        ("0123456789abcdef-dirty", "0123456789ab-dirty"),
        ("unversioned", "unversioned"),
    ],
)
def test_a_commit_is_short_and_still_says_that_files_were_changed_beside_it(
    commit: str, shown: str
) -> None:
    """A person would look for it in vain otherwise."""
    assert tables.short(commit) == shown
