"""Who may import whom: the map of the project, held by reading its imports.

`deploy/clients/` alone touches the libraries of the outside world, and only when asked to. The suite knows nothing of the
application that it releases, and the application nothing of the suite.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTSIDE = {"azure", "docker", "kubernetes", "obstore", "testcontainers"}
SLOW = OUTSIDE | {"numpy", "onnx", "onnxruntime", "requests", "rich"}
OURS = {"app", "deploy", "sample", "tasks", "noxfile", "tests", "bench"}


@dataclass(frozen=True)
class Import:
    """A module that imports another: when it is loaded itself, when a function of it runs, or for the type checker alone."""

    importer: str
    imported: str
    when: str
    line: int

    @property
    def top(self) -> str:
        """The package that is imported from."""
        return self.imported.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported} ({self.when})"


def modules(*places: str) -> dict[str, Path]:
    """The modules of packages, or single modules, by dotted name."""
    found: dict[str, Path] = {}
    for place in places:
        paths = (
            [ROOT / f"{place}.py"]
            if (ROOT / f"{place}.py").is_file()
            else sorted((ROOT / place).rglob("*.py"))
        )
        for path in paths:
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(*places: str) -> list[Import]:
    """All imports of those modules."""
    return [
        found
        for name, path in modules(*places).items()
        for found in _imports(name, ast.parse(path.read_text(encoding="utf-8")))
    ]


def _imports(importer: str, tree: ast.AST, when: str = "loaded") -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name, when, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}:{node.lineno} imports by a relative name"
            yield from (
                Import(importer, f"{node.module}.{alias.name}", when, node.lineno)
                for alias in node.names
            )
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports(importer, node, "typing")
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(importer, node, "run" if inside and when == "loaded" else when)


def test_the_reader_of_imports_sees_them_all() -> None:
    """Where they stand: at the top, in a function, for the type checker."""
    text = (
        "import os.path\nfrom a.b import c, d\n"
        "if TYPE_CHECKING:\n    import e\n"
        "class X:\n    import f\n    def x(self):\n        with y:\n            from g import h\n"
        "try:\n    import i\nexcept ImportError:\n    pass\n"
    )
    found = [(one.imported, one.when) for one in _imports("m", ast.parse(text))]
    assert found == [
        ("os.path", "loaded"),
        ("a.b.c", "loaded"),
        ("a.b.d", "loaded"),
        ("e", "typing"),
        ("f", "loaded"),
        ("g.h", "run"),
        ("i", "loaded"),
    ]


def test_only_clients_touch_the_outside_world() -> None:
    """Engines, clusters, clouds and stores are spoken to from one folder, behind protocols of our own."""
    found = imports("deploy", "tasks", "noxfile")
    assert {one.top for one in found} >= {"docker", "obstore", "testcontainers"}
    assert [
        str(one)
        for one in found
        if one.top in OUTSIDE and not one.importer.startswith("deploy.clients.")
    ] == []


def test_slow_libraries_are_imported_when_they_are_needed() -> None:
    """Not when a module is loaded, so that `invoke --list` stays instant and a stage pays for what it uses."""
    assert [
        str(one) for one in imports("deploy", "tasks") if one.top in SLOW and one.when == "loaded"
    ] == []


@pytest.mark.parametrize(
    ("place", "forbidden"),
    [
        ("deploy", {"app", "sample", "tasks", "tests", "noxfile", "bench"}),
        ("app", {"deploy", "sample", "tasks", "tests", "noxfile", "bench"}),
        ("sample", {"deploy", "app", "tasks", "tests", "noxfile", "bench"}),
        ("bench", {"app", "tasks", "tests", "noxfile"}),
        ("noxfile", OURS - {"noxfile"}),
        ("tasks", OURS - {"tasks", "deploy"}),
    ],
)
def test_the_halves_do_not_know_each_other(place: str, forbidden: set[str]) -> None:
    """The suite releases any application, the application runs without the suite, and nothing but tests needs the tests."""
    found = imports(place)
    assert found
    assert [str(one) for one in found if one.top in forbidden] == []


def test_the_command_line_loads_only_what_is_instant() -> None:
    """Until a task runs, it needs what people see of tasks and nothing of what they do."""
    loaded = {
        one.imported for one in imports("tasks") if one.when == "loaded" and one.top == "deploy"
    }
    assert loaded == {"deploy.cli.output"}
    below = {
        one.imported.removeprefix("deploy.").partition(".")[0]
        for one in imports("deploy/cli/output")
        if one.top == "deploy"
    }
    assert below == {"progress", "errors", "interrupts"}


@pytest.mark.parametrize("name", ["errors", "records", "progress"])
def test_the_lowest_modules_know_nothing_above_them(name: str) -> None:
    """Errors, records and progress are what everything else speaks in."""
    assert [str(one) for one in imports(f"deploy/{name}") if one.top == "deploy"] == []


# What needs a whole site (and so the order of things) is for these alone.
ABOVE = {"context", "pipeline", "promotion", "plan", "cli.commands", "cli.tables"}


def test_stages_are_not_told_who_calls_them() -> None:
    """They take records and protocols; only the pipeline and what stands on it know a site."""
    found = [
        one
        for one in imports("deploy")
        if one.imported.startswith(tuple(f"deploy.{name}" for name in ABOVE))
    ]
    found += [one for one in imports("deploy") if one.imported.removeprefix("deploy.") in ABOVE]
    assert [str(one) for one in found if one.importer.removeprefix("deploy.") not in ABOVE] == []


def test_clients_know_no_stage() -> None:
    """They turn libraries into small values and this project's errors, and decide nothing."""
    allowed = {
        "deploy.clients",
        "deploy.errors",
        "deploy.records",
        "deploy.progress",
        "deploy.machine.process",
        "deploy.archive",
        "deploy.cache",
    }
    found = [one for one in imports("deploy/clients") if one.top == "deploy"]
    assert [str(one) for one in found if not one.imported.startswith(tuple(allowed))] == []


def edges() -> dict[str, set[str]]:
    """Which module of the suite, of the application or of the sample imports which, at whatever time."""
    known = modules("deploy", "app", "sample")
    graph: dict[str, set[str]] = {name: set() for name in known}
    for one in imports("deploy", "app", "sample"):
        named = one.imported if one.imported in known else one.imported.rpartition(".")[0]
        if named in known and named != one.importer and one.when != "typing":
            graph[one.importer].add(named)
    return graph


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Everything can be read from below, one module at a time."""
    graph = edges()
    assert sum(map(len, graph.values())) > 100
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other in a circle: {' → '.join(reversed(error.args[1]))}")
    assert set(order) == set(graph)
