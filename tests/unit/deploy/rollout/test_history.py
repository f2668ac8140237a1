"""The release that a rollback returns to."""

from __future__ import annotations

import pytest

from deploy.errors import ReleaseUnknown
from deploy.records import Rollout
from deploy.rollout.history import Only, choose_rollback
from tests.fakes.releases import release, rollout


def read_steps(*steps: str) -> tuple[Rollout, ...]:
    """Return a history: per step code and model, `<` for a rollback, `!` undone, `?` unfinished."""
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
def test_a_rollback_returns_to_the_last_different_release(
    steps: tuple[str, ...], only: Only | None, expected: int
) -> None:
    """Two rollbacks in a row go two steps back, and only to what was proven."""
    assert choose_rollback(read_steps(*steps), None, only).attempt.id == expected


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
def test_without_a_different_release_there_is_no_rollback(
    steps: tuple[str, ...], only: Only | None
) -> None:
    """The error names which half has none."""
    with pytest.raises(ReleaseUnknown, match=f"no earlier {only or 'release'} to go back to"):
        choose_rollback(read_steps(*steps), None, only)


@pytest.mark.parametrize("only", [None, "model", "code"])
def test_a_rollback_returns_to_any_proven_release_by_number(only: Only | None) -> None:
    """Also to one that a rollback replaced."""
    history = read_steps("a1", "b2", "a1<", "c3")
    assert [choose_rollback(history, number, only).attempt.id for number in (1, 2, 3, 4)] == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("number", [2, 3, 9])
def test_a_rollback_to_a_release_that_never_served_is_refused(number: int) -> None:
    """The error lists those that did."""
    with pytest.raises(ReleaseUnknown, match=f"release {number} never served here") as caught:
        choose_rollback(read_steps("a1", "b2!", "c3?", "d4"), number, None)
    assert caught.value.next.endswith("1, 4")


@pytest.mark.parametrize("steps", [(), ("a1!",), ("a1?",)])
@pytest.mark.parametrize("number", [None, 1])
def test_without_a_release_there_is_no_rollback(steps: tuple[str, ...], number: int | None) -> None:
    """The error names the command for a first release."""
    with pytest.raises(ReleaseUnknown, match="nothing has been released here yet") as caught:
        choose_rollback(read_steps(*steps), number, None)
    assert "invoke release" in caught.value.next
