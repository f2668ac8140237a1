"""Records as tables and JSON."""

from __future__ import annotations

import json

import pytest

from deploy.cli import tables
from deploy.model.versions import BrokenVersion
from deploy.pipeline import ReleaseResult
from deploy.plan import Step
from tests.fakes.golden import verdict
from tests.fakes.releases import release, rollout
from tests.fakes.target import MemoryTarget

A = release("a", "1")
B = release("b", "2")


@pytest.fixture
def target() -> MemoryTarget:
    """Return an environment with a release that serves and a later one that was undone."""
    target = MemoryTarget()
    target.add_history(rollout(1, A), rollout(2, B, "undone", why="it missed a golden case"))
    return target


def test_a_rollout_is_one_flat_json_object() -> None:
    """It has whole digests."""
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
        "misses": {},
        "log": [],
    }


def test_a_rollout_has_its_ci_run() -> None:
    """It has its trigger too."""
    shown = tables.rollout(rollout(2, B, trigger="promote", run="https://ci.example/7"))
    assert (shown["trigger"], shown["run"]) == ("promote", "https://ci.example/7")


def test_a_rollout_without_an_end_is_unfinished() -> None:
    """It is in progress, or its deployer was killed."""
    shown = tables.rollout(rollout(1, A, "unfinished"))
    assert (shown["outcome"], shown["ended"], shown["why"]) == ("unfinished", None, "")


def test_status_has_the_current_release_and_the_replicas(target: MemoryTarget) -> None:
    """It also has the last attempt."""
    shown = tables.status(target)
    assert (shown["serving"]["id"], shown["last"]["id"], shown["healthy"]) == (1, 2, True)
    assert [(replica["image"], replica["state"]) for replica in shown["replicas"]] == [
        (A.image.digest, "serving")
    ] * 2


def test_status_with_a_missing_replica_is_unhealthy(target: MemoryTarget) -> None:
    """The number of replicas counts."""
    target.running.pop()
    assert tables.status(target)["healthy"] is False


def test_status_of_an_empty_environment_has_the_same_keys(target: MemoryTarget) -> None:
    """Scripts need no special case."""
    empty = tables.status(MemoryTarget())
    assert empty.keys() == tables.status(target).keys()
    assert (empty["serving"], empty["last"], empty["healthy"], empty["replicas"]) == (
        None,
        None,
        False,
        [],
    )


def test_history_rows_are_newest_first_and_mark_the_current_release(target: MemoryTarget) -> None:
    """An attempt that did not succeed has the reason."""
    rows = tables.history_rows(target.history())
    assert [row[0] for row in rows] == ["2", "1*"]
    assert [row[-1] for row in rows] == ["undone: it missed a golden case", "succeeded"]
    assert all(len(row) == len(tables.HISTORY) for row in rows)
    assert rows[1][2:7] == [
        "ada",
        "release",
        str(A.image.app.commit),
        "digits@1",
        A.image.digest[:19],
    ]


def test_a_prediction_is_one_line_with_the_url() -> None:
    """It proves that the release serves."""
    assert (
        tables.prediction(verdict("http://shop.example"))
        == "http://shop.example  three → 3, 99.1 (12 ms)"
    )


def test_the_result_of_a_release_has_its_proof() -> None:
    """It has the rollout, whether anything changed, and the golden cases."""
    shown = tables.release_result(
        ReleaseResult(
            rollout=rollout(1, A),
            verdict=verdict("http://shop.example", "expected 3"),
            changed=True,
        )
    )
    assert (shown["id"], shown["changed"], shown["golden"]["passed"]) == (1, True, False)
    assert shown["golden"]["cases"][0]["problem"] == "expected 3"


def test_a_step_of_a_plan_is_a_row() -> None:
    """The size is printed if it is known and not zero."""
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
def test_a_short_commit_says_that_files_differ(commit: str, shown: str) -> None:
    """Otherwise people would search for a commit that does not exist."""
    assert tables.format_commit(commit) == shown


def test_a_version_that_cannot_be_read_has_a_problem_in_place_of_a_digest() -> None:
    """It is listed with the others."""
    whole = A.image.layer.model
    broken = BrokenVersion(name="digits", version="2", problem="it is not JSON")
    assert tables.model_rows((whole, broken), "2") == [
        ["digits", "1", "", whole.digest],
        ["digits", "2", "latest", "cannot be read: it is not JSON"],
    ]
    assert tables.models((broken,), "1") == [
        {"name": "digits", "version": "2", "problem": "it is not JSON", "latest": False}
    ]
