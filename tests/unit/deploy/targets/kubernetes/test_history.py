"""The history of an environment on its cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.errors import ClusterRefused
from deploy.records import Ending, Evidence, Rollout
from deploy.targets.kubernetes.history import MAX_ENTRIES, WRITE_TRIES, Decision, History
from deploy.targets.kubernetes.pod_variables import PodVariables
from deploy.targets.kubernetes.snapshot import Snapshot
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.releases import attempt, release, rollout

NAME = "shop-history"
A = release("a")
B = release("b")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def history(cluster: FakeCluster) -> History:
    """Return its history, which is empty."""
    return History(cluster, NAME, {"app": "shop"})


def data(cluster: FakeCluster) -> dict[str, str]:
    """Return the data of the ConfigMap."""
    found: dict[str, str] = (cluster.objects.get("ConfigMap", NAME) or {}).get("data", {})
    return found


def record(history: History, *rollouts: Rollout) -> None:
    """Record attempts and their endings."""
    for item in rollouts:
        history.begin(item.attempt)
        if item.ending:
            history.end(item.attempt, item.ending)


def ids(history: History) -> list[int]:
    """Return the numbers of the recorded attempts."""
    return [item.attempt.id for item in history.read()]


def test_another_process_reads_the_whole_history(cluster: FakeCluster, history: History) -> None:
    """Attempts and endings are complete."""
    past = (
        rollout(1, A),
        rollout(2, B, "undone", why="a replica ended"),
        rollout(3, B, "unfinished"),
    )
    record(history, *past)
    assert History(cluster, NAME, {}).read() == past
    assert (cluster.objects.get("ConfigMap", NAME) or {})["metadata"]["labels"] == {"app": "shop"}


def test_an_empty_history_is_reported_as_missing(cluster: FakeCluster, history: History) -> None:
    """A ConfigMap without entries is, too."""
    assert history.read_and_check() == ((), True)
    cluster.create({"kind": "ConfigMap", "metadata": {"name": NAME}})
    assert history.read_and_check() == ((), True)


@pytest.mark.parametrize("damaged", ["", "{", "null", "[]", '{"attempt": 7}'])
def test_a_damaged_entry_is_skipped_and_reported(
    cluster: FakeCluster, history: History, damaged: str
) -> None:
    """The other entries are read."""
    record(history, rollout(1, A), rollout(2, B), rollout(3, A))
    assert history.read_and_check()[1] is False
    data(cluster)["000002"] = damaged
    assert ids(history) == [1, 3]
    assert history.read_and_check()[1] is True


def test_other_keys_of_the_config_map_stay(cluster: FakeCluster, history: History) -> None:
    """They are neither read nor lost."""
    record(history, rollout(1, A))
    data(cluster)["README"] = "ours"
    record(history, rollout(2, B))
    assert ids(history) == [1, 2]
    assert data(cluster)["README"] == "ours"


def test_attempts_are_ordered_by_number(cluster: FakeCluster, history: History) -> None:
    """The keys may have different lengths, such as one that was written by hand."""
    for number in (1, 9, 10, 999_999, 1_000_000):
        history.begin(attempt(number, A))
    data(cluster)["7"] = Rollout(attempt=attempt(7, A), ending=None).model_dump_json()
    assert ids(history) == [1, 7, 9, 10, 999_999, 1_000_000]


def test_recovered_attempts_are_recorded_with_the_next_one(history: History) -> None:
    """The target may know them from a Deployment."""
    history.begin(attempt(6, B), rollout(5, A))
    assert [(item.attempt.id, item.outcome) for item in history.read()] == [
        (5, "succeeded"),
        (6, "unfinished"),
    ]


# --- the snapshot

SNAPSHOT = Snapshot(
    track="twin", objects={"Deployment": {"kind": "Deployment", "spec": {"replicas": 2}}}
)


def test_the_snapshot_is_kept_until_the_attempt_ends(
    cluster: FakeCluster, history: History
) -> None:
    """Any process can read it; it does not count as an entry."""
    assert history.snapshot() is None
    history.begin(attempt(1, A), snapshot=SNAPSHOT)
    assert History(cluster, NAME, {}).snapshot() == SNAPSHOT
    assert (ids(history), history.read_and_check()[1]) == ([1], False)
    history.end(attempt(1, A), Ending(outcome="undone", at=NOW))
    assert history.snapshot() is None


def test_the_snapshot_is_that_of_the_last_attempt(history: History) -> None:
    """That attempt may have none."""
    history.begin(attempt(1, A), snapshot=SNAPSHOT)
    history.begin(attempt(2, B))
    assert history.snapshot() is None


@pytest.mark.parametrize("damaged", ["", "{", '{"track": "unknown", "objects": {}}'])
def test_a_damaged_snapshot_is_none(cluster: FakeCluster, history: History, damaged: str) -> None:
    """It causes no error."""
    history.begin(attempt(1, A), snapshot=SNAPSHOT)
    data(cluster)["before"] = damaged
    assert history.snapshot() is None


# --- limits


def test_the_oldest_entries_are_removed_when_there_are_too_many(history: History) -> None:
    """The limit is a number of entries."""
    history.begin(
        attempt(MAX_ENTRIES + 7, A), *(rollout(number, A) for number in range(1, MAX_ENTRIES + 7))
    )
    assert ids(history) == list(range(8, MAX_ENTRIES + 8))


def test_the_last_success_is_never_removed(history: History) -> None:
    """Without its entry, an undo would remove the release that serves."""
    past = [
        rollout(1, B),
        rollout(2, A),
        *(rollout(number, B, "undone") for number in range(3, MAX_ENTRIES + 9)),
    ]
    history.begin(attempt(MAX_ENTRIES + 9, B), *past)
    assert ids(history)[0] == 2
    assert len(ids(history)) == MAX_ENTRIES
    history.begin(attempt(MAX_ENTRIES + 10, B))
    assert ids(history)[0] == 2


def test_old_entries_are_removed_before_the_object_is_too_big(
    cluster: FakeCluster, history: History
) -> None:
    """A cluster may say a lot about why a replica does not start."""
    for number in range(1, 60):
        history.begin(item := attempt(number, A))
        history.end(
            item, Ending(outcome="succeeded" if number == 3 else "undone", at=NOW, why="é" * 10_000)
        )
    assert sum(len(text.encode()) for text in data(cluster).values()) < 1_000_000
    assert ids(history)[0] == 3
    assert ids(history)[-1] == 59
    assert len(ids(history)) > 30


# --- writing at the same time as others


def test_evidence_goes_before_entries(
    history: History, monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster
) -> None:
    """A rollback needs an entry, and the evidence of an old failure is of little interest."""
    monkeypatch.setattr("deploy.targets.kubernetes.history.MAX_BYTES", 30_000)
    failed = rollout(1, B, "undone")
    assert failed.ending
    evidence = Evidence(misses={"three": "x" * 5000})
    record(
        history,
        rollout(1, A),
        *(
            Rollout(
                attempt=rollout(number, B).attempt,
                ending=failed.ending.model_copy(update={"evidence": evidence}),
            )
            for number in range(2, 7)
        ),
    )
    history.begin(attempt(7, B))
    assert ids(history) == list(range(1, 8))
    kept = [bool(item.ending and item.ending.evidence) for item in history.read()]
    assert kept == [False, False, True, True, True, True, False]
    assert {item.outcome for item in history.read()[1:6]} == {"undone"}


def test_a_write_is_repeated_after_a_conflict(
    cluster: FakeCluster, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second write keeps what the other client wrote."""
    record(history, rollout(1, A))
    replace = cluster.replace

    def replace_after_another(item: dict[str, Any]) -> bool:
        monkeypatch.setattr(cluster, "replace", replace)
        History(cluster, NAME, {}).decide(Decision(image="x", verb="abort", by="grace"))
        return replace(item)

    monkeypatch.setattr(cluster, "replace", replace_after_another)
    history.end(attempt(1, A), Ending(outcome="succeeded", at=NOW))
    assert [item.outcome for item in history.read()] == ["succeeded"]
    assert history.decision("x")


def test_repeated_conflicts_are_reported(
    cluster: FakeCluster, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write fails after some tries."""
    record(history, rollout(1, A))
    monkeypatch.setattr(cluster, "replace", lambda _: False)
    with pytest.raises(ClusterRefused, match="another client keeps changing it"):
        history.begin(attempt(2, B))
    assert WRITE_TRIES > 3


# --- decisions about canaries


def test_a_decision_belongs_to_one_image(history: History) -> None:
    """It does not count for another image."""
    assert history.decision(A.image.digest) is None
    decision = Decision(image=A.image.digest, verb="promote", by="grace")
    history.decide(decision)
    assert history.decision(A.image.digest) == decision
    assert history.decision(B.image.digest) is None


def test_a_decision_about_an_earlier_attempt_does_not_count(history: History) -> None:
    """The image may be the same."""
    history.decide(Decision(image=A.image.digest, verb="promote", by="grace"))
    history.begin(attempt(1, A))
    assert history.decision(A.image.digest) is None


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        '{"image": "x", "verb": "Abort", "by": "grace"}',
        '{"image": "x", "verb": "stop", "by": "g"}',
    ],
)
def test_a_damaged_decision_is_ignored(
    cluster: FakeCluster, history: History, damaged: str
) -> None:
    """The canary must not take over because of it."""
    history.decide(Decision(image="x", verb="abort", by="grace"))
    data(cluster)["decision"] = damaged
    assert history.decision("x") is None


def test_variables_go_with_their_attempts(history: History) -> None:
    """So large ones remove as many attempts as is needed, and not all; what is left is known."""
    large = PodVariables(values={"TEXT": "x" * 20_000})
    for number in range(1, 61):
        history.begin(attempt(number, A), variables={number: large})
    known = ids(history)
    assert 30 < len(known) < 45
    assert known[-1] == 60
    assert history.variables(60) == large
    assert history.variables(1) == large
    history.forget_variables([1])
    assert history.variables(1) is None
