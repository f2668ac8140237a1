"""The objects, the clock and the events of one namespace of a cluster in memory."""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from deploy.clients.kubernetes.protocol import KINDS, Object
from tests.fakes.engine import Script

T = TypeVar("T")
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
KINDS_WITH_GENERATION = frozenset(
    {"DaemonSet", "Deployment", "Ingress", "PodDisruptionBudget", "ReplicaSet"}
)
"""Kinds whose metadata.generation counts the changes of the specification."""


@dataclass
class World:
    """The conditions under which a cluster works.

    Attributes:
        scripts: how pods behave, by the digest or the whole reference of their image; others start
            at once and stay.
        nodes: the names of the nodes.
        lost_nodes: those of them that do not respond.
        unpullable: why a node can pull nothing, by its name.
        max_pods: how many pods the nodes take together; None for any number.
        quota: how many pods the namespace may have; None for any number.
        termination_steps: for how many steps a removed pod is still terminating.
        addresses: the address of a load balancer, by the name of a Service or an Ingress: an IP
            address or a host name.
        writes_endpoints: whether the cluster writes Endpoints besides EndpointSlices.
    """

    scripts: dict[str, Script] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=lambda: ["node-1"])
    lost_nodes: set[str] = field(default_factory=set)
    unpullable: dict[str, str] = field(default_factory=dict)
    max_pods: int | None = None
    quota: int | None = None
    termination_steps: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    writes_endpoints: bool = True


def deep_copy(value: T) -> T:
    """Return a deep copy of a JSON value; this is the fastest way, and the fakes copy a lot."""
    return cast("T", marshal.loads(marshal.dumps(cast("Any", value), 2)))


def has_labels(item: Object, labels: Mapping[str, str]) -> bool:
    """Return whether an object has all those labels."""
    carried: dict[str, str] = item["metadata"].get("labels", {})
    return labels.items() <= carried.items()


def is_terminating(item: Object) -> bool:
    """Return whether an object was deleted and still exists."""
    return "deletionTimestamp" in item["metadata"]


def event_time(event: Object) -> str:
    """Return when an event was last seen; those of the scheduler use another field."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "").rstrip("Z")


class Objects:
    """The objects of a namespace by kind and name.

    Attributes:
        now: the cluster's time.
        ending: the remaining steps of each terminating pod, by its name.
    """

    def __init__(self, namespace: str, world: World) -> None:
        self.namespace = namespace
        self.world = world
        self.now = START
        self.ending: dict[str, int] = {}
        self._items: dict[str, dict[str, Object]] = {}
        self._count = 0

    def number(self) -> int:
        """Return a new number."""
        self._count += 1
        return self._count

    @property
    def time(self) -> str:
        """The cluster's time, as in objects."""
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def since(self, time: str) -> float:
        """Return how many seconds ago a time was."""
        return (self.now - datetime.fromisoformat(time)).total_seconds()

    def get(self, kind: str, name: str) -> Object | None:
        """Return the object itself, not a copy."""
        return self._items.get(kind, {}).get(name)

    def find_all(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """Return the objects themselves, ordered by name."""
        named = sorted(self._items.get(kind, {}).items())
        return [item for _, item in named if not labels or has_labels(item, labels)]

    def owned_by(self, kind: str, owner: Object) -> list[Object]:
        """Return the objects that another one owns, oldest first."""
        uid = owner["metadata"]["uid"]
        return [item for item in self._items.get(kind, {}).values() if uid in _owners(item)]

    def add(self, item: Object) -> Object:
        """Add a new object, with the fields that the API server sets."""
        kind = item["kind"]
        metadata = item["metadata"]
        number = self.number()
        item.setdefault("apiVersion", KINDS[kind].api_version)
        metadata |= {
            "namespace": self.namespace,
            "uid": f"{number:08x}-0000-4000-8000-{number:012x}",
            "creationTimestamp": self.time,
        }
        if kind in KINDS_WITH_GENERATION:
            metadata["generation"] = 1
        self._items.setdefault(kind, {})[metadata["name"]] = item
        self.touch(item)
        return item

    def make(self, kind: str, name: str, owner: Object, body: Object, **metadata: Any) -> Object:
        """Create an object as a controller does, with its owner."""
        reference = {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
        }
        reference |= {
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        return self.add(
            {
                "kind": kind,
                "metadata": {"name": name, **metadata, "ownerReferences": [reference]},
                **body,
            }
        )

    def touch(self, item: Object) -> None:
        """Set a new version on an object."""
        item["metadata"]["resourceVersion"] = str(self.number())

    def change(self, item: Object, part: str, value: Any) -> bool:
        """Set a part of an object, such as its status; return whether that changed anything."""
        if item.get(part) == value:
            return False
        item[part] = value
        if part == "spec" and item["kind"] in KINDS_WITH_GENERATION:
            item["metadata"]["generation"] += 1
        self.touch(item)
        return True

    def remove(self, item: Object) -> None:
        """Remove an object and what it owns; a pod on a node may first be terminating."""
        kind = item["kind"]
        metadata = item["metadata"]
        if kind == "Pod" and self.world.termination_steps and item["spec"].get("nodeName"):
            if not is_terminating(item):
                grace = int(item["spec"].get("terminationGracePeriodSeconds", 30))
                metadata |= {"deletionTimestamp": self.time, "deletionGracePeriodSeconds": grace}
                self.ending[metadata["name"]] = self.world.termination_steps
                self.touch(item)
            return
        self._items.get(kind, {}).pop(metadata["name"], None)
        for owned in [owned for kind in self._items for owned in self.owned_by(kind, item)]:
            self.remove(owned)

    def end_pods(self) -> None:
        """Move the terminating pods a step nearer to their end."""
        self.ending = {name: left - 1 for name, left in self.ending.items()}
        for name in [name for name, left in self.ending.items() if left <= 0]:
            del self.ending[name]
            self._items["Pod"].pop(name, None)

    def event(self, about: Object, reason: str, message: str, kind: str = "Normal") -> None:
        """Record an event, or count it again; those of the scheduler use another time field."""
        uid = about["metadata"]["uid"]
        name = about["metadata"]["name"]
        scheduler = reason in {"Scheduled", "FailedScheduling"}
        for known in self.find_all("Event"):
            same = (known["involvedObject"].get("uid"), known.get("reason"), known["message"]) == (
                uid,
                reason,
                message,
            )
            if same:
                known |= {"count": known["count"] + 1, "lastTimestamp": self.time}
                self.touch(known)
                return
        involved = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": name,
            "namespace": self.namespace,
            "uid": uid,
        }
        event: Object = {
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": kind,
        }
        if scheduler:
            event |= {
                "eventTime": self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "firstTimestamp": None,
                "lastTimestamp": None,
            }
        else:
            event |= {
                "eventTime": None,
                "firstTimestamp": self.time,
                "lastTimestamp": self.time,
                "count": 1,
            }
        self.add({"kind": "Event", "metadata": {"name": f"{name}.{self.number():016x}"}, **event})


def _owners(item: Object) -> set[str]:
    return {reference["uid"] for reference in item["metadata"].get("ownerReferences", ())}
