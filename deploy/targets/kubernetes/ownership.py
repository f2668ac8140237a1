"""The fields of an object that we own: those that we applied, with their current values.

Source: the Kubernetes documentation, "Server-Side Apply", and the API reference, "FieldsV1"
(meta/v1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deploy.clients.kubernetes.protocol import FIELD_MANAGER, Object


def applied_fields(item: Object) -> Object:
    """Return the fields of an object that we applied, with their current values.

    To apply them now changes nothing; to apply them later restores these values.
    """
    fields: Mapping[str, Any] = next(
        (entry["fieldsV1"] for entry in _entries(item) if _is_ours(entry)), {}
    )
    body = _select(item, fields) if fields else {}
    names = {key: item["metadata"][key] for key in ("name", "namespace") if key in item["metadata"]}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        **body,
        "metadata": body.get("metadata", {}) | names,
    }


def owners(item: Object, *path: str) -> list[str]:
    """Return the managers that own a field, each once."""
    return sorted(
        {
            str(entry.get("manager", ""))
            for entry in _entries(item)
            if _has_field(entry.get("fieldsV1", {}), path)
        }
    )


def _entries(item: Object) -> list[Object]:
    return item["metadata"].get("managedFields") or []


def _is_ours(entry: Object) -> bool:
    # A subresource such as the status has an entry of its own.
    return (
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
    )


def _has_field(fields: Any, path: tuple[str, ...]) -> bool:  # noqa: ANN401 - JSON
    for key in path:
        fields = fields.get(f"f:{key}")
        if fields is None:
            return False
    return True


def _select(value: Any, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return the part of a value that the fields name."""
    steps = {step: inner for step, inner in fields.items() if step != "."}
    if isinstance(value, list) and steps:
        return [
            _select_item(item, step, inner)
            for item in value
            for step, inner in steps.items()
            if _matches(item, step)
        ]
    if isinstance(value, dict) and steps:
        return {
            step[2:]: _select(value[step[2:]], inner)
            for step, inner in steps.items()
            if step[2:] in value
        }
    return value


def _select_item(item: Any, step: str, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return the part of a list's item that the fields name, and the keys that identify it."""
    selected = _select(item, fields)
    return {**json.loads(step[2:]), **selected} if step.startswith("k:") else selected


def _matches(item: Any, step: str) -> bool:  # noqa: ANN401 - JSON
    """Return whether a step names that item of a list, by its keys or by its value."""
    named = json.loads(step[2:])
    return (
        item == named
        if step.startswith("v:")
        else all(item.get(key) == value for key, value in named.items())
    )
