"""Pickles are read as data, and refused when they are more than that."""

import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest

from sample import pickles
from sample.pickles import NOTHING, Allowance, Constructor, PickleError


class Call:
    """Pickles as a call of any function, which is how attacks are made."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def wrap(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        255,
        -1,
        2**31 - 1,
        2**80,
        "käse",
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        [],
        ["a"],
        ["a", "b"],
        {},
        {"a": 1},
        {"a": [1, (2,)], "b": {}},
    ],
)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    """What pickle wrote is what is read."""
    data = pickle.dumps(value, protocol=2)

    assert pickles.load(data, 0, NOTHING) == (value, len(data))


def test_reading_starts_and_ends_where_told() -> None:
    """A pickle in the middle of a file is found, and its end is returned."""
    data = b"before" + wrap(b"K\x07") + b"after"

    assert pickles.load(data, 6, NOTHING) == (7, len(data) - len(b"after"))


def test_a_shared_value_stays_one() -> None:
    """The memo gives the same object again."""
    shared: list[object] = []

    pair, _ = pickles.load(pickle.dumps([shared, shared], protocol=2), 0, NOTHING)

    assert isinstance(pair, list)
    assert pair[0] is pair[1]


@pytest.mark.parametrize(
    "attack",
    [
        Call(os.system, "touch attacked"),
        Call(eval, "open('attacked', 'w')"),
        Call(exec, "open('attacked', 'w')"),
        Call(getattr, Call(__import__, "os"), "system"),
        Call(OrderedDict, [("a", 1)]),
    ],
    ids=["system", "eval", "exec", "getattr", "not on the list"],
)
def test_a_call_is_refused_and_not_made(
    attack: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle that calls a function is refused before anything happens."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(PickleError, match="not allowed"):
        pickles.load(pickle.dumps(attack, protocol=2), 0, NOTHING)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"(X\1\0\0\0aios\nsystem\n", "INST"),
        (b"(cos\nsystem\nX\1\0\0\0ao", "not allowed"),
        (b")\x81", "NEWOBJ"),
        (b"X\2\0\0\0osX\6\0\0\0system\x93", "STACK_GLOBAL"),
        (b"\x82\1", "EXT1"),
        (b"Pname\n", "PERSID"),
        (b"K\1Q", "reference to something outside"),
        (b"K\1K\1R", "may not be called"),
        (b")}b", "sets attributes"),
        (b"}}X\1\0\0\0aK\1sb", "sets attributes"),
        (b"(1", "POP_MARK"),
        (b"K\1" + b"2", "DUP"),
    ],
)
def test_opcodes_that_do_more_than_hold_values_are_refused(body: bytes, complaint: str) -> None:
    """Each other way to make an object is closed, and named."""
    with pytest.raises(PickleError, match=complaint):
        pickles.load(wrap(body), 0, NOTHING)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"t",
        b"\x85",
        b"K\1(\x85",
        b"K\1K\2",
        b"K\1(",
        b"q\0",
        b"h\0",
        b"j\xff\xff\xff\x7f",
        b"K\1K\1a",
        b"K\1X\1\0\0\0aK\1s",
        b"}(X\1\0\0\0au",
        b"}K\1K\1s",
        b"})K\1s",
        b"}X\1\0\0\0aK\1sX\1\0\0\0aK\2s",
        b"\x80\x02K\1",
        b"\xfe",
    ],
)
def test_senseless_pickles_are_refused(body: bytes) -> None:
    """Missing values, marks, memos or keys never get out as other errors."""
    with pytest.raises(PickleError):
        pickles.load(wrap(body), 0, NOTHING)


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_other_protocols_are_refused(protocol: int) -> None:
    """Only protocol 2 is read, the one that torch writes."""
    with pytest.raises(PickleError):
        pickles.load(pickle.dumps([1, "a"], protocol), 0, NOTHING)


def test_every_truncation_is_refused() -> None:
    """A pickle that lacks its last bytes is refused, wherever it is cut."""
    data = pickle.dumps({"a": [1, (2, 2**40, "text")], "b": None}, protocol=2)

    for length in range(len(data)):
        with pytest.raises(PickleError):
            pickles.load(data[:length], 0, NOTHING)


def test_every_changed_byte_gives_a_value_or_a_refusal() -> None:
    """No damage makes another error than the module's own."""
    data = pickle.dumps({"a": [1, (2, 2**40, "text")], "b": None}, protocol=2)

    for index in range(len(data)):
        for byte in range(256):
            changed = data[:index] + bytes([byte]) + data[index + 1 :]
            try:
                pickles.load(changed, 0, NOTHING)
            except PickleError:
                continue


@pytest.mark.parametrize(
    "body",
    [
        b"X" + struct.pack("<I", 2**31 - 1) + b"a",
        b"X" + struct.pack("<I", 2**32 - 1) + b"a",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"a",
        b"K\1r" + struct.pack("<I", 2**32 - 1) + b"]" * pickles.MAX_BYTES,
    ],
)
def test_a_declared_size_takes_no_memory(body: bytes) -> None:
    """Sizes and memo places are only numbers; too long a pickle is refused."""
    with pytest.raises(PickleError):
        pickles.load(wrap(body), 0, NOTHING)


def test_deep_nesting_is_read_without_a_crash() -> None:
    """Nesting costs no stack, and a nested tuple cannot become a key."""
    depth = 100_000

    with pytest.raises(PickleError, match="not text"):
        pickles.load(wrap(b"})" + b"\x85" * depth + b"K\1s"), 0, NOTHING)


def test_a_doubling_tuple_stays_small() -> None:
    """Sharing instead of copying keeps a pickle of 2**200 leaves harmless."""
    doubled = b")q\0" + b"h\0\x86q\0" * 200

    value, _ = pickles.load(wrap(doubled), 0, NOTHING)

    assert isinstance(value, tuple)


def test_an_allowed_name_stands_for_what_the_caller_says() -> None:
    """A global is a key into the caller's table, callable only if it says so."""
    allowance = Allowance(
        names={"shop Price": Constructor(len), "shop Currency": "EUR"},
        persistent=lambda reference: {"it": reference},
    )

    def load(body: bytes) -> object:
        return pickles.load(wrap(body), 0, allowance)[0]

    assert load(b"cshop\nPrice\nK\1K\2\x86R") == 2
    assert load(b"cshop\nCurrency\n") == "EUR"
    assert load(b"K\5Q") == {"it": 5}
    with pytest.raises(PickleError, match="may not be called"):
        load(b"cshop\nCurrency\n)R")
