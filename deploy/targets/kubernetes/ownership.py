"""Which fields of an object are ours: those that we applied, with the values that they have now.

Source: the Kubernetes documentation, "Server-Side Apply", and the API reference, "FieldsV1" (meta/v1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deploy.clients.kubernetes.protocol import FIELD_MANAGER, Object


def applied_fields(item: Object) -> Object:
    """What we applied of an object, as it is now: applied once more it changes nothing, and applied later it puts back this."""
    ours: Mapping[str, Any] = next(
        (entry["fieldsV1"] for entry in _entries(item) if _ours(entry)), {}
    )
    body = _kept(item, ours) if ours else {}
    names = {key: item["metadata"][key] for key in ("name", "namespace") if key in item["metadata"]}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        **body,
        "metadata": body.get("metadata", {}) | names,
    }


def owners(item: Object, *place: str) -> list[str]:
    """Who owns a field; not us twice, though we may have applied it and written it otherwise."""
    return sorted(
        {
            str(entry.get("manager", ""))
            for entry in _entries(item)
            if _has(entry.get("fieldsV1", {}), place)
        }
    )


def _entries(item: Object) -> list[Object]:
    return item["metadata"].get("managedFields") or []


def _ours(entry: Object) -> bool:
    # A part of an object that is written by itself, such as its status, has an entry of its own.
    return (
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
    )


def _has(fields: Any, place: tuple[str, ...]) -> bool:  # noqa: ANN401 - JSON
    for key in place:
        fields = fields.get(f"f:{key}")
        if fields is None:
            return False
    return True


def _kept(value: Any, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """The part of a value that those fields name."""
    steps = {step: inner for step, inner in fields.items() if step != "."}
    if isinstance(value, list) and steps:
        return [
            _item(one, step, inner)
            for one in value
            for step, inner in steps.items()
            if _meant(one, step)
        ]
    if isinstance(value, dict) and steps:
        return {
            step[2:]: _kept(value[step[2:]], inner)
            for step, inner in steps.items()
            if step[2:] in value
        }
    return value


def _item(one: Any, step: str, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """The part of a list's item that those fields name, and what it is found by."""
    kept = _kept(one, fields)
    return {**json.loads(step[2:]), **kept} if step.startswith("k:") else kept


def _meant(one: Any, step: str) -> bool:  # noqa: ANN401 - JSON
    """Whether a step leads to that item of a list: by some of its keys, or because it is that value."""
    named = json.loads(step[2:])
    return (
        one == named
        if step.startswith("v:")
        else all(one.get(key) == value for key, value in named.items())
    )
