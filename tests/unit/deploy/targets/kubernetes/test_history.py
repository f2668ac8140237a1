"""An environment's memory on its cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.errors import ClusterRefused
from deploy.records import Ending, Rollout
from deploy.targets.kubernetes import history as module
from deploy.targets.kubernetes.history import MAX_ENTRIES, Decision, History
from deploy.targets.kubernetes.snapshot import Snapshot
from tests.fakes.kubernetes.api_server import FakeCluster
from tests.fakes.releases import attempt, release, rollout

NAME = "shop-history"
A = release("a")
B = release("b")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def cluster() -> FakeCluster:
    """A namespace."""
    return FakeCluster()


@pytest.fixture
def journal(cluster: FakeCluster) -> History:
    """An empty journal there."""
    return History(cluster, NAME, {"app": "shop"})


def data(cluster: FakeCluster) -> dict[str, str]:
    """What the ConfigMap holds."""
    found: dict[str, str] = (cluster.objects.get("ConfigMap", NAME) or {}).get("data", {})
    return found


def written(journal: History, *rollouts: Rollout) -> None:
    """Writes attempts and their ends."""
    for item in rollouts:
        journal.begin(item.attempt)
        if item.ending:
            journal.end(item.attempt, item.ending)


def ids(journal: History) -> list[int]:
    """The numbers of the attempts that are remembered."""
    return [item.attempt.id for item in journal.read()]


def test_what_was_written_is_read_by_whoever_comes_next(
    cluster: FakeCluster, journal: History
) -> None:
    """Beginnings and ends, whole."""
    past = (
        rollout(1, A),
        rollout(2, B, "undone", why="a replica ended"),
        rollout(3, B, "unfinished"),
    )
    written(journal, *past)
    assert History(cluster, NAME, {}).read() == past
    assert (cluster.objects.get("ConfigMap", NAME) or {})["metadata"]["labels"] == {"app": "shop"}


def test_an_empty_journal_is_no_error(cluster: FakeCluster, journal: History) -> None:
    """Nor is one without anything in it; something is missing there."""
    assert journal.read_and_check() == ((), True)
    cluster.create({"kind": "ConfigMap", "metadata": {"name": NAME}})
    assert journal.read_and_check() == ((), True)


@pytest.mark.parametrize("spoilt", ["", "{", "null", "[]", '{"attempt": 7}'])
def test_an_entry_that_was_spoilt_is_passed_over(
    cluster: FakeCluster, journal: History, spoilt: str
) -> None:
    """The others are read, and it is known that one is missing."""
    written(journal, rollout(1, A), rollout(2, B), rollout(3, A))
    assert journal.read_and_check()[1] is False
    data(cluster)["000002"] = spoilt
    assert ids(journal) == [1, 3]
    assert journal.read_and_check()[1] is True


def test_what_others_keep_beside_the_entries_stays(cluster: FakeCluster, journal: History) -> None:
    """It is not read, and not lost."""
    written(journal, rollout(1, A))
    data(cluster)["README"] = "ours"
    written(journal, rollout(2, B))
    assert ids(journal) == [1, 2]
    assert data(cluster)["README"] == "ours"


def test_attempts_are_in_their_order(cluster: FakeCluster, journal: History) -> None:
    """Also when their numbers have different lengths, as of a key that was written by hand."""
    for number in (1, 9, 10, 999_999, 1_000_000):
        journal.begin(attempt(number, A))
    data(cluster)["7"] = Rollout(attempt=attempt(7, A), ending=None).model_dump_json()
    assert ids(journal) == [1, 7, 9, 10, 999_999, 1_000_000]


def test_attempts_that_are_known_from_elsewhere_are_remembered_again(journal: History) -> None:
    """With the beginning of the next one."""
    journal.begin(attempt(6, B), rollout(5, A))
    assert [(item.attempt.id, item.outcome) for item in journal.read()] == [
        (5, "succeeded"),
        (6, "unfinished"),
    ]


# --- the way back

WAY = Snapshot(
    track="twin", objects={"Deployment": {"kind": "Deployment", "spec": {"replicas": 2}}}
)


def test_what_served_before_is_known_until_the_attempt_has_ended(
    cluster: FakeCluster, journal: History
) -> None:
    """To whoever comes next; it is no entry."""
    assert journal.snapshot() is None
    journal.begin(attempt(1, A), before=WAY)
    assert History(cluster, NAME, {}).snapshot() == WAY
    assert (ids(journal), journal.read_and_check()[1]) == ([1], False)
    journal.end(attempt(1, A), Ending(outcome="undone", at=NOW))
    assert journal.snapshot() is None


def test_the_way_back_is_that_of_the_last_attempt(journal: History) -> None:
    """Which may have none."""
    journal.begin(attempt(1, A), before=WAY)
    journal.begin(attempt(2, B))
    assert journal.snapshot() is None


@pytest.mark.parametrize("spoilt", ["", "{", '{"side": "elsewhere", "objects": {}}'])
def test_a_way_back_that_was_spoilt_is_none(
    cluster: FakeCluster, journal: History, spoilt: str
) -> None:
    """Nobody stumbles over it."""
    journal.begin(attempt(1, A), before=WAY)
    data(cluster)["before"] = spoilt
    assert journal.snapshot() is None


# --- limits


def test_the_oldest_entries_go_when_there_are_too_many(journal: History) -> None:
    """As many as there are too many."""
    journal.begin(
        attempt(MAX_ENTRIES + 7, A), *(rollout(number, A) for number in range(1, MAX_ENTRIES + 7))
    )
    assert ids(journal) == list(range(8, MAX_ENTRIES + 8))


def test_what_serves_is_never_forgotten(journal: History) -> None:
    """However many attempts have failed since: going back would else take it away."""
    past = [
        rollout(1, B),
        rollout(2, A),
        *(rollout(number, B, "undone") for number in range(3, MAX_ENTRIES + 9)),
    ]
    journal.begin(attempt(MAX_ENTRIES + 9, B), *past)
    assert ids(journal)[0] == 2
    assert len(ids(journal)) == MAX_ENTRIES
    journal.begin(attempt(MAX_ENTRIES + 10, B))
    assert ids(journal)[0] == 2


def test_entries_go_before_the_object_is_too_big_for_the_api_server(
    cluster: FakeCluster, journal: History
) -> None:
    """A cluster may say a lot about why a replica does not start."""
    for number in range(1, 60):
        journal.begin(item := attempt(number, A))
        journal.end(
            item, Ending(outcome="succeeded" if number == 3 else "undone", at=NOW, why="é" * 10_000)
        )
    assert sum(len(text.encode()) for text in data(cluster).values()) < 1_000_000
    assert ids(journal)[0] == 3
    assert ids(journal)[-1] == 59
    assert len(ids(journal)) > 30


# --- writing beside others


def test_a_write_that_was_overtaken_is_made_again(
    cluster: FakeCluster, journal: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On what the other one wrote."""
    written(journal, rollout(1, A))
    replace = cluster.replace

    def overtaken(item: dict[str, Any]) -> bool:
        monkeypatch.setattr(cluster, "replace", replace)
        History(cluster, NAME, {}).decide(Decision(image="x", verb="abort", by="grace"))
        return replace(item)

    monkeypatch.setattr(cluster, "replace", overtaken)
    journal.end(attempt(1, A), Ending(outcome="succeeded", at=NOW))
    assert [item.outcome for item in journal.read()] == ["succeeded"]
    assert journal.decision("x")


def test_a_journal_that_somebody_keeps_changing_is_told(
    cluster: FakeCluster, journal: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries."""
    written(journal, rollout(1, A))
    monkeypatch.setattr(cluster, "replace", lambda _: False)
    with pytest.raises(ClusterRefused, match="somebody else keeps changing it"):
        journal.begin(attempt(2, B))
    assert module._TRIES > 3


# --- words about canaries


def test_a_word_is_found_by_the_image_that_it_is_about(journal: History) -> None:
    """And by no other."""
    assert journal.decision(A.image.digest) is None
    said = Decision(image=A.image.digest, verb="promote", by="grace")
    journal.decide(said)
    assert journal.decision(A.image.digest) == said
    assert journal.decision(B.image.digest) is None


def test_a_word_about_an_earlier_attempt_does_not_count(journal: History) -> None:
    """Though it was about the same image."""
    journal.decide(Decision(image=A.image.digest, verb="promote", by="grace"))
    journal.begin(attempt(1, A))
    assert journal.decision(A.image.digest) is None


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        "{",
        '{"image": "x", "verb": "Abort", "by": "grace"}',
        '{"image": "x", "verb": "stop", "by": "g"}',
    ],
)
def test_a_word_that_is_none_decides_nothing(
    cluster: FakeCluster, journal: History, spoilt: str
) -> None:
    """Least of all that a canary takes over."""
    journal.decide(Decision(image="x", verb="abort", by="grace"))
    data(cluster)["decision"] = spoilt
    assert journal.decision("x") is None
