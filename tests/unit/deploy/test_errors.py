"""The error tree: its drawing, its exit codes, and that every place which raises one says all it must."""

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


def drawn() -> Iterator[tuple[str, str, str]]:
    """Each line of the tree in the module's docstring: name, name of the one above, exit code."""
    above: list[tuple[int, str]] = []
    for text in (errors.__doc__ or "").splitlines():
        line = LINE.match(text)
        if line is None or not text.startswith("    "):
            continue
        depth = len(line["indent"])
        above = [(other, name) for other, name in above if other < depth]
        yield line["name"], above[-1][1] if above else "", line["code"] or ""
        above.append((depth, line["name"]))


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every place in the suite that makes an error: where, and the call."""
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
    """Whoever reads the drawing knows every error, what kind it is of, and its exit code."""
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
    assert set(drawn()) == classes


def test_every_exit_code_means_one_error() -> None:
    """A script can tell errors apart by exit code, and no code means something else to a shell."""
    codes = [kind.exit_code for kind in LEAVES]
    assert len(set(codes)) == len(codes)
    assert all(1 < code < 126 for code in codes)
    assert {kind.exit_code for kind in KINDS if kind not in LEAVES} == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_sentence_of_its_own(kind: type[ReleaseError]) -> None:
    """What an error means can be read at its class."""
    assert (kind.__dict__.get("__doc__") or "").strip().splitlines()[0].endswith(".")


def test_every_place_that_raises_says_on_what_and_what_to_do_next() -> None:
    """No error of the suite leaves its reader without the thing it happened to and the next step."""
    calls = list(raised())
    assert len(calls) > 50
    lacking = [
        where
        for where, call in calls
        if not {"on", "next"} <= {word.arg for word in call.keywords if not is_empty(word.value)}
    ]
    assert not lacking


def test_what_happened_is_one_line_without_a_full_stop() -> None:
    """The first line is a sentence that others can be put around."""
    texts = [(where, text(call.args[0])) for where, call in raised() if call.args]
    assert [where for where, what in texts if "\n" in what or what.endswith(".") or not what] == []


def is_empty(value: ast.expr) -> bool:
    """Whether an argument is written as an empty text."""
    return isinstance(value, ast.Constant) and not value.value


def text(value: ast.expr) -> str:
    """The constant parts of a text; a value that is computed stands as one character."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(map(text, value.values))
    return "x"


def test_an_error_holds_its_parts() -> None:
    """What, on what, what next and the lines that show it are values, which whoever shows the error can arrange."""
    error = SettingsInvalid(
        "the port is wrong", on="pipeline.toml", next="choose another", detail="  app.port: 0"
    )
    assert (error.what, error.on, error.next, error.detail) == (
        "the port is wrong",
        "pipeline.toml",
        "choose another",
        "  app.port: 0",
    )


def test_an_error_as_text_says_what_and_on_what_and_shows_it() -> None:
    """In a log or a traceback the error is complete, without empty parentheses or lines."""
    assert str(SettingsInvalid("a", on="b", next="c", detail="  d\n\n")) == "a (b)\n  d"
    assert str(SettingsInvalid("a", on="", next="c")) == "a"
