"""The jobs of Azure Pipelines, read from the pipeline file for given parameters.

Templates, `${{ if }}` and `${{ parameters.NAME }}` are expanded as Azure does before a run.
Only the expressions that this project uses are known; every other one is an error.
Source: Microsoft's documentation, "Template types & usage" and "Template expressions".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "azure-pipelines.yml"
TEMPLATES = sorted((ROOT / "ci" / "azure").glob("*.yml"))
PARAMETER = re.compile(r"\$\{\{ parameters\.(\w+) \}\}")
CONDITION = re.compile(r"(eq|ne)\(parameters\.(\w+), '(\w+)'\)")

Parameters = dict[str, str]
Step = dict[str, Any]


def load(path: Path) -> Any:
    """Return the content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs(**given: str) -> dict[str, list[Step]]:
    """Return the steps of each job, for the default parameters and those that are given."""
    found: dict[str, list[Step]] = {}
    for stage in pipeline(**given)["stages"]:
        for job in stage["jobs"]:
            if "deployment" in job:
                found[job["deployment"]] = job["strategy"]["runOnce"]["deploy"]["steps"]
            else:
                found[job["job"]] = job["steps"]
    return found


def stage(name: str) -> Any:
    """Return the stage of that name, for the default parameters."""
    return next(stage for stage in pipeline()["stages"] if stage["stage"] == name)


def pipeline(**given: str) -> Any:
    """Return the whole pipeline, for the default parameters and those that are given."""
    return _file(PIPELINE, given)


def _file(path: Path, given: Parameters) -> Any:
    """Return an expanded file, without its declaration of parameters."""
    content = load(path)
    declared = {item["name"]: item.get("default") for item in content.pop("parameters", [])}
    parameters = {**declared, **given}
    missing = [name for name, value in parameters.items() if value is None]
    if missing or parameters.keys() != declared.keys():
        raise ValueError(f"{path.name} has the parameters {sorted(declared)}, not {sorted(given)}")
    return _expand(content, parameters, path.parent)


def _expand(value: Any, parameters: Parameters, folder: Path) -> Any:
    """Return a value as it is after Azure has read it."""
    if isinstance(value, dict):
        return _mapping(value, parameters, folder)
    if isinstance(value, list):
        return [part for item in value for part in _items(item, parameters, folder)]
    if not isinstance(value, str):
        return value
    text = PARAMETER.sub(lambda match: parameters[match[1]], value)
    if "${{" in text:
        raise ValueError(f"the expression in {text!r} is not known")
    return text


def _mapping(value: dict[str, Any], parameters: Parameters, folder: Path) -> dict[str, Any]:
    """Return a mapping with the keys of the branches whose conditions are met."""
    found: dict[str, Any] = {}
    is_met = False
    for key, item in value.items():
        if not key.startswith("${{"):
            found[key] = _expand(item, parameters, folder)
            continue
        is_met = not is_met if key == "${{ else }}" else _is_met(key, parameters)
        if is_met:
            found |= _expand(item, parameters, folder)
    return found


def _items(item: Any, parameters: Parameters, folder: Path) -> list[Any]:
    """Return what replaces an item of a list: itself, a branch, or the steps of a template."""
    if not isinstance(item, dict):
        return [_expand(item, parameters, folder)]
    if "template" in item:
        given = _expand(item.get("parameters", {}), parameters, folder)
        steps: list[Any] = _file(folder / item["template"], given)["steps"]
        return steps
    key = next(iter(item))
    if key.startswith("${{"):
        return _expand(item[key], parameters, folder) if _is_met(key, parameters) else []
    return [_expand(item, parameters, folder)]


def _is_met(key: str, parameters: Parameters) -> bool:
    """Return whether the condition of an `if` holds."""
    match = CONDITION.fullmatch(key.removeprefix("${{ if ").removesuffix(" }}"))
    if match is None:
        raise ValueError(f"the condition {key!r} is not known")
    is_equal = parameters[match[2]] == match[3]
    return is_equal if match[1] == "eq" else not is_equal
