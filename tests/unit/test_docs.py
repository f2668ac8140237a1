"""The pages match the code: their errors, settings, tasks, sessions, options and links exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from invoke.tasks import Task
from pydantic.fields import FieldInfo

from deploy import errors
from deploy.cli.tasks import namespace
from deploy.settings import environments
from deploy.settings.app import App
from deploy.settings.azure import Azure
from deploy.settings.environments import KINDS
from deploy.settings.image import ImageBuild, Wheels
from deploy.settings.model import ModelSource
from deploy.settings.reading import Settings
from deploy.settings.table import Table
from deploy.settings.variables import Smoke

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
RUNBOOK = ROOT / "docs" / "06-runbook.md"
TABLES: dict[str, type[Table]] = {
    "[app]": App,
    "[model]": ModelSource,
    "[image]": ImageBuild,
    "[image.wheels]": Wheels,
    "[azure]": Azure,
    "[smoke]": Smoke,
    "[environments.NAME]": environments.Environment,
    "[environments.NAME], target docker": environments.Docker,
    "[environments.NAME], target kubernetes": environments.Kubernetes,
    "[environments.NAME.canary]": environments.Canary,
    "[environments.NAME.resources]": environments.Resources,
    "[environments.NAME.autoscale]": environments.Autoscale,
}
# Tables of their own: described under a heading instead of in a row.
NESTED = {"wheels", "canary", "resources", "autoscale"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", _text(page), flags=re.MULTILINE | re.DOTALL)


def _leaves(kind: type[errors.ReleaseError]) -> Iterator[type[errors.ReleaseError]]:
    """The errors that are raised: those that nothing is derived from."""
    for child in kind.__subclasses__():
        yield from _leaves(child) if child.__subclasses__() else [child]


def _slug(heading: str) -> str:
    """The anchor under which code hosts show a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)


def _rows(heading: str) -> dict[str, str]:
    """The defaults that the page of settings gives under a heading, by key."""
    section = (
        _text(ROOT / "docs" / "02-settings.md").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    )
    return dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", section, re.MULTILINE))


def _default(field: FieldInfo) -> str:
    """A default as the page of settings writes it: as TOML would."""
    if field.is_required():
        return "required"
    if field.default is None:
        return "not set"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(value)}`"


def _is_table(field: FieldInfo) -> bool:
    """Whether a key holds a table of its own."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return any(isinstance(kind, type) and issubclass(kind, Table) for kind in kinds)


def _commands(page: Path) -> list[list[str]]:
    """What a page tells to run by Invoke and by Nox: a command and its words."""
    told = re.findall(
        r"(?:(?<=\./run )|(?<=`)|(?<=uv run ))((?:invoke|nox)\b[^`\n;|]*)", _text(page)
    )
    return [shlex.split(command, comments=True) for command in told]


def _tasks() -> dict[str, Task[Any]]:
    return {name: namespace[name] for name in namespace.task_names}


def _options(task: Task[Any]) -> set[str]:
    return {
        f"--{name.replace('_', '-')}"
        for argument in task.get_arguments()
        for name in argument.names
        if len(name) > 1
    }


def _sessions() -> set[str]:
    tree = ast.parse(_text(ROOT / "noxfile.py"))
    stages = next(
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STAGES"
    )
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    decorated = {
        node.name
        for node in functions
        if any("nox.session" in ast.unparse(item) for item in node.decorator_list)
    }
    return decorated | set(ast.literal_eval(stages.value))


def test_every_error_has_a_heading() -> None:
    """The runbook has one heading for each error, with its exit code, in the order of the codes."""
    expected = [
        f"{kind.__name__} ({kind.exit_code})"
        for kind in sorted(_leaves(errors.ReleaseError), key=lambda kind: kind.exit_code)
    ]

    assert re.findall(r"^### (.+)$", _text(RUNBOOK), re.MULTILINE) == expected


@pytest.mark.parametrize("heading", re.findall(r"^### (.+)$", _text(RUNBOOK), re.MULTILINE))
def test_every_error_is_answered(heading: str) -> None:
    """Under each error the runbook tells where to look and what to do."""
    section = _text(RUNBOOK).split(f"### {heading}\n", 1)[1].split("\n### ", 1)[0]

    assert "- Look: " in section
    assert "- Do: " in section


@pytest.mark.parametrize("heading", TABLES)
def test_every_setting_is_described(heading: str) -> None:
    """The page of settings has a row for each key and for nothing else, with its default."""
    section = TABLES[heading]
    shared = {
        name
        for parent in section.__mro__[1:]
        if issubclass(parent, Table)
        for name in parent.model_fields
    }
    fields = {
        name: field for name, field in section.model_fields.items() if name not in NESTED | shared
    }

    assert _rows(heading) == {name: _default(field) for name, field in fields.items()}


def test_every_table_is_described() -> None:
    """The page of settings has a heading for each table, each kind of target, and nested tables."""
    within = {
        name
        for section in TABLES.values()
        for name, field in section.model_fields.items()
        if _is_table(field)
    }

    assert {name.strip("[]").split(".")[0] for name in TABLES} == set(Settings.model_fields)
    assert set(KINDS.values()) <= set(TABLES.values())
    assert within == NESTED
    assert all(any(heading.endswith(f".{name}]") for heading in TABLES) for name in NESTED)


@pytest.mark.parametrize("name", _tasks())
def test_every_task_is_described(name: str) -> None:
    """Every Invoke task is spoken of on a page."""
    spoken = re.compile(rf"(invoke |`){re.escape(name)}\b")

    assert any(spoken.search(_text(page)) for page in PAGES)


@each_page
def test_invoke_commands_are_real(page: Path) -> None:
    """Every Invoke command of a page names a task, and options which that task has."""
    for _, name, *words in (
        command for command in _commands(page) if command[0] == "invoke" and len(command) > 1
    ):
        if name.startswith("-"):
            assert name == "--list"
            continue
        assert name in _tasks()
        assert {word for word in words if word.startswith("--")} <= _options(_tasks()[name])


@each_page
def test_nox_commands_are_real(page: Path) -> None:
    """Every Nox command of a page names sessions of the noxfile."""
    for words in (command for command in _commands(page) if command[:2] == ["nox", "-s"]):
        named = words[2 : words.index("--") if "--" in words else None]
        assert set(named) - {"NAME"} <= _sessions()


def test_readme_begins_with_two_commands() -> None:
    """The first thing that the README shows to run is a release, then the checks."""
    first = re.findall(
        r"^```console\n(.*?)^```", _text(ROOT / "README.md"), re.MULTILINE | re.DOTALL
    )[0]

    assert first.splitlines() == ["$ ./run invoke release", "$ ./run nox"]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the project, and to a heading in one, has a target."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in map(_slug, _headings(linked)), target


def test_every_page_is_in_the_reading_order() -> None:
    """The reading order lists all numbered pages, in their order."""
    listed = re.findall(
        r"^\d+\. \[[^\]]+\]\(([^)]+)\)", _text(ROOT / "docs" / "README.md"), re.MULTILINE
    )

    assert listed == [page.name for page in DOCS if page.name[0].isdigit()]


@pytest.mark.parametrize(
    "module", sorted((ROOT / "deploy").rglob("*.py")), ids=lambda path: path.stem
)
def test_pages_that_errors_name_exist(module: Path) -> None:
    """A page that the suite sends its user to is there."""
    assert [
        name for name in re.findall(r"docs/[\w-]+\.md", _text(module)) if not (ROOT / name).exists()
    ] == []
