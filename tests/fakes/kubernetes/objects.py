"""What a cluster in memory keeps: the objects of one namespace, its clock and its events, and what its surroundings are like."""

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
COUNTED = frozenset({"DaemonSet", "Deployment", "Ingress", "PodDisruptionBudget", "ReplicaSet"})
"""Kinds whose metadata.generation counts the changes of what is wanted."""


@dataclass
class World:
    """What a cluster has to work with.

    Attributes:
        scripts: how pods behave, by the digest or the whole reference of their image; others start at once and stay.
        nodes: the names of the nodes.
        away: those of them that nothing is heard of.
        unpullable: why a node can pull nothing, by its name.
        room: how many pods the nodes take together; None for any number.
        quota: how many pods the namespace may have; None for any number.
        lingers: for how many steps a pod that was removed is still there, as terminating.
        addresses: what a load balancer gives, by the name of a Service or an Ingress: an IP address, or a host name.
    """

    scripts: dict[str, Script] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=lambda: ["node-1"])
    away: set[str] = field(default_factory=set)
    unpullable: dict[str, str] = field(default_factory=dict)
    room: int | None = None
    quota: int | None = None
    lingers: int = 0
    addresses: dict[str, str] = field(default_factory=dict)


def copied(value: T) -> T:
    """Return JSON that shares nothing with the value; the tests do this more than anything else."""
    # The format of version 2 has no references, so that parts that were one are two afterwards.
    return cast("T", marshal.loads(marshal.dumps(cast("Any", value), 2)))


def labelled(item: Object, labels: Mapping[str, str] | None) -> bool:
    """Whether an object carries all those labels."""
    carried: dict[str, str] = item["metadata"].get("labels", {})
    return (labels or {}).items() <= carried.items()


def leaving(item: Object) -> bool:
    """Whether an object was asked to go, and is still there."""
    return "deletionTimestamp" in item["metadata"]


def happened(event: Object) -> str:
    """When an event was seen last; the scheduler's have another field for it than all others."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "").rstrip("Z")


class Objects:
    """The objects of a namespace by kind and name.

    Attributes:
        now: the cluster's time.
        ending: for how many more steps a terminating pod is there, by its name.
    """

    def __init__(self, namespace: str, world: World) -> None:
        self.namespace = namespace
        self.world = world
        self.now = START
        self.ending: dict[str, int] = {}
        self._held: dict[tuple[str, str], Object] = {}
        self._count = 0

    def number(self) -> int:
        """The next number; no two are the same."""
        self._count += 1
        return self._count

    @property
    def time(self) -> str:
        """The cluster's time, as objects have it."""
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def later(self, seconds: float) -> None:
        """Moves the clock on."""
        self.now += timedelta(seconds=seconds)

    def since(self, time: str) -> float:
        """How many seconds ago that was."""
        return (self.now - datetime.fromisoformat(time)).total_seconds()

    def get(self, kind: str, name: str) -> Object | None:
        """The object itself, not a copy."""
        return self._held.get((kind, name))

    def all(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """The objects themselves, ordered by name."""
        found = [
            item for (one, _), item in self._held.items() if one == kind and labelled(item, labels)
        ]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    def owned(self, kind: str, owner: Object) -> list[Object]:
        """The objects that another one owns, oldest first."""
        return [
            item
            for (one, _), item in self._held.items()
            if one == kind and owner["metadata"]["uid"] in _owners(item)
        ]

    def add(self, item: Object) -> Object:
        """Takes a new object in, giving it what the API server gives."""
        kind = item["kind"]
        metadata = item["metadata"]
        number = self.number()
        item.setdefault("apiVersion", KINDS[kind].api_version)
        metadata |= {
            "namespace": self.namespace,
            "uid": f"{number:08x}-0000-4000-8000-{number:012x}",
            "creationTimestamp": self.time,
        }
        if kind in COUNTED:
            metadata["generation"] = 1
        self._held[kind, metadata["name"]] = item
        self.touch(item)
        return item

    def make(self, kind: str, name: str, owner: Object, body: Object, **metadata: Any) -> Object:
        """Makes an object as a controller does, owned by what it is made for."""
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
        """Notes that an object has changed."""
        item["metadata"]["resourceVersion"] = str(self.number())

    def change(self, item: Object, part: str, value: Any) -> bool:
        """Sets a part of an object, such as its status; whether that changed anything."""
        if item.get(part) == value:
            return False
        item[part] = value
        if part == "spec" and item["kind"] in COUNTED:
            item["metadata"]["generation"] += 1
        self.touch(item)
        return True

    def remove(self, item: Object) -> None:
        """Removes an object and what it owns; a pod that has a node may linger."""
        kind = item["kind"]
        metadata = item["metadata"]
        if kind == "Pod" and self.world.lingers and item["spec"].get("nodeName"):
            if not leaving(item):
                grace = int(item["spec"].get("terminationGracePeriodSeconds", 30))
                metadata |= {"deletionTimestamp": self.time, "deletionGracePeriodSeconds": grace}
                self.ending[metadata["name"]] = self.world.lingers
                self.touch(item)
            return
        self._held.pop((kind, metadata["name"]), None)
        for owned in [other for other in self._held.values() if metadata["uid"] in _owners(other)]:
            self.remove(owned)

    def end_pods(self) -> None:
        """Moves the pods that are terminating a step nearer to their end."""
        self.ending = {name: left - 1 for name, left in self.ending.items()}
        for name in [name for name, left in self.ending.items() if left <= 0]:
            del self.ending[name]
            self._held.pop(("Pod", name), None)

    def event(self, about: Object, reason: str, message: str, kind: str = "Normal") -> None:
        """Notes an event, or counts one that was noted before; the scheduler's have their time in another field."""
        uid = about["metadata"]["uid"]
        name = about["metadata"]["name"]
        scheduler = reason in {"Scheduled", "FailedScheduling"}
        for known in self.all("Event"):
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
