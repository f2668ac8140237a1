"""The errors: their tree, their exit codes, and the texts of all places that raise one."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import errors
from deploy.errors import ReleaseError, SettingsInvalid

PROJECT = Path(errors.__file__).parents[1]
LINE = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?: (?P<code>\d+) +(?P<meaning>\S.*))?$")
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ReleaseError)
]
LEAVES = [kind for kind in KINDS if not kind.__subclasses__()]


def parse_tree() -> Iterator[tuple[str, str, str]]:
    """Yield each line of the tree in the module's docstring: name, parent and exit code."""
    above: list[tuple[int, str]] = []
    for text in (errors.__doc__ or "").splitlines():
        line = LINE.match(text)
        if line is None or not text.startswith("    "):
            continue
        depth = len(line["indent"])
        above = [(other, name) for other, name in above if other < depth]
        yield line["name"], above[-1][1] if above else "", line["code"] or ""
        above.append((depth, line["name"]))


def find_calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each place in twinship that creates an error, and its call."""
    names = {kind.__name__ for kind in KINDS}
    for path in sorted((PROJECT / "deploy").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in names
            ):
                yield f"{path.relative_to(PROJECT)}:{node.lineno}", node


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    """The docstring has all errors with their parents and exit codes."""
    classes = {
        (
            kind.__name__,
            kind.__base__.__name__ if kind is not ReleaseError and kind.__base__ else "",
            str(kind.exit_code) if leaf else "",
        )
        for kind in KINDS
        for leaf in [kind in LEAVES]
    }
    assert len(classes) > 30
    assert set(parse_tree()) == classes


def test_every_exit_code_has_one_error() -> None:
    """No code has another meaning for a shell."""
    codes = [kind.exit_code for kind in LEAVES]
    assert len(set(codes)) == len(codes)
    assert all(1 < code < 126 for code in codes)
    assert {kind.exit_code for kind in KINDS if kind not in LEAVES} == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_docstring_of_its_own(kind: type[ReleaseError]) -> None:
    """The class says what the error means."""
    assert (kind.__dict__.get("__doc__") or "").strip().splitlines()[0].endswith(".")


def test_every_error_has_a_subject_and_a_next_step() -> None:
    """`on` and `next` are never empty."""
    calls = list(find_calls())
    assert len(calls) > 50
    lacking = [
        where
        for where, call in calls
        if not {"on", "next"} <= {word.arg for word in call.keywords if not is_empty(word.value)}
    ]
    assert not lacking


def test_the_first_text_is_one_line_without_a_full_stop() -> None:
    """Other texts may follow it in one sentence."""
    texts = [(where, constant_text(call.args[0])) for where, call in find_calls() if call.args]
    assert [where for where, what in texts if "\n" in what or what.endswith(".") or not what] == []


def is_empty(value: ast.expr) -> bool:
    """Return whether an argument is an empty text."""
    return isinstance(value, ast.Constant) and not value.value


def constant_text(value: ast.expr) -> str:
    """Return the constant parts of a text, with one letter for each computed value."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(map(constant_text, value.values))
    return "x"


def test_an_error_has_four_parts() -> None:
    """A program can show each of them in its own way."""
    error = SettingsInvalid(
        "the port is wrong", on="pipeline.toml", next="choose another", detail="  app.port: 0"
    )
    assert (error.what, error.on, error.next, error.detail) == (
        "the port is wrong",
        "pipeline.toml",
        "choose another",
        "  app.port: 0",
    )


def test_an_error_as_text_has_what_on_and_detail() -> None:
    """Empty parts leave no parentheses or lines."""
    assert str(SettingsInvalid("a", on="b", next="c", detail="  d\n\n")) == "a (b)\n  d"
    assert str(SettingsInvalid("a", on="", next="c")) == "a"
