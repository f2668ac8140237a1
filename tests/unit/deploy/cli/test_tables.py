"""Records as tables and JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.cli import tables
from deploy.model.versions import BrokenVersion
from deploy.pipeline import ReleaseResult
from deploy.plan import Step
from deploy.records import Exit
from deploy.rollout.status import Status, read_status
from deploy.rollout.target import Replica, ReplicaState
from tests.fakes.golden import verdict
from tests.fakes.releases import release, rollout
from tests.fakes.target import MemoryTarget

A = release("a", "1")
B = release("b", "2")
NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)


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


def show(target: MemoryTarget, advice: str = "") -> dict[str, Any]:
    """Return the status of an environment as JSON."""
    return tables.status(read_status(target), advice)


def test_a_replica_is_shown_with_its_age_its_restarts_and_its_last_exit() -> None:
    """What is not known is left out."""
    started = NOW - timedelta(minutes=3, seconds=5)
    ended = Exit(code=137, at=started, reason="OOMKilled")
    replicas = (
        Replica(name="local-1", image=A.image.digest, state=ReplicaState.SERVING),
        Replica(
            name="local-2",
            image=A.image.digest,
            state=ReplicaState.STARTING,
            restarts=4,
            started=started,
            last_exit=ended,
        ),
    )
    found = Status(
        environment="local",
        url="http://shop.example",
        history=(rollout(1, A),),
        replicas=replicas,
        wanted=3,
        healthy=False,
    )
    digest = A.image.digest[:19]
    lines = tables.status_text(found, NOW, "do this").splitlines()
    assert lines[0] == "http://shop.example  unhealthy, 1 of 3 replicas"
    assert lines[2:] == [
        f"  local-1  serving  {digest}",
        f"  local-2  starting  {digest}  up 3 min, 4 restarts, last exit code 137 (OOMKilled)",
        "next: do this",
    ]
    shown = json.loads(json.dumps(tables.status(found, "do this")))
    assert (shown["count"], shown["wanted"], shown["next"]) == (1, 3, "do this")
    assert shown["replicas"][1]["started"] == "2026-02-03T11:56:55Z"
    assert shown["replicas"][1]["restarts"] == 4
    assert shown["replicas"][1]["last_exit"] == {
        "code": 137,
        "at": "2026-02-03T11:56:55Z",
        "reason": "OOMKilled",
    }


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_an_age_has_its_largest_unit(seconds: float, shown: str) -> None:
    """The clock of another machine may be ahead."""
    assert tables.format_age(timedelta(seconds=seconds)) == shown


def test_status_has_the_current_release_and_the_replicas(target: MemoryTarget) -> None:
    """It also has the last attempt."""
    shown = show(target)
    assert (shown["serving"]["id"], shown["last"]["id"], shown["healthy"]) == (1, 2, True)
    assert [(replica["image"], replica["state"]) for replica in shown["replicas"]] == [
        (A.image.digest, "serving")
    ] * 2


def test_status_with_a_missing_replica_is_unhealthy(target: MemoryTarget) -> None:
    """The number of replicas counts."""
    target.running.pop()
    shown = show(target)
    assert (shown["healthy"], shown["served"], shown["count"], shown["wanted"]) == (
        False,
        False,
        1,
        2,
    )


def test_status_of_an_empty_environment_has_the_same_keys(target: MemoryTarget) -> None:
    """Scripts need no special case."""
    empty = show(MemoryTarget())
    assert empty.keys() == show(target).keys()
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
