"""The map of the code in docs/10-the-code.md and the reading order of `deploy` match the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "docs" / "10-the-code.md").read_text(encoding="utf-8")
# A path or a module in backticks, or a module in a box of the diagram.
NAMED = re.compile(
    r"`([\w./]+(?:/|\.py))`|\[\"([\w./]+?(?:<br>[\w./]+)*)\"\]|\{\{\"([\w./]+)\"\}\}"
)


def _rows() -> list[str]:
    """Return the folders that have a line."""
    return re.findall(r"^\| `([\w./]+/)` \|", MAP, re.MULTILINE)


def _named() -> list[str]:
    names = [name for match in NAMED.findall(MAP) for name in match if name]
    return sorted({part for name in names for part in name.split("<br>")})


def _exists(name: str) -> bool:
    return any((ROOT / folder / name).exists() for folder in ("", "deploy"))


def test_every_package_has_one_line() -> None:
    """A new package is added to the map, and a removed one is removed from it."""
    packages = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for path in (ROOT / "deploy").rglob("__init__.py")
    }
    lines = _rows()
    assert len(lines) == len(set(lines))
    assert {line for line in lines if line.startswith("deploy/")} == packages | {
        "deploy/azure/",
        "deploy/manifests/",
    }


@pytest.mark.parametrize("name", _named())
def test_every_path_of_the_map_exists(name: str) -> None:
    """Also those in the diagram, and those relative to `deploy`."""
    assert _exists(name)


def test_the_map_names_enough() -> None:
    """The pattern finds the boxes of the diagram, the rows and the modules."""
    assert {"cli/commands.py", "noxfile.py", "rollout/target.py", "deploy/clients/oci/"} <= set(
        _named()
    )


def test_the_reading_order_names_real_modules() -> None:
    """It has ten lines, one a noun, and leaves out no package."""
    text = ast.get_docstring(
        ast.parse((ROOT / "deploy" / "__init__.py").read_text(encoding="utf-8"))
    )
    lines = re.findall(r"^\d+\. (.*?):", text or "", re.MULTILINE)
    assert len(lines) == 10
    names = {name for line in lines for name in re.findall(r"`(\w+)`", line)}
    folder = ROOT / "deploy"
    assert all((folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in names)
    assert {path.parent.name for path in folder.glob("*/__init__.py")} <= names
