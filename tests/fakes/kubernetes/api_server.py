"""A cluster in memory: one namespace of an API server, with controllers and nodes that move a step whenever somebody looks.

What it does was compared with what a Kubernetes v1.20 cluster does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import KINDS, MANAGER, ROOT_CA, Object
from deploy.clients.kubernetes.protocol import Objects as Items
from deploy.clock import Clock
from deploy.errors import ClusterForbidden, ClusterRefused, FieldConflict, NamespaceMissing
from tests.fakes.engine import Script
from tests.fakes.kubernetes.admission import (
    WITHOUT_STATUS,
    empty_object,
    set_defaults,
    validation_error,
)
from tests.fakes.kubernetes.controllers import DaemonSets, ReplicaSets, Services
from tests.fakes.kubernetes.deployments import Deployments
from tests.fakes.kubernetes.nodes import Kubelet
from tests.fakes.kubernetes.objects import START, Objects, World, deep_copy, event_time
from tests.fakes.kubernetes.ownership import Ownership
from tests.fakes.kubernetes.pods import PodScript, is_ready

__all__ = ["FakeCluster", "PodScript", "World"]

TICK = 0.1
"""How many seconds a look takes."""
_GIVEN = ("uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "namespace")


class Controller(Protocol):
    """What moves some objects."""

    def step(self) -> None:
        """Move them a step."""


class FakeCluster:
    """A namespace in memory. What is read is as it was; then controllers, nodes and the clock move a step.

    Attributes:
        world: what the cluster has to work with: scripts of images, nodes, quotas, addresses.
        texts: what pods answer, by the digest of their image; others answer with the digest.
        missing: whether the namespace is not there.
        unserved: kinds that the API server does not know.
        denied: what this account may not do, as (verb, kind); for a part of a kind, (verb, "Pod/log").
        broken: errors to be raised by the next calls, by (verb, kind); None lets one pass. The verbs are those of a role:
            get, list, create, patch, update, delete.
        asked: what was asked of the API server, as (verb, kind, name or labels).
        clock: the cluster's time. To sleep moves a step for every second that has begun.
    """

    name = "fake at https://fake.example:6443"

    def __init__(
        self,
        scripts: Mapping[str, Script] | None = None,
        *,
        namespace: str = "shop",
        world: World | None = None,
    ) -> None:
        self.namespace = namespace
        self.world = world or World()
        self.world.scripts.update(scripts or {})
        self.objects = Objects(namespace, self.world)
        self.kubelet = Kubelet(self.objects)
        pods = (ReplicaSets(self.objects), DaemonSets(self.objects), self.kubelet)
        self._controllers: tuple[Controller, ...] = (
            Deployments(self.objects),
            *pods,
            Services(self.objects),
        )
        self.response_texts: dict[str, str] = {}
        self.missing = False
        self.unserved: set[str] = set()
        self.forbidden: set[tuple[str, str]] = set()
        self.failures: dict[tuple[str, str], list[Exception | None]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.clock = Clock(self.seconds, self.sleep, self.seconds)
        self._owners: dict[str, Ownership] = {}

    @property
    def scripts(self) -> dict[str, Script]:
        """Those of the world: how pods behave, by the digest of their image."""
        return self.world.scripts

    # --- what a test does to it

    def stop_controllers(self, *kinds: type) -> None:
        """Stop the controllers of those classes, or all."""
        self._controllers = tuple(
            controller
            for controller in self._controllers
            if kinds and type(controller) not in kinds
        )

    def forget_field_owners(self) -> None:
        """Forget who owns which fields of all objects."""
        self._owners.clear()

    def step(self, times: int = 1, seconds: float = TICK) -> None:
        """Moves controllers, nodes and the clock that many steps, each of so many seconds."""
        for _ in range(times):
            for controller in self._controllers:
                controller.step()
            self.objects.advance(seconds)

    def seconds(self) -> float:
        """In place of time.monotonic: for how long the cluster has been there."""
        return (self.objects.now - START).total_seconds()

    def sleep(self, seconds: float) -> None:
        """In place of time.sleep: so much of the cluster's time passes at once."""
        steps = min(60, max(1, math.ceil(seconds)))
        self.step(steps, seconds / steps)

    def apply_as(self, item: Object, manager: str) -> Object:
        """Another manager applies those fields of an object and takes them from whoever has them; the object as it is then."""
        live = self.objects.get(item["kind"], item["metadata"]["name"])
        assert live is not None, f"there is no {item['kind']} {item['metadata']['name']}"
        before = deep_copy(live)
        self._owned(live).apply(live, item, manager)
        return self._written(live, before)

    def pod(self, name: str) -> Object:
        """A pod itself, not a copy."""
        found = self.objects.get("Pod", name)
        assert found is not None, f"there is no pod {name}"
        return found

    def lose(self, pod: str) -> None:
        """A pod is removed, as an eviction does it."""
        self.objects.remove(self.pod(pod))

    def crash(self, pod: str, code: int = 137) -> None:
        """The processes of a pod end by themselves."""
        self.kubelet.crash(self.pod(pod), code)

    def answers(self, name: str, kind: str = "Service") -> set[str]:
        """The texts that are answered at a Service, or by a Pod, now."""
        if kind == "Pod":
            return {self.response_text(self.pod(name))} if is_ready(self.pod(name)) else set()
        endpoints = self.objects.get("Endpoints", name) or {}
        addresses = [
            address
            for subset in endpoints.get("subsets", ())
            for address in subset.get("addresses", ())
        ]
        return {self.response_text(self.pod(address["targetRef"]["name"])) for address in addresses}

    def response_text(self, pod: Object) -> str:
        digest = str(pod["spec"]["containers"][0]["image"]).rpartition("@")[2]
        return self.response_texts.get(digest, digest)

    # --- the protocol

    def version(self) -> str:
        return "v1.33.1"

    def require(self) -> None:
        self.find("ConfigMap", ROOT_CA)
        if self.missing:
            raise self._no_namespace()

    def serves(self, kind: str) -> bool:
        return kind in KINDS and kind not in self.unserved

    def apply(
        self, item: Object, *, force: bool = False, require: Callable[[], None] = lambda: None
    ) -> Object:
        require()
        self._asks("patch", item["kind"], item["metadata"]["name"])
        self._makes(item["kind"])
        live = self.objects.get(item["kind"], item["metadata"]["name"])
        changed = deep_copy(live or empty_object(item))
        ownership = self._owned(live).copy()
        if not force and (conflicts := ownership.conflicts(changed, item, MANAGER)):
            raise _conflict(item, conflicts)
        changed["apiVersion"] = item.get("apiVersion", changed["apiVersion"])
        ownership.apply(changed, item, MANAGER)
        self._admit(changed, live)
        before = deep_copy(live)
        live = self._kept(live, changed)
        self._owners[live["metadata"]["uid"]] = ownership
        return self._written(live, before)

    def find(self, kind: str, name: str) -> Object | None:
        self._asks("get", kind, name)
        found = deep_copy(self.objects.get(kind, name))
        self.step()
        return found

    def list(self, kind: str, labels: Mapping[str, str]) -> Items:
        self._asks("list", kind, ",".join(f"{key}={value}" for key, value in labels.items()))
        found = deep_copy(self.objects.find_all(kind, labels))
        self.step()
        return found

    def create(self, item: Object) -> bool:
        self._asks("create", item["kind"], item["metadata"]["name"])
        self._makes(item["kind"])
        if self.objects.get(item["kind"], item["metadata"]["name"]):
            return False
        made = {
            **empty_object(item),
            **{key: value for key, value in deep_copy(item).items() if key != "status"},
        }
        self._admit(made, None)
        self.objects.add(made)
        self._owned(made).update({}, item, MANAGER)
        self._written(made, None)
        return True

    def replace(self, item: Object) -> bool:
        self._asks("update", item["kind"], item["metadata"]["name"])
        live = self.objects.get(item["kind"], item["metadata"]["name"])
        version = live["metadata"]["resourceVersion"] if live else ""
        if live is None or item["metadata"].get("resourceVersion", version) != version:
            return False
        before = deep_copy(live)
        after = deep_copy(item)
        after["metadata"] |= {
            key: before["metadata"][key] for key in _GIVEN if key in before["metadata"]
        }
        if item["kind"] not in WITHOUT_STATUS:
            after["status"] = before["status"]
        self._admit(after, before)
        self._kept(live, after)
        self._owned(live).update(before, live, MANAGER)
        self._written(live, before)
        return True

    def delete(self, kind: str, name: str, *, require: Callable[[], None] = lambda: None) -> None:
        require()
        self._asks("delete", kind, name)
        endpoints = self.objects.get("Endpoints", name) if kind == "Service" else None
        for found in (self.objects.get(kind, name), endpoints):
            if found:
                self.objects.remove(found)

    def events(self, name: str) -> Items:
        self._asks("list", "Event", name)
        found = [
            event
            for event in self.objects.find_all("Event")
            if event["involvedObject"]["name"] == name
        ]
        told = deep_copy(sorted(found, key=event_time))
        self.step()
        return told

    def log(self, pod: str, lines: int) -> str:
        self._asks("get", "Pod/log", pod)
        found = self.objects.get("Pod", pod)
        return (
            "".join(f"{line}\n" for line in self.kubelet.log_lines(found)[-lines:]) if found else ""
        )

    def may(self, verb: str, kind: str, part: str = "") -> bool:
        return (verb, f"{kind}/{part}" if part else kind) not in self.forbidden

    def endpoint(self, kind: str, name: str, port: int) -> Endpoint:
        return Endpoint(url=f"http://fake/{kind.lower()}s/{name}:{port}")

    # --- the API server

    def _asks(self, verb: str, kind: str, name: str) -> None:
        """Fails a request, or refuses it, if a test wants that."""
        self.requests.append((verb, kind, name))
        scripted = self.failures.get((verb, kind), [])
        if scripted and (error := scripted.pop(0)):
            raise error
        if (verb, kind) in self.forbidden:
            on = f"{kind} {name} in namespace {self.namespace}"
            raise ClusterForbidden(
                f"this account may not {verb} {kind}",
                on=on,
                next="add the rule",
                detail=f"  {verb} {kind}",
            )

    def _makes(self, kind: str) -> None:
        """Refuses what cannot be made here."""
        if not self.serves(kind):
            raise ClusterRefused(
                "the API server does not know this kind of object", on=kind, next="leave it out"
            )
        if self.missing:
            raise self._no_namespace()

    def _no_namespace(self) -> NamespaceMissing:
        return NamespaceMissing(
            f"there is no namespace {self.namespace}", on=self.name, next="make it, or name another"
        )

    def _admit(self, item: Object, before: Object | None) -> None:
        set_defaults(item, self.objects)
        if why := validation_error(item, before):
            on = f"{item['kind']} {item['metadata']['name']}"
            raise ClusterRefused(
                "the API server refused it (422 Invalid)",
                on=on,
                next="mend the manifest",
                detail=f"  {why}",
            )

    def _kept(self, live: Object | None, changed: Object) -> Object:
        """The object that is held, as it shall be from now on."""
        if live is None:
            return self.objects.add(changed)
        live.clear()
        live.update(changed)
        return live

    def _owned(self, item: Object | None) -> Ownership:
        return (
            self._owners.setdefault(item["metadata"]["uid"], Ownership()) if item else Ownership()
        )

    def _written(self, live: Object, before: Object | None) -> Object:
        """Notes what a write has changed; the object as it is then."""
        live["metadata"]["managedFields"] = self._owned(live).managed_fields(live["apiVersion"])
        if before and before != live:
            wanted = [
                (item.get("spec"), item["metadata"].get("annotations")) for item in (before, live)
            ]
            if "generation" in live["metadata"] and (
                wanted[0][0] != wanted[1][0]
                or (live["kind"] == "Deployment" and wanted[0] != wanted[1])
            ):
                live["metadata"]["generation"] += 1
            self.objects.touch(live)
        return deep_copy(live)


def _conflict(item: Object, owners: Mapping[str, str]) -> FieldConflict:
    what = f"{', '.join(dict.fromkeys(owners.values()))} owns what is set"
    on = f"{item['kind']} {item['metadata']['name']}"
    detail = "\n".join(f"  {path}: {owner}" for path, owner in owners.items())
    error = FieldConflict(what, on=on, next="leave it to them, or take it over", detail=detail)
    error.owners = owners
    return error
