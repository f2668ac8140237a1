"""The owners of an object's fields: server-side apply for the kinds that a release uses."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.kubernetes.objects import deep_copy

Object = dict[str, Any]
Path = tuple[str, ...]
"""Steps as in managedFields: `f:name` for a field, `k:{...}` for the list item with those keys."""
Owner = tuple[str, str]
"""A manager and its operation: Apply or Update."""

KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "conditions": (("type",),),
    "containers": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "initContainers": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
}
"""Lists whose items are identified by some of their fields; all other lists are one value."""
ATOMIC = frozenset({"selector", "nodeSelector"})
UNOWNED = frozenset(
    {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "managedFields",
    }
)
MISSING = object()


def _key(name: str, item: Any) -> str | None:
    """Return the step to an item of a list; None if it has no keys."""
    if name not in KEYS or not isinstance(item, dict):
        return None
    filled = {"protocol": "TCP", **item}
    for keys in KEYS[name]:
        if all(key in filled for key in keys):
            return _key_text(keys, tuple(filled[key] for key in keys))
    return None


@functools.lru_cache
def _key_text(keys: tuple[str, ...], values: tuple[Any, ...]) -> str:
    pairs = dict(zip(keys, values, strict=True))
    return "k:" + json.dumps(pairs, separators=(",", ":"), sort_keys=True)


def _leaves(value: Any, path: Path, name: str = "") -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and name not in ATOMIC:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, f"f:{key}"), key)
    elif isinstance(value, list) and value and all(_key(name, item) for item in value):
        for item in value:
            yield from _leaves(item, (*path, str(_key(name, item))))
    elif value is not None:
        yield path, value


def leaves(item: Object) -> dict[Path, Any]:
    """Return the fields of an object that a manager can own, with their values."""
    metadata = {key: value for key, value in item.get("metadata", {}).items() if key not in UNOWNED}
    body = {
        key: value
        for key, value in item.items()
        if key not in {"apiVersion", "kind", "metadata", "status"}
    }
    return {
        path: value
        for path, value in _leaves({"metadata": metadata, **body}, ())
        if path != ("f:metadata",)
    }


def _step(value: Any, step: str, last_step: str) -> Any:
    if step.startswith("f:"):
        return value.get(step[2:], MISSING) if isinstance(value, dict) else MISSING
    return (
        next((item for item in value if _key(last_step[2:], item) == step), MISSING)
        if isinstance(value, list)
        else MISSING
    )


def value_at(item: Any, path: Path) -> Any:
    """Return the value at a path of an object, or MISSING."""
    last_step = ""
    for step in path:
        item = _step(item, step, last_step)
        last_step = step
    return item


def differs(item: Object, path: Path, value: Any) -> bool:
    """Return whether an object has another value there; an empty map equals any map."""
    present = value_at(item, path)
    return present != value and not (
        value == {} and isinstance(present, dict) and path[-1][2:] not in ATOMIC
    )


def set_value(item: Object, path: Path, value: Any) -> None:
    """Set a field and create its parents."""
    if not differs(item, path, value):
        return
    for end in range(1, len(path)):
        if value_at(item, path[:end]) in (MISSING, None):
            fresh: Any = [] if path[end].startswith("k:") else {}
            set_value(item, path[:end], fresh)
    parent = value_at(item, path[:-1])
    last = path[-1]
    if last.startswith("f:"):
        parent[last[2:]] = deep_copy(value)
    elif value_at(item, path) is MISSING:
        parent.append({**json.loads(last[2:]), **value})


def remove_value(item: Object, path: Path) -> None:
    """Remove a field, and parents that are then empty."""
    parent = value_at(item, path[:-1])
    last = path[-1]
    removed = value_at(item, path)
    if removed is MISSING:
        return
    if isinstance(parent, list):
        parent[:] = [one for one in parent if one is not removed]
    else:
        del parent[last[2:]]
    if not parent and len(path) > 2:
        remove_value(item, path[:-1])


def path_text(path: Path) -> str:
    """Return a path as in messages of an API server: spec.containers[name="app"].image."""
    text = ""
    for step in path:
        keys = json.loads(step[2:]).items() if step.startswith("k:") else ()
        text += (
            f"[{','.join(f'{key}={json.dumps(value)}' for key, value in keys)}]"
            if keys
            else f".{step[2:]}"
        )
    return text.removeprefix(".")


@dataclass
class Ownership:
    """The owners of one object's fields."""

    owned: dict[Owner, set[Path]] = field(default_factory=dict)

    def copy(self) -> Ownership:
        """Return an independent copy."""
        return Ownership({owner: set(paths) for owner, paths in self.owned.items()})

    def conflicts(self, live: Object, given: Object, manager: str) -> dict[str, str]:
        """Return the fields that others own with another value, as path and owner."""
        wanted = leaves(given)
        return {
            path_text(path): owner[0]
            for owner, paths in self.owned.items()
            if owner != (manager, "Apply")
            for path in sorted(wanted)
            if (path in paths and differs(live, path, wanted[path]))
            or (wanted[path] == {} and _owns_inside(paths, path))
        }

    def apply(self, live: Object, given: Object, manager: str) -> None:
        """Set the given fields by force; remove earlier ones that no other manager owns."""
        wanted = leaves(given)
        changed = {path for path, value in wanted.items() if differs(live, path, value)}
        self.owned = {owner: paths - changed for owner, paths in self.owned.items()}
        before = self.owned.get((manager, "Apply"), set())
        self.owned[manager, "Apply"] = set(wanted)
        owned_paths = set().union(*self.owned.values())
        for path in sorted(before - owned_paths):
            _remove_unowned(live, path, owned_paths)
        for path, value in wanted.items():
            set_value(live, path, value)
        self.owned = {
            owner: {path for path in paths if value_at(live, path) is not MISSING}
            for owner, paths in self.owned.items()
        }
        self._tidy()

    def update(self, before: Object, after: Object, manager: str) -> None:
        """Give a manager the fields that it changed, and take them from all others."""
        old = leaves(before)
        new = leaves(after)
        changed = {path for path, value in new.items() if path not in old or old[path] != value}
        for owner in list(self.owned):
            self.owned[owner] -= changed | (old.keys() - new.keys())
        if changed:
            self.owned.setdefault((manager, "Update"), set()).update(changed)
        self._tidy()

    def _tidy(self) -> None:
        self.owned = {owner: paths for owner, paths in self.owned.items() if paths}

    def managed_fields(self, api_version: str) -> list[Object]:
        """Return the value of metadata.managedFields."""
        return [
            {
                "manager": manager,
                "operation": operation,
                "apiVersion": api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": _tree(paths),
            }
            for (manager, operation), paths in sorted(self.owned.items())
        ]


def _owns_inside(paths: Collection[Path], path: Path) -> bool:
    """Return whether fields inside a map are among those paths; an empty map claims them all."""
    return any(len(one) > len(path) and one[: len(path)] == path for one in paths)


def _remove_unowned(live: Object, path: Path, owned_paths: Collection[Path]) -> None:
    """Remove a field without owners, or its whole list item if its keys have no owner."""
    for end, step in enumerate(path, start=1):
        if step.startswith("k:") and not any(
            (*path[:end], f"f:{key}") in owned_paths for key in json.loads(step[2:])
        ):
            remove_value(live, path[:end])
            return
    remove_value(live, path)


def _tree(paths: Iterable[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {".": {}} if step.startswith("k:") else {})
    return tree
