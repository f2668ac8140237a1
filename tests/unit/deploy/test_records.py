"""Records: frozen, complete, strict, and the same after JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deploy.records import (
    AppImage,
    Attempt,
    CaseResult,
    Commit,
    Descriptor,
    Ending,
    Evidence,
    Image,
    LogLine,
    Model,
    ModelLayer,
    Record,
    Release,
    Rollout,
    Verdict,
)

DIGEST = "sha256:" + "0a" * 32
MODEL = Model(name="imagenet", version="1", digest=DIGEST)
LAYER = ModelLayer(model=MODEL, digest=DIGEST, size=10)
MANIFEST = Descriptor(
    media_type="application/vnd.oci.image.manifest.v1+json", digest="sha256:" + "1b" * 32, size=20
)
APP = AppImage(
    name="classifier", key="k", commit=Commit(revision="c" * 40, dirty=False), manifest=MANIFEST
)
RELEASE = Release(
    image=Image(app=APP, layer=LAYER, manifest=MANIFEST, config=DIGEST),
    repository="127.0.0.1:5000/classifier",
)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ATTEMPT = Attempt(
    id=1,
    environment="local",
    trigger="release",
    release=RELEASE,
    by="me@here",
    at=NOON,
    url="http://127.0.0.1:8080",
)
EXAMPLES: list[Record] = [
    MODEL,
    LAYER,
    APP,
    RELEASE,
    Verdict(
        url="http://x",
        cases=(
            CaseResult(name="a", milliseconds=1.5, answer="é"),
            CaseResult(name="b", milliseconds=2, answer="", problem="no"),
        ),
    ),
    Rollout(attempt=ATTEMPT, ending=Ending(outcome="undone", at=NOON, why="a miss")),
    Rollout(attempt=ATTEMPT, ending=None),
    Ending(
        outcome="undone",
        at=NOON,
        evidence=Evidence(
            misses={"three": "expected 3, got 8"},
            log=(LogLine(source="local-3", at=NOON, text="é"),),
        ),
    ),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_is_the_same_after_json(record: Record) -> None:
    """One step can pass a record to another by a file."""
    assert type(record).from_json(record.to_json()) == record


@given(st.text(max_size=50), st.booleans())
def test_any_text_is_the_same_after_json(revision: str, dirty: bool) -> None:
    """All fields of text are unchanged."""
    commit = Commit(revision=revision, dirty=dirty)
    assert Commit.from_json(commit.to_json()) == commit


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_cannot_be_changed(record: Record) -> None:
    """All stages see the same values."""
    field = next(iter(type(record).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(record, field, getattr(record, field))


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_has_all_its_fields_and_no_others(record: Record) -> None:
    """A field without a default is required, and an unknown field is refused."""
    kind = type(record)
    fields = record.model_dump()
    for name in (name for name, field in kind.model_fields.items() if field.is_required()):
        with pytest.raises(ValidationError):
            kind.model_validate({key: value for key, value in fields.items() if key != name})
    with pytest.raises(ValidationError):
        kind.model_validate({**fields, "later": None})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", ""),
        ("digest", "sha256:" + "A" * 64),
        ("digest", "sha256:" + "a" * 63),
        ("digest", "md5:" + "a" * 32),
        ("digest", DIGEST + "\n"),
        ("name", "Image Net"),
        ("name", "../imagenet"),
        ("name", "a..b"),
        ("name", "a" * 101),
        ("version", ""),
        ("version", ".1"),
        ("version", "1/2"),
        ("version", "-1"),
        ("version", "1\n"),
        ("version", "1 "),
    ],
)
def test_a_model_has_a_plain_name_a_plain_version_and_a_complete_digest(
    field: str, value: str
) -> None:
    """Names and versions are used as paths, tags and labels."""
    fields: dict[str, Any] = {**MODEL.model_dump(), field: value}
    with pytest.raises(ValidationError):
        Model.model_validate(fields)


def test_a_missing_or_damaged_record_of_a_cache_is_ignored() -> None:
    """A record of another version of twinship is ignored too."""
    text = MODEL.to_json()
    assert Model.from_cache(text) == MODEL
    assert [
        Model.from_cache(damaged)
        for damaged in (None, "", text[:-3], "{}", text.replace("name", "title"))
    ] == [None] * 5


def test_a_commit_shows_whether_its_files_differ() -> None:
    """A commit with changed files is marked as dirty."""
    assert str(Commit(revision="abcdef0123456789", dirty=False)) == "abcdef012345"
    assert str(Commit(revision="abcdef0123456789", dirty=True)) == "abcdef012345-dirty"
    assert Commit(revision="abcdef0123456789", dirty=False).full == "abcdef0123456789"
    assert Commit(revision="abcdef0123456789", dirty=True).full == "abcdef0123456789-dirty"


def test_a_release_is_deployed_by_digest() -> None:
    """The reference is not a tag."""
    assert RELEASE.reference == f"127.0.0.1:5000/classifier@{MANIFEST.digest}"


def test_a_verdict_passes_if_every_case_is_a_hit() -> None:
    """It fails with one miss."""
    hit = CaseResult(name="a", milliseconds=1, answer="x")
    miss = CaseResult(name="b", milliseconds=1, answer="y", problem="expected x, got y")
    assert Verdict(url="", cases=(hit,)).passed
    assert not Verdict(url="", cases=(hit, miss)).passed
    assert Verdict(url="", cases=(hit, miss)).misses == (miss,)


def test_a_rollout_without_an_end_is_unfinished() -> None:
    """A killed deployer leaves neither a success nor a failure."""
    assert Rollout(attempt=ATTEMPT, ending=None).outcome == "unfinished"
    assert not Rollout(attempt=ATTEMPT, ending=None).succeeded
    assert Rollout(attempt=ATTEMPT, ending=Ending(outcome="succeeded", at=NOON)).succeeded
    assert not Rollout(attempt=ATTEMPT, ending=Ending(outcome="failed", at=NOON)).succeeded


@pytest.mark.parametrize("trigger", ["release", "rollback", "promote"])
def test_an_attempt_has_one_of_three_triggers(trigger: str) -> None:
    """Other triggers are refused."""
    assert Attempt.model_validate({**ATTEMPT.model_dump(), "trigger": trigger}).trigger == trigger
    with pytest.raises(ValidationError):
        Attempt.model_validate({**ATTEMPT.model_dump(), "trigger": f"{trigger}d"})


def test_an_ending_of_an_older_version_is_read_and_a_success_is_written_like_it() -> None:
    """Versions that keep no evidence refuse fields that they do not know."""
    old = {"outcome": "undone", "at": "2026-01-01T12:00:00Z", "why": "a replica ended"}
    found = Ending.from_cache(json.dumps(old))
    assert found
    assert (found.why, found.evidence) == ("a replica ended", None)
    assert Ending(outcome="succeeded", at=NOON).model_dump(mode="json").keys() == old.keys()


def test_an_attempt_without_a_run_is_read() -> None:
    """A history has attempts of older versions of twinship."""
    fields = ATTEMPT.model_dump(mode="json")
    del fields["run"]
    assert Attempt.from_cache(json.dumps(fields)) == ATTEMPT
    assert (
        Attempt.from_json(ATTEMPT.model_copy(update={"run": "https://ci.example/7"}).to_json()).run
        == "https://ci.example/7"
    )
