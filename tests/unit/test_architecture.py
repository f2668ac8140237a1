"""The imports between the modules of the project.

Only `deploy/clients/` and `deploy/machine/` touch the outside world. A module imports only from its
own layer or a lower one. The suite and the application that it releases do not import each other.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTSIDE = {
    "asyncio",
    "azure",
    "docker",
    "http",
    "kubernetes",
    "multiprocessing",
    "obstore",
    "requests",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "testcontainers",
    "urllib.request",
    "urllib3",
}
SLOW = {
    "azure",
    "docker",
    "kubernetes",
    "numpy",
    "obstore",
    "onnx",
    "onnxruntime",
    "requests",
    "rich",
    "testcontainers",
    "urllib3",
}
OURS = {"app", "deploy", "sample", "tasks", "noxfile", "tests", "bench"}


@dataclass(frozen=True)
class Import:
    """An import of a module by another.

    Attributes:
        importer: The module that imports.
        imported: The module that is imported, or a name in it.
        when: "loaded" with the importer, "run" in a function, or "typing" for the type checker.
        line: The line of the import.
    """

    importer: str
    imported: str
    when: str
    line: int

    @property
    def top(self) -> str:
        """The package of the imported module."""
        return self.imported.partition(".")[0]

    def is_of(self, names: Iterable[str]) -> bool:
        """Return whether the imported module is one of these, or is below one of them."""
        return any(is_below(self.imported, name) for name in names)

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported} ({self.when})"


def is_below(module: str, package: str) -> bool:
    """Return whether a module is a package, or is in it."""
    return f"{module}.".startswith(f"{package}.")


def modules(*places: str) -> dict[str, Path]:
    """Return the paths of modules by dotted name; a place is a package or a single module."""
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
    """Return all imports of those modules."""
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


def test_every_import_is_found() -> None:
    """It may be at the top of a module, in a function, or for the type checker."""
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
    """HTTP, sockets, processes, engines, clusters, clouds and stores are used from two folders."""
    found = imports("deploy", "tasks", "noxfile")
    assert {one.top for one in found} >= {"docker", "obstore", "requests", "socket", "subprocess"}
    allowed = ("deploy.clients", "deploy.machine")
    assert [
        str(one)
        for one in found
        if one.is_of(OUTSIDE) and not any(is_below(one.importer, package) for package in allowed)
    ] == []


def test_sessions_of_requests_are_opened_in_one_place() -> None:
    """Any other session would send the logins of the user's .netrc."""
    opening = re.compile(r"requests\.(?:Session|session|request|get|head|post|put)\(")
    assert [
        name
        for name, path in modules("deploy", "tasks", "noxfile").items()
        if opening.search(path.read_text(encoding="utf-8"))
    ] == ["deploy.clients.http"]


def test_slow_libraries_are_imported_when_they_are_needed() -> None:
    """They are not imported with a module, so that `invoke --list` stays instant."""
    assert [
        str(one) for one in imports("deploy", "tasks") if one.is_of(SLOW) and one.when == "loaded"
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
def test_parts_do_not_import_each_other(place: str, forbidden: set[str]) -> None:
    """The suite releases any application, and an application runs without the suite."""
    found = imports(place)
    assert found
    assert [str(one) for one in found if one.top in forbidden] == []


def test_the_command_line_loads_only_what_is_instant() -> None:
    """A list of the tasks needs the output of tasks, but not their work."""
    loaded = {
        one.imported
        for one in imports("deploy/cli/tasks")
        if one.when == "loaded" and one.top == "deploy"
    }
    assert loaded == {"deploy.cli.output", "deploy.cli.program"}
    below = {
        one.imported.removeprefix("deploy.").partition(".")[0]
        for one in imports("deploy/cli/output", "deploy/cli/program")
        if one.top == "deploy" and one.when == "loaded"
    }
    assert below == {"cli", "errors", "interrupts", "nearest", "progress", "text"}


def test_a_release_without_azure_imports_only_its_names_from_there() -> None:
    """The identity and what it opens are imported when a setting names something on Azure."""
    code = (
        "import sys; import deploy.cli.commands; "
        "print(*(name for name in sys.modules if name.startswith('deploy.clients.azure.')))"
    )
    command = (sys.executable, "-c", code)
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) <= {"deploy.clients.azure.names", "deploy.clients.azure.roles"}


# The layers of `deploy`, from the bottom. A module is in the layer of the longest name that fits.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("text",),
    (
        "errors",
        "records",
        "progress",
        "interrupts",
        "clock",
        "nearest",
        "validation",
        "variables",
    ),
    ("archive", "ci", "git_lfs", "platforms", "source.patterns"),
    # Locks and the cache record the process that they belong to; the module reads /proc only.
    ("machine.process",),
    ("cache",),
    ("clients",),
    ("settings",),
    ("source",),
    # The format of a layer: models are packed into layers before there is an image.
    ("image.layer",),
    ("model",),
    ("machine",),
    ("image",),
    ("smoke",),
    ("rollout",),
    ("targets",),
    ("stages",),
    ("context",),
    ("alternatives", "comparison", "pipeline", "promotion", "plan"),
    ("init",),
    ("cli",),
)


def layer(module: str) -> int:
    """Return the number of the layer of a module of `deploy`."""
    fitting = {
        name: number
        for number, names in enumerate(LAYERS)
        for name in names
        if is_below(module, f"deploy.{name}")
    }
    assert fitting, f"{module} has no layer: add it to LAYERS"
    return fitting[max(fitting, key=len)]


def upward_imports() -> list[Import]:
    """Return the imports from a higher layer."""
    known = modules("deploy")
    return [
        one
        for one in imports("deploy")
        if one.importer != "deploy"
        and (imported := module_of(one, known))
        and layer(imported) > layer(one.importer)
    ]


def test_modules_import_only_from_their_own_layer_or_a_lower_one() -> None:
    """A stage does not know the pipeline, a client no stage, and errors know nothing."""
    assert [str(one) for one in upward_imports()] == []


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("text", []),
        ("errors", []),
        ("records", []),
        ("clock", []),
        ("nearest", []),
        ("validation", []),
        ("variables", ["deploy.text.hide_secrets"]),
        # A display shows text from outside.
        ("progress", ["deploy.text.escape_line"]),
    ],
)
def test_the_lowest_modules_import_nothing_of_the_suite(name: str, below: list[str]) -> None:
    """Every other module uses them."""
    assert [one.imported for one in imports(f"deploy/{name}") if one.top == "deploy"] == below


def module_of(one: Import, known: Container[str]) -> str:
    """Return the module that is imported; empty for one of another project."""
    for name in (one.imported, one.imported.rpartition(".")[0]):
        if name in known:
            return name
    return ""


def edges() -> dict[str, set[str]]:
    """Return the modules that each module of the suite, the application or the sample imports."""
    known = modules("deploy", "app", "sample")
    graph: dict[str, set[str]] = {name: set() for name in known}
    for one in imports("deploy", "app", "sample"):
        imported = module_of(one, known)
        if imported not in ("", one.importer) and one.when != "typing":
            graph[one.importer].add(imported)
    return graph


def test_no_module_imports_itself_through_others() -> None:
    """A reader can read the modules from the bottom, one at a time."""
    graph = edges()
    assert sum(map(len, graph.values())) > 100
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other in a circle: {' → '.join(reversed(error.args[1]))}")
    assert set(order) == set(graph)
