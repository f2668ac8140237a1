"""Reads JSON that a stranger wrote: strictly, and with the path of whatever is wrong.

Both the manifest of a model and the body of a request go through here. Imports nothing of this package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NoReturn

_SHOWN = 60
# In memory a value takes tens of times what it takes as text; what is read here has few, and some of them long. Between any two
# stands a comma, or one is inside the other, which the interpreter's stack bounds.
_MOST_VALUES = 100_000


class DocumentError(ValueError):
    """A document does not hold what is asked of it.

    Attributes:
        at: Path of the value in the document, such as ``input/1``; empty for the document itself.
        expected: What should stand there.
        found: What stands there instead, shortened.
    """

    def __init__(self, at: str, expected: str, found: str) -> None:
        super().__init__(f"{at or 'document'}: expected {expected}, found {found}")
        self.at = at
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document, with its path."""

    value: object
    at: str = ""

    def refuse(self, expected: str, found: str | None = None) -> NoReturn:
        """Raise the DocumentError that says what was expected here."""
        raise DocumentError(self.at, expected, shown(self.value) if found is None else found)

    def child(self, key: str | int, value: object) -> Node:
        """Give a value below this one its path."""
        return Node(value, f"{self.at}/{key}" if self.at else str(key))

    def members(self) -> dict[str, Node]:
        """Return the members of an object; DocumentError if it is none."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return {key: self.child(key, value) for key, value in self.value.items()}

    def exactly(self, required: set[str], optional: set[str] | None = None) -> dict[str, Node]:
        """Return the members of an object that has all required keys and none beyond the optional ones."""
        members = self.members()
        for key in sorted(required - members.keys()):
            self.child(key, None).refuse("a value", "nothing")
        for key in sorted(members.keys() - required - (optional or set())):
            members[key].refuse("no such key")
        return members

    def items(self) -> list[Node]:
        """Return the items of a list; DocumentError if it is none."""
        if not isinstance(self.value, list):
            self.refuse("a list")
        return [self.child(index, value) for index, value in enumerate(self.value)]

    def text(self) -> str:
        """Return a text that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            self.refuse("a text")
        return self.value

    def choice(self, *options: str) -> str:
        """Return the text if it is one of the options."""
        if not isinstance(self.value, str) or self.value not in options:
            self.refuse(" or ".join(options))
        return self.value

    def whole(self, least: int, most: int) -> int:
        """Return a whole number within the bounds, both included."""
        if type(self.value) is not int or not least <= self.value <= most:
            self.refuse(f"a whole number from {least} to {most}")
        return self.value

    def number(self) -> float:
        """Return a finite number as a float."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            self.refuse("a number")
        try:
            return float(self.value)
        except OverflowError:
            self.refuse("a number that fits a float")


def shown(value: object) -> str:
    """Describe a value in a few words for an error: short, in one line, in ASCII."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return ascii(value) if len(value) <= _SHOWN else f"a text of {len(value)} characters"
    return "a large number" if isinstance(value, int) and abs(value) >= 10**18 else str(value)


def parse(raw: bytes | str, at: str = "") -> Node:
    """Parse JSON (RFC 8259), refusing what parsers disagree on.

    Refused beyond bad syntax: text that is not UTF-8, a key that occurs twice in an object, NaN and the infinities, numbers of
    thousands of digits, nesting deeper than the interpreter's stack, a hundred thousand values (or as many commas in texts).

    Raises:
        DocumentError: The text is refused; ``at`` is the path given.
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8")
        if _many(text):
            raise _RefusedError(f"more than {_MOST_VALUES} values")  # noqa: TRY301 - as the parser's hooks refuse
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise DocumentError(at, "UTF-8", f"another byte at {error.start}") from error
    except json.JSONDecodeError as error:
        raise DocumentError(
            at, "JSON", f"a fault at line {error.lineno} column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise DocumentError(at, "JSON", "deep nesting") from error
    except _RefusedError as error:
        raise DocumentError(at, "JSON", str(error)) from error
    except ValueError as error:
        raise DocumentError(at, "JSON", "a number of too many digits") from error
    return Node(value, at)


def _many(text: str) -> bool:
    # Looking for the next comma is several times faster than counting where there are few in megabytes.
    at = -1
    for _ in range(_MOST_VALUES + 1):
        at = text.find(",", at + 1)
        if at < 0:
            return False
    return True


class _RefusedError(Exception):
    """Carries the reason out of a hook of the parser."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add() is called for its effect
    raise _RefusedError(f"the key {shown(twice)} twice")


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(name)


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _RefusedError("a number that fits no float")
    return value
