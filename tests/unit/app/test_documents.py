from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.documents import DocumentError, Node, parse


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "line 1"),
        (b"{", "line 1"),
        (b"\xff", "byte at 0"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b"NaN", "NaN"),
        (b"-Infinity", "-Infinity"),
        (b"1e999", "fits no float"),
        (b"1" * 10_000, "too many digits"),
        (b"[" * 100_000, "deep nesting"),
        (b'{"a":' * 100_000, "deep nesting"),
        (b"[" + b"{}," * 100_001 + b"{}]", "more than 100000 values"),
        (b"[" + b"[]," * 100_001 + b"[]]", "more than 100000 values"),
        (b"[" + b"0," * 100_001 + b"0]", "more than 100000 values"),
    ],
)
def test_parse_refuses(raw: bytes, found: str) -> None:
    """What parsers disagree on, or choke on, is refused with the reason."""
    with pytest.raises(DocumentError, match="expected") as caught:
        parse(raw)
    assert found in caught.value.found


@given(st.binary(max_size=200))
def test_parse_raises_only_its_own_error(raw: bytes) -> None:
    """Whatever the bytes are, there is a document or a DocumentError."""
    with contextlib.suppress(DocumentError):
        parse(raw)


def test_a_hundred_thousand_values_are_read() -> None:
    """One less than too many is taken."""
    assert len(parse(b"[" + b"0," * 100_000 + b"0]").items()) == 100_001


def test_path_names_the_value() -> None:
    """An error deep in a document carries the path to it."""
    node = parse(b'{"files": [{"size": -1}]}').members()["files"].items()[0].members()["size"]
    with pytest.raises(
        DocumentError, match=r"^files/0/size: expected a whole number from 0 to 9, found -1$"
    ):
        node.whole(0, 9)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_whole_takes_whole_numbers_only(value: object) -> None:
    """Neither truth values nor floats pass for whole numbers."""
    with pytest.raises(DocumentError):
        Node(value, "n").whole(0, 9)


@pytest.mark.parametrize("value", [True, "1", None, 10**400])
def test_number_takes_floats_only(value: object) -> None:
    """A number must be one, and must fit."""
    with pytest.raises(DocumentError):
        Node(value, "n").number()


def test_exactly_names_missing_and_surplus_keys() -> None:
    """A missing key and an unknown one are both refused by name."""
    with pytest.raises(DocumentError, match=r"^b: expected a value, found nothing"):
        Node({"a": 1}).exactly({"a", "b"})
    with pytest.raises(DocumentError, match=r"^c: expected no such key"):
        Node({"a": 1, "c": 2}).exactly({"a"}, {"b"})


def test_long_values_are_shortened() -> None:
    """A huge value does not make a huge error."""
    with pytest.raises(DocumentError) as caught:
        Node("x" * 10_000_000, "at").choice("a")
    assert len(str(caught.value)) < 200
