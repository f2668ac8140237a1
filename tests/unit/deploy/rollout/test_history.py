"""Choosing what to go back to."""

from __future__ import annotations

import pytest

from deploy.errors import ReleaseUnknown
from deploy.records import Rollout
from deploy.rollout.history import Only, choose_rollback
from tests.fakes.releases import release, rollout


def past(*steps: str) -> tuple[Rollout, ...]:
    """A history from words: code and model, then `<` for a rollback, `!` for one that was undone, `?` for one without end."""
    return tuple(
        rollout(
            number,
            release(step[0], step[1]),
            "undone" if "!" in step else "unfinished" if "?" in step else "succeeded",
            "rollback" if "<" in step else "release",
        )
        for number, step in enumerate(steps, 1)
    )


@pytest.mark.parametrize(
    ("steps", "only", "expected"),
    [
        (("a1", "b2"), None, 1),
        (("a1", "b1", "b2"), None, 2),
        (("a1", "b1", "b2"), "model", 2),
        (("a1", "b1", "b2"), "code", 1),
        (("a1", "a2", "b2"), "code", 2),
        (("a1", "a2", "b2"), "model", 1),
        (("a1", "b2", "b2"), None, 1),
        (("a1", "b2", "c3!", "d4?"), None, 1),
        (("a1", "b2!", "c3"), None, 1),
        (("a1", "b2?", "c3"), "model", 1),
        (("a1", "b2", "c3", "b2<"), None, 1),
        (("a1", "b2", "c3", "b2<", "a1<!"), None, 1),
        (("a1", "b2", "a1<", "c3"), None, 3),
        (("a1", "b2", "a1<", "b2", "c3"), None, 4),
        (("a1", "a2", "a3", "a2<"), "model", 1),
        (("a1", "b2", "c2", "c1<"), "code", 2),
        (("a1", "b1", "c1", "b1<"), "code", 1),
        (("a1", "a2", "b3", "b2<"), "model", 1),
        (("z0", "a1", "b2", "a1", "c3", "a1<"), None, 3),
    ],
)
def test_a_rollback_goes_to_the_last_that_was_different(
    steps: tuple[str, ...], only: Only | None, expected: int
) -> None:
    """In what shall be taken back, among what was proven; and twice is two steps back, not there and back again."""
    assert choose_rollback(past(*steps), None, only).attempt.id == expected


@pytest.mark.parametrize(
    ("steps", "only"),
    [
        (("a1",), None),
        (("a1", "a1"), None),
        (("a1", "b1"), "model"),
        (("a1", "a2"), "code"),
        (("a1", "b2!"), None),
        (("a1", "b2", "a1<"), None),
        (("a1", "a2", "a1<"), "model"),
    ],
)
def test_where_nothing_was_different_there_is_nothing_to_go_back_to(
    steps: tuple[str, ...], only: Only | None
) -> None:
    """It is said for which half."""
    with pytest.raises(ReleaseUnknown, match=f"no earlier {only or 'release'} to go back to"):
        choose_rollback(past(*steps), None, only)


@pytest.mark.parametrize("only", [None, "model", "code"])
def test_a_rollback_goes_to_any_release_that_was_proven(only: Only | None) -> None:
    """By its number in the history, also to one that was taken back by a rollback before."""
    history = past("a1", "b2", "a1<", "c3")
    assert [choose_rollback(history, number, only).attempt.id for number in (1, 2, 3, 4)] == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("number", [2, 3, 9])
def test_a_release_that_never_served_cannot_be_gone_back_to(number: int) -> None:
    """Those that did are listed."""
    with pytest.raises(ReleaseUnknown, match=f"release {number} never served here") as caught:
        choose_rollback(past("a1", "b2!", "c3?", "d4"), number, None)
    assert caught.value.next.endswith("1, 4")


@pytest.mark.parametrize("steps", [(), ("a1!",), ("a1?",)])
@pytest.mark.parametrize("number", [None, 1])
def test_where_nothing_was_released_there_is_nothing_to_go_back_to(
    steps: tuple[str, ...], number: int | None
) -> None:
    """The way to a first release is named."""
    with pytest.raises(ReleaseUnknown, match="nothing has been released here yet") as caught:
        choose_rollback(past(*steps), number, None)
    assert "invoke release" in caught.value.next
