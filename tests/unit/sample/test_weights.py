"""Weights are read from legacy torch files, and only from sound ones."""

import os
import pickle
import struct
from collections.abc import Callable

import numpy as np
import pytest

from sample import SampleError, weights
from sample.weights import WeightsError

MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
ORDERED = b"ccollections\nOrderedDict\n)R"
FLOAT = b"ctorch\nFloatStorage\n"
LONG = b"ctorch\nLongStorage\n"


def wrap(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def numbers(*values: int) -> bytes:
    return tuple_of(*(number(value) for value in values))


def storage(
    key: str = "1",
    count: int = 6,
    *,
    kind: str = "storage",
    dtype: bytes = FLOAT,
    place: str = "cpu",
    view: bytes = b"N",
) -> bytes:
    return tuple_of(text(kind), dtype, text(key), text(place), number(count), view) + b"Q"


def tensor(
    shape: bytes = numbers(2, 3),
    strides: bytes = numbers(3, 1),
    *,
    offset: bytes = number(0),
    where: bytes = storage(),
    gradient: bytes = b"\x89",
    hooks: bytes = ORDERED,
) -> bytes:
    values = tuple_of(where, offset, shape, strides, gradient, hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + values + b"R"


def state(**tensors: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    return ORDERED + b"(" + items + b"u"


def keys(*names: str) -> bytes:
    return b"](" + b"".join(text(name) for name in names) + b"e"


def floats(*values: float) -> bytes:
    return struct.pack(f"<q{len(values)}f", len(values), *values)


SIX = floats(0, 1, 2, 3, 4, 5)


def file(
    content: bytes,
    *,
    order: bytes = keys("1"),
    tail: bytes = SIX,
    protocol: int = 1001,
    little: bytes = b"\x88",
) -> bytes:
    machine = b"}(" + text("little_endian") + little + b"u"
    pickled = (MAGIC, number(protocol), machine, content, order)
    return b"".join(wrap(body) for body in pickled) + tail


def test_a_tensor_is_read_with_its_name_and_numbers() -> None:
    """Name, shape, type and numbers are those of the file."""
    read = weights.read(file(state(layer=tensor())))

    assert list(read) == ["layer"]
    assert read["layer"].dtype == np.float32
    assert read["layer"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_strides_and_offsets_are_followed() -> None:
    """A transposed and a shifted tensor see the same storage differently."""
    read = weights.read(
        file(
            state(
                turned=tensor(numbers(3, 2), numbers(1, 3)),
                shifted=tensor(numbers(2), numbers(1), offset=number(4)),
                scalar=tensor(numbers(), numbers(), offset=number(5)),
                single=tensor(numbers(1, 6), numbers(10**9, 1)),
            )
        )
    )

    assert read["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read["shifted"].tolist() == [4, 5]
    assert read["scalar"].tolist() == 5
    assert read["single"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_integers_are_read() -> None:
    """The second kind of storage holds 64-bit integers."""
    count = storage("2", 1, dtype=LONG)
    content = state(count=tensor(numbers(), numbers(), where=count))

    read = weights.read(file(content, order=keys("2"), tail=struct.pack("<qq", 1, -(2**40))))

    assert read["count"].tolist() == -(2**40)


def test_version_notes_are_skipped() -> None:
    """Torch's notes next to a state dictionary do not disturb."""
    notes = b"}" + text("_metadata") + ORDERED + b"sb"

    assert list(weights.read(file(state(layer=tensor()) + notes))) == ["layer"]


def test_tensors_cannot_be_written() -> None:
    """Tensors are views of the file, and read-only."""
    layer = weights.read(file(state(layer=tensor())))["layer"]

    assert not layer.flags.writeable
    assert not layer.flags.owndata


def test_every_truncation_is_refused() -> None:
    """A file that lacks its last bytes is refused, wherever it is cut."""
    data = file(state(layer=tensor()))

    for length in range(len(data)):
        with pytest.raises(SampleError):
            weights.read(data[:length])


def test_every_changed_byte_gives_tensors_or_a_refusal() -> None:
    """No damage makes another error than the package's own."""
    data = file(state(layer=tensor()))

    for index in range(len(data)):
        for byte in (0, 1, 2, 40, 41, 46, 78, 82, 127, 128, 255, data[index] ^ 1):
            try:
                weights.read(data[:index] + bytes([byte]) + data[index + 1 :])
            except SampleError:
                continue


@pytest.mark.parametrize("extra", [b"\0", b"PK\3\4", wrap(b"N"), SIX])
def test_trailing_data_is_refused(extra: bytes) -> None:
    """Nothing may follow the last storage."""
    with pytest.raises(WeightsError, match=f"{len(extra)} bytes follow"):
        weights.read(file(state(layer=tensor()), tail=SIX + extra))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"cos\nsystem\n" + tuple_of(text("id")) + b"R", "os system"),
        (b"c__builtin__\neval\n" + tuple_of(text("1")) + b"R", "__builtin__ eval"),
        (b"cbuiltins\neval\n" + tuple_of(text("1")) + b"R", "builtins eval"),
        (state(a=b"ctorch\nload\n" + tuple_of(text("x")) + b"R"), "torch load"),
        (state(a=tensor(where=storage(dtype=b"ctorch\nHalfStorage\n"))), "HalfStorage"),
        (state(a=FLOAT + b")R"), "may not be called"),
        (state(a=tensor(hooks=b"cos\nsystem\n")), "os system"),
    ],
)
def test_names_outside_of_the_list_are_refused(content: bytes, complaint: str) -> None:
    """Only the four names that tensors need are known."""
    with pytest.raises(SampleError, match=complaint):
        weights.read(file(content))


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        (tensor(offset=number(1)), "outside"),
        (tensor(offset=number(2**70)), "outside"),
        (tensor(offset=number(-1)), "negative"),
        (tensor(offset=b"\x88"), "no number"),
        (tensor(offset=text("0")), "no number"),
        (tensor(numbers(3, 3)), "outside"),
        (tensor(numbers(2**40), numbers(0)), "outside"),
        (tensor(numbers(2**62, 2**62), numbers(0, 0)), "outside"),
        (tensor(numbers(-2, 3)), "negative"),
        (tensor(numbers(0, 3)), "empty"),
        (tensor(text("23")), "no tuple"),
        (tensor(strides=numbers(4, 1)), "outside"),
        (tensor(strides=numbers(2**62, 1)), "outside"),
        (tensor(strides=numbers(-3, 1)), "negative"),
        (tensor(strides=numbers(1)), "strides do not fit"),
        (tensor(numbers(*[1] * 9), numbers(*[1] * 9)), "too many dimensions"),
        (tensor(where=number(1)), "no storage"),
        (tensor(gradient=b"\x88"), "gradients"),
        (tensor(hooks=b"N"), "hooks"),
        (tensor(hooks=ORDERED + text("a") + b"Ns"), "hooks"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "six values"),
        (b"ccollections\nOrderedDict\n" + numbers(1) + b"R", "in one go"),
        (number(1), "other than tensors"),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(layer: bytes, complaint: str) -> None:
    """Offsets, shapes and strides are checked before they are used."""
    with pytest.raises(WeightsError, match=complaint):
        weights.read(file(state(layer=layer)))


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        (storage(kind="module"), "plain"),
        (storage(place="cuda:0"), "plain"),
        (storage(view=numbers(1, 2)), "plain"),
        (storage(count=2**62), "larger than the file"),
        (storage(count=10**6), "larger than the file"),
        (storage(count=0), "empty"),
        (storage(count=-6), "larger than the file, or empty"),
        (storage(dtype=text("float")), "type of number"),
        (storage(dtype=b"ccollections\nOrderedDict\n"), "type of number"),
        (text("storage") + b"Q", "six values"),
        (tuple_of(text("storage")) + b"Q", "six values"),
    ],
)
def test_an_odd_storage_is_refused(reference: bytes, complaint: str) -> None:
    """A reference to a storage is exactly what torch writes, and fits the file."""
    with pytest.raises(WeightsError, match=complaint):
        weights.read(file(state(layer=tensor(where=reference))))


def test_a_storage_described_in_two_ways_is_refused() -> None:
    """One key cannot be floats for one tensor and integers for another."""
    other = tensor(numbers(1), numbers(1), where=storage(count=3, dtype=LONG))

    with pytest.raises(WeightsError, match="two ways"):
        weights.read(file(state(a=tensor(), b=other)))


@pytest.mark.parametrize(
    "order",
    [
        keys(),
        keys("2"),
        keys("1", "2"),
        keys("1", "1"),
        b"](" + number(1) + b"e",
        tuple_of(text("1")),
        storage(),
    ],
)
def test_other_storage_keys_are_refused(order: bytes) -> None:
    """Each storage in use is listed, once, and no other."""
    with pytest.raises(SampleError):
        weights.read(file(state(layer=tensor()), order=order))


def test_a_storage_of_another_length_is_refused() -> None:
    """The count before the numbers is the one declared."""
    for stated in (0, 5, 7, -1, 2**62):
        with pytest.raises(WeightsError, match=r"has .* numbers, 6 declared"):
            weights.read(file(state(a=tensor()), tail=struct.pack("<q", stated) + SIX[8:]))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (wrap(number(1)), "magic"),
        (wrap(tuple_of(MAGIC)), "magic"),
        (file(state(), protocol=1000), "protocol"),
        (file(state(), little=b"\x89"), "little-endian"),
        (file(b"}"), "dictionary of tensors"),
        (file(ORDERED + b"(" + number(1) + number(1) + b"u"), "not text"),
        (file(ORDERED + b"X\1\0\0\0ah\0s"), "memo"),
    ],
)
def test_another_layout_is_refused(data: bytes, complaint: str) -> None:
    """Each part of the layout is looked at."""
    with pytest.raises(SampleError, match=complaint):
        weights.read(data)


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"\x80\x02", bytes(range(64)), b"\x7fELF" * 100])
def test_other_files_are_refused(data: bytes) -> None:
    """Anything else than a legacy file is refused, a newer torch file too."""
    with pytest.raises(SampleError):
        weights.read(data)


class Attack:
    """Pickles as a call of the shell."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("id",)


def test_a_plain_attack_is_refused() -> None:
    """A file that is an attack from its first byte is refused as well."""
    with pytest.raises(SampleError, match="system', which is not allowed"):
        weights.read(pickle.dumps(Attack(), protocol=2))
