"""Pickles, read as data: nothing in them is imported or called.

`pickletools` splits a pickle into opcodes; the machine here executes the few
that plain containers need and refuses all others. A global is a key into a
table that the caller brings, so the worst a hostile file can do is to be
refused. Dictionary keys must be text: hashing a deeply nested tuple would
overflow the interpreter's stack.

Source: the opcode descriptions in Python's own `pickletools` module.
"""

import io
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sample import SampleError

# Objects cost up to a hundred times the byte that asks for them, so this bounds
# the memory that a pickle of nothing but empty containers can take.
MAX_BYTES = 512 * 1024

_ARGUMENTS = frozenset({"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"})
_LITERALS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], object]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleError(SampleError):
    """A pickle was refused: cut short, damaged, or more than plain values."""


@dataclass(frozen=True)
class Constructor:
    """A global that a pickle may call, and what is done in its place."""

    make: Callable[[tuple[object, ...]], object]


@dataclass(frozen=True)
class Allowance:
    """What a pickle may refer to.

    Attributes:
        names: Value for each permitted global, by "module name". Only a
            `Constructor` among them can be called.
        persistent: Answers a reference to something outside of the pickle.
    """

    names: Mapping[str, object]
    persistent: Callable[[object], object]


def _refuse_reference(_: object) -> object:
    raise PickleError("a reference to something outside stands where none may")


NOTHING = Allowance(names={}, persistent=_refuse_reference)


def load(data: bytes, start: int, allowance: Allowance) -> tuple[object, int]:
    """Read the pickle that starts at `start`; return its value and its end.

    Raises:
        PickleError: The pickle is cut short, damaged, longer than `MAX_BYTES`,
            or uses an opcode or a global that is not allowed.
    """
    stream = io.BytesIO(data[start : start + MAX_BYTES])
    machine = _Machine(allowance)
    try:
        for opcode, argument, position in pickletools.genops(stream):
            machine.step(opcode.name, argument, position or 0)
    except ValueError as error:
        raise PickleError(f"damaged or cut short: {error}") from error
    return machine.result(), start + stream.tell()


class _Machine:
    """The stack, the marks in it and the memo of one pickle."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._handlers: Mapping[str, Callable[[object], None]] = {
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "TUPLE": lambda _: self._stack.append(tuple(self._pop_to_mark())),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "GLOBAL": self._look_up,
            "REDUCE": self._call,
            "BUILD": self._set_state,
            "BINPERSID": lambda _: self._stack.append(self._allowance.persistent(self._pop())),
            "SETITEM": lambda _: self._set_items([self._pop(), self._pop()][::-1]),
            "SETITEMS": lambda _: self._set_items(self._pop_to_mark()),
            "APPEND": lambda _: self._extend([self._pop()]),
            "APPENDS": lambda _: self._extend(self._pop_to_mark()),
        }

    def step(self, name: str, argument: object, position: int) -> None:
        if (position == 0) != (name == "PROTO"):
            raise PickleError("its protocol is not declared once, at its start")
        if name in _ARGUMENTS:
            self._stack.append(argument)
        elif name in _LITERALS:
            self._stack.append(_LITERALS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        elif name in self._handlers:
            self._handlers[name](argument)
        elif name not in {"PROTO", "STOP"}:
            raise PickleError(f"opcode {name} at byte {position} is not allowed")
        elif name == "PROTO" and argument != 2:
            raise PickleError(f"protocol {argument} where 2 is expected")

    def result(self) -> object:
        value = self._pop()
        if self._stack or self._marks:
            raise PickleError("values are left over at its end")
        return value

    def _pop(self) -> object:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) <= floor:
            raise PickleError("an opcode wants a value and there is none")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[object]:
        if not self._marks:
            raise PickleError("an opcode wants a mark and there is none")
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _remember(self, index: object) -> None:
        value = self._pop()
        self._stack.append(value)
        self._memo[_integer(index)] = value

    def _recall(self, index: object) -> None:
        if index not in self._memo:
            raise PickleError(f"memo {index} is read before it is written")
        self._stack.append(self._memo[_integer(index)])

    def _look_up(self, name: object) -> None:
        if name not in self._allowance.names:
            raise PickleError(f"it refers to {name!r}, which is not allowed")
        self._stack.append(self._allowance.names[str(name)])

    def _call(self, _: object) -> None:
        arguments = self._pop()
        function = self._pop()
        if not isinstance(function, Constructor) or not isinstance(arguments, tuple):
            raise PickleError("it calls something that may not be called")
        self._stack.append(function.make(arguments))

    def _set_state(self, _: object) -> None:
        """Drop the version notes that torch keeps next to a state dictionary."""
        state = self._pop()
        target = self._pop()
        notes = isinstance(state, dict) and state.keys() == {"_metadata"}
        if not notes or not isinstance(target, OrderedDict):
            raise PickleError("it sets attributes on an object")
        self._stack.append(target)

    def _set_items(self, items: list[object]) -> None:
        target = self._pop()
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleError("items are set on something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise PickleError("a dictionary key is repeated or is not text")
            target[key] = value
        self._stack.append(target)

    def _extend(self, items: list[object]) -> None:
        target = self._pop()
        if not isinstance(target, list):
            raise PickleError("items are appended to something that is no list")
        target.extend(items)
        self._stack.append(target)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise PickleError("a memo index is not a number")
    return value
