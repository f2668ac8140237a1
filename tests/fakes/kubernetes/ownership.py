"""Who owns which fields of an object: server-side apply as an API server does it, for the kinds that a release uses."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.kubernetes.objects import copied

Object = dict[str, Any]
Path = tuple[str, ...]
"""Steps as managedFields spells them: `f:name` for a field, `k:{...}` for the item of a list that has those keys."""
Owner = tuple[str, str]
"""A manager, and the operation it wrote with: Apply or Update."""

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
"""Lists whose items are told apart by some of their fields; all other lists are one value."""
ATOMIC = frozenset({"selector", "nodeSelector"})
NOBODYS = frozenset(
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
    """The step to an item of a list of that name; None if it has no keys."""
    if name not in KEYS or not isinstance(item, dict):
        return None
    filled = {"protocol": "TCP", **item}
    for keys in KEYS[name]:
        if filled.keys() >= set(keys):
            return "k:" + json.dumps(
                {key: filled[key] for key in keys}, separators=(",", ":"), sort_keys=True
            )
    return None


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
    """The fields of an object that somebody can own, with their values."""
    metadata = {key: value for key, value in item.get("metadata", {}).items() if key not in NOBODYS}
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


def _step(value: Any, step: str, came: str) -> Any:
    if step.startswith("f:"):
        return value.get(step[2:], MISSING) if isinstance(value, dict) else MISSING
    return (
        next((item for item in value if _key(came[2:], item) == step), MISSING)
        if isinstance(value, list)
        else MISSING
    )


def found(item: Any, path: Path) -> Any:
    """What an object has at a path, or MISSING."""
    came = ""
    for step in path:
        item = _step(item, step, came)
        came = step
    return item


def differs(item: Object, path: Path, value: Any) -> bool:
    """Whether an object has something else there; nothing more is said of a map by giving an empty one."""
    present = found(item, path)
    return present != value and not (
        value == {} and isinstance(present, dict) and path[-1][2:] not in ATOMIC
    )


def put(item: Object, path: Path, value: Any) -> None:
    """Sets a field, making what leads there."""
    if not differs(item, path, value):
        return
    for end in range(1, len(path)):
        if found(item, path[:end]) in (MISSING, None):
            fresh: Any = [] if path[end].startswith("k:") else {}
            put(item, path[:end], fresh)
    holder = found(item, path[:-1])
    last = path[-1]
    if last.startswith("f:"):
        holder[last[2:]] = copied(value)
    elif found(item, path) is MISSING:
        holder.append({**json.loads(last[2:]), **value})


def drop(item: Object, path: Path) -> None:
    """Removes a field, and what is empty without it."""
    holder = found(item, path[:-1])
    last = path[-1]
    gone = found(item, path)
    if gone is MISSING:
        return
    if isinstance(holder, list):
        holder[:] = [one for one in holder if one is not gone]
    else:
        del holder[last[2:]]
    if not holder and len(path) > 2:
        drop(item, path[:-1])


def spelled(path: Path) -> str:
    """A path as an API server spells it to people, such as spec.template.spec.containers[name="app"].image."""
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
        """The same, to be changed alone."""
        return Ownership({owner: set(paths) for owner, paths in self.owned.items()})

    def conflicts(self, live: Object, given: Object, manager: str) -> dict[str, str]:
        """The fields that others own with another value than is given, by path, with the other's name."""
        wanted = leaves(given)
        return {
            spelled(path): owner[0]
            for owner, paths in self.owned.items()
            if owner != (manager, "Apply")
            for path in sorted(paths & wanted.keys())
            if differs(live, path, wanted[path])
        }

    def apply(self, live: Object, given: Object, manager: str) -> None:
        """Sets what is given, taking it from others, and removes what that manager applied before and nobody else owns."""
        wanted = leaves(given)
        changed = {path for path, value in wanted.items() if differs(live, path, value)}
        self.owned = {owner: paths - changed for owner, paths in self.owned.items()}
        before = self.owned.get((manager, "Apply"), set())
        self.owned[manager, "Apply"] = set(wanted)
        kept = set().union(*self.owned.values())
        for path in sorted(before - kept):
            _give_up(live, path, kept)
        for path, value in wanted.items():
            put(live, path, value)
        self.owned = {
            owner: {path for path in paths if found(live, path) is not MISSING}
            for owner, paths in self.owned.items()
        }
        self._tidy()

    def update(self, before: Object, after: Object, manager: str) -> None:
        """Gives that manager the fields that it changed, and takes them from all others."""
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

    def shown(self, api_version: str) -> list[Object]:
        """As metadata.managedFields."""
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


def _give_up(live: Object, path: Path, kept: Collection[Path]) -> None:
    """Removes a field that nobody owns any more; an item of a list goes whole when nobody else owns what it is told by."""
    for end, step in enumerate(path, start=1):
        if step.startswith("k:") and not any(
            (*path[:end], f"f:{key}") in kept for key in json.loads(step[2:])
        ):
            drop(live, path[:end])
            return
    drop(live, path)


def _tree(paths: Iterable[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {".": {}} if step.startswith("k:") else {})
    return tree
