"""Trained weights: tensors out of a legacy torch file, without torch.

The legacy layout is five pickles (magic, protocol, machine, state dictionary,
storage keys) and then, for each key, a count of numbers and the numbers. A file
of this kind is untrusted: pickles go through `sample.pickles`, and every size,
offset and stride is checked against the bytes that are there before it is used.
Tensors are read-only views of those bytes, so none can take more memory.

Source: `_legacy_save` in torch/serialization.py.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sample import SampleError, pickles

Tensors: TypeAlias = Mapping[str, NDArray[Any]]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_DIMENSIONS = 8


class WeightsError(SampleError):
    """A file of weights was refused; nothing of it was used."""


@dataclass(frozen=True)
class _Type:
    """The kind of number in a storage."""

    dtype: str


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that tensors share."""

    type: _Type
    key: str
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor, as a pickle describes it: a window on a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(data: bytes) -> Tensors:
    """Read every tensor of a state dictionary, by name.

    Raises:
        WeightsError: The bytes are no legacy torch file, are cut short, have
            something after their end, or describe tensors outside of them.
        pickles.PickleError: One of the pickles holds more than tensors.
    """
    position = _read_header(data)
    storages = _Storages(room=len(data))
    state, position = pickles.load(data, position, storages.allowance())
    views = _views(state)
    keys, position = pickles.load(data, position, pickles.NOTHING)
    numbers = storages.read(data, position, _texts(keys))
    return {name: _tensor(view, numbers) for name, view in views.items()}


def _read_header(data: bytes) -> int:
    magic, position = pickles.load(data, 0, pickles.NOTHING)
    if magic != _MAGIC:
        raise WeightsError("not a legacy torch file: its magic number is missing")
    protocol, position = pickles.load(data, position, pickles.NOTHING)
    if protocol != _PROTOCOL:
        raise WeightsError(f"protocol {_PROTOCOL} is expected, not another")
    machine, position = pickles.load(data, position, pickles.NOTHING)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise WeightsError("little-endian numbers are expected")
    return position


class _Storages:
    """The storages that a state dictionary declares, each of them once."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._declared: dict[str, _Storage] = {}

    def allowance(self) -> pickles.Allowance:
        return pickles.Allowance(
            names={
                "collections OrderedDict": pickles.Constructor(_ordered),
                "torch._utils _rebuild_tensor_v2": pickles.Constructor(_view),
                "torch FloatStorage": _Type("<f4"),
                "torch LongStorage": _Type("<i8"),
            },
            persistent=self._declare,
        )

    def _declare(self, reference: object) -> _Storage:
        if not isinstance(reference, tuple) or len(reference) != 6:
            raise WeightsError("a storage is described by other than six values")
        kind, number, key, place, count, view = reference
        if not isinstance(number, _Type) or not isinstance(key, str):
            raise WeightsError("a storage has no type of number or no key")
        if kind != "storage" or place != "cpu" or view is not None:
            raise WeightsError(f"storage {key!r} is not a plain one on the CPU")
        size = np.dtype(number.dtype).itemsize
        if type(count) is not int or not 0 < count * size <= self._room:
            raise WeightsError(f"storage {key!r} is larger than the file, or empty")
        storage = _Storage(number, key, count)
        if self._declared.setdefault(key, storage) != storage:
            raise WeightsError(f"storage {key!r} is described in two ways")
        return storage

    def read(self, data: bytes, position: int, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        if len(keys) != len(set(keys)) or set(keys) != set(self._declared):
            raise WeightsError("the keys of the storages differ from those in use")
        numbers = {}
        for key in keys:
            numbers[key] = _numbers(data, position, self._declared[key])
            position += 8 + numbers[key].nbytes
        if position != len(data):
            raise WeightsError(f"{len(data) - position} bytes follow its end")
        return numbers


def _ordered(arguments: tuple[object, ...]) -> object:
    if arguments:
        raise WeightsError("a dictionary is built from values in one go")
    return OrderedDict[str, object]()


def _view(arguments: tuple[object, ...]) -> _View:
    if len(arguments) != 6:
        raise WeightsError("a tensor is described by other than six values")
    storage, offset, shape, strides, gradient, hooks = arguments
    if not isinstance(storage, _Storage):
        raise WeightsError("a tensor has no storage")
    if gradient is not False or not isinstance(hooks, OrderedDict) or hooks:
        raise WeightsError("a tensor carries gradients or hooks")
    (offset,) = _counts((offset,))
    view = _View(storage, offset, _counts(shape), _counts(strides))
    _check_bounds(view)
    return view


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > _MAX_DIMENSIONS:
        raise WeightsError("a shape is no tuple, or has too many dimensions")
    if any(type(value) is not int or value < 0 for value in values):
        raise WeightsError("a shape, offset or stride is negative or no number")
    return values


def _check_bounds(view: _View) -> None:
    if len(view.shape) != len(view.strides) or 0 in view.shape:
        raise WeightsError("a tensor is empty, or its strides do not fit its shape")
    steps = zip(view.shape, view.strides, strict=True)
    last = view.offset + sum((length - 1) * stride for length, stride in steps)
    # Strides of 0 stay in bounds at any shape; the second test stops those.
    if last >= view.storage.count or math.prod(view.shape) > view.storage.count:
        raise WeightsError(
            f"a tensor reaches outside of storage {view.storage.key!r} "
            f"of {view.storage.count} numbers"
        )


def _views(state: object) -> dict[str, _View]:
    if not isinstance(state, OrderedDict):
        raise WeightsError("a dictionary of tensors is expected")
    views = {name: view for name, view in state.items() if isinstance(view, _View)}
    if len(views) != len(state):
        raise WeightsError("the dictionary holds something other than tensors")
    return views


def _texts(keys: object) -> tuple[str, ...]:
    if not isinstance(keys, list):
        raise WeightsError("a list of storage keys is expected")
    texts = tuple(key for key in keys if isinstance(key, str))
    if len(texts) != len(keys):
        raise WeightsError("a storage key is not text")
    return texts


def _numbers(data: bytes, position: int, storage: _Storage) -> NDArray[Any]:
    start = position + 8
    stated = int.from_bytes(data[position:start], "little", signed=True)
    dtype = np.dtype(storage.type.dtype)
    if len(data) - start < storage.count * dtype.itemsize:
        raise WeightsError(f"cut short in storage {storage.key!r}")
    if stated != storage.count:
        raise WeightsError(
            f"storage {storage.key!r} has {stated} numbers, {storage.count} declared"
        )
    return np.frombuffer(data, dtype, storage.count, start)


def _tensor(view: _View, numbers: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    values = numbers[view.storage.key][view.offset :]
    strides = tuple(
        stride * values.itemsize if length > 1 else values.itemsize
        for length, stride in zip(view.shape, view.strides, strict=True)
    )
    return np.lib.stride_tricks.as_strided(values, view.shape, strides, writeable=False)
