"""The jobs of GitHub Actions, read from the workflow files.

Composite actions of this project are expanded: their steps replace the step that uses them.
Source: GitHub's documentation, "Workflow syntax" and "Metadata syntax reference".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
EXPRESSION = re.compile(r"\$\{\{ (.+) \}\}")
INPUT = re.compile(r"\binputs\.([\w-]+)")

Step = dict[str, Any]


def load(path: Path) -> Any:
    """Return the content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def workflow(name: str) -> Path:
    """Return the path of the workflow of that name."""
    return ROOT / ".github" / "workflows" / f"{name}.yml"


def jobs(path: Path) -> dict[str, list[Step]]:
    """Return the steps of each job of a workflow, with composite actions expanded.

    A job that calls another workflow has no steps of its own.
    """
    found = load(path)["jobs"].items()
    return {name: _expanded_steps(job) for name, job in found if "steps" in job}


def _expanded_steps(job: dict[str, Any]) -> list[Step]:
    return [step for item in job["steps"] for step in expand(item)]


def expand(step: Step) -> list[Step]:
    """Return the steps of the composite action that a step uses, or the step itself."""
    used = step.get("uses", "")
    if not used.startswith("./"):
        return [step]
    action = load(ROOT / used / "action.yml")
    given = step.get("with", {})
    if given.keys() != action["inputs"].keys():
        raise ValueError(f"{used} has the inputs {sorted(action['inputs'])}, not {sorted(given)}")
    inputs = {name: _expression(value) for name, value in given.items()}
    return [_substitute(item, inputs) for item in action["runs"]["steps"]]


def _expression(value: str) -> str:
    """Return the expression that is the whole of a value."""
    match = EXPRESSION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not one expression")
    return match[1]


def _substitute(value: Any, inputs: dict[str, str]) -> Any:
    """Return a value with an expression of the workflow in place of each input."""
    if isinstance(value, dict):
        return {key: _substitute(item, inputs) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, inputs) for item in value]
    if isinstance(value, str):
        return INPUT.sub(lambda match: inputs[match[1]], value)
    return value
