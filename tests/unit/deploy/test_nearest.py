"""The nearest known word of a mistyped one."""

from __future__ import annotations

import pytest

from deploy.nearest import ask, find_nearest, suggest

TASKS = ("release", "rollback", "render", "promote", "promote-canary", "model.publish")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("relase", "release"),
        ("RELEASE", "release"),
        ("promote_canary", "promote-canary"),
        ("publish", "model.publish"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_a_mistyped_word_has_a_nearest_one(word: str, near: str) -> None:
    """Letters are compared, in either case; what resembles nothing has none."""
    assert find_nearest(word, TASKS) == near


def test_a_question_names_the_nearest_word() -> None:
    """There is none about a word that resembles nothing."""
    assert ask("stagin", ("local", "staging")) == "did you mean 'staging'?"
    assert ask("zzz", ("b", "a")) == ""


def test_a_suggestion_names_the_nearest_word_or_all() -> None:
    """So a reader always gets a word that is known."""
    assert suggest("stagin", ("local", "staging")) == "did you mean 'staging'?"
    assert suggest("zzz", ("b", "a")) == "known here: a, b"
