"""A cluster in memory: one namespace of an API server, with controllers and nodes.

They move a step with each read. The behaviour was compared with that of a Kubernetes v1.20 cluster.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Protocol

from deploy.clients.http import Endpoint
from deploy.clients.kubernetes.protocol import FIELD_MANAGER, KINDS, ROOT_CA, Object
from deploy.clients.kubernetes.protocol import Objects as Items
from deploy.clients.log_lines import TimedLine
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
"""The seconds that a read takes."""
_SERVER_FIELDS = (
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "managedFields",
    "namespace",
)


def node(architecture: str, **labels: str) -> Object:
    """Return a node with that processor and those labels."""
    own = {"kubernetes.io/os": "linux", "kubernetes.io/arch": architecture}
    return {"metadata": {"name": f"node-{architecture}", "labels": own | labels}, "spec": {}}


class Controller(Protocol):
    """What moves some objects."""

    def step(self) -> None:
        """Move them a step."""


class FakeCluster:
    """A namespace in memory. Each read returns the present state and then moves the cluster a step.

    Attributes:
        world: the scripts of images, the nodes, the quotas and the addresses.
        response_texts: what pods answer, by the digest of their image; others answer the digest.
        missing: whether the namespace does not exist.
        unserved: kinds that the API server does not know.
        forbidden: what this account may not do, as (verb, kind); for a subresource as
            (verb, "Pod/log").
        failures: errors to be raised by the next calls, by (verb, kind); None lets a call pass.
            The verbs are those of a role: get, list, create, patch, update, delete.
        node_list: the nodes that this account reads; None if it may not.
        requests: the requests to the API server, as (verb, kind, name or labels).
        server_version: the version of the API server.
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
        self.server_version = "v1.33.1"
        self.unserved: set[str] = set()
        self.forbidden: set[tuple[str, str]] = set()
        self.failures: dict[tuple[str, str], list[Exception | None]] = {}
        self.node_list: Items | None = [node("amd64")]
        self.requests: list[tuple[str, str, str]] = []
        self.clock = Clock(self.seconds, self.sleep, self.seconds, lambda: self.objects.now)
        self._owners: dict[str, Ownership] = {}

    @property
    def scripts(self) -> dict[str, Script]:
        """The scripts of pods, by the digest of their image."""
        return self.world.scripts

    # --- for tests

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
        """Move controllers, nodes and the clock some steps, each of so many seconds."""
        for _ in range(times):
            for controller in self._controllers:
                controller.step()
            self.objects.advance(seconds)

    def seconds(self) -> float:
        """Return the age of the cluster, in place of time.monotonic."""
        return (self.objects.now - START).total_seconds()

    def sleep(self, seconds: float) -> None:
        """Let the cluster's time pass at once, in place of time.sleep."""
        steps = min(60, max(1, math.ceil(seconds)))
        self.step(steps, seconds / steps)

    def apply_as(self, item: Object, manager: str) -> Object:
        """Apply fields of an object as another manager, by force; return the object."""
        live = self.objects.get(item["kind"], item["metadata"]["name"])
        assert live is not None, f"there is no {item['kind']} {item['metadata']['name']}"
        before = deep_copy(live)
        self._ownership(live).apply(live, item, manager)
        return self._finish_write(live, before)

    def pod(self, name: str) -> Object:
        """Return a pod itself, not a copy."""
        found = self.objects.get("Pod", name)
        assert found is not None, f"there is no pod {name}"
        return found

    def lose(self, pod: str) -> None:
        """Remove a pod, as an eviction does."""
        self.objects.remove(self.pod(pod))

    def crash(self, pod: str, code: int = 137) -> None:
        """Let the processes of a pod end."""
        self.kubelet.crash(self.pod(pod), code)

    def answers(self, name: str, kind: str = "Service") -> set[str]:
        """Return the texts that a Service or a Pod answers now."""
        if kind == "Pod":
            return {self.response_text(self.pod(name))} if is_ready(self.pod(name)) else set()
        slices = self.objects.find_all("EndpointSlice", {"kubernetes.io/service-name": name})
        endpoints = [endpoint for item in slices for endpoint in item.get("endpoints", ())]
        return {
            self.response_text(self.pod(endpoint["targetRef"]["name"]))
            for endpoint in endpoints
            if endpoint["conditions"]["ready"]
        }

    def response_text(self, pod: Object) -> str:
        digest = str(pod["spec"]["containers"][0]["image"]).rpartition("@")[2]
        return self.response_texts.get(digest, digest)

    def environment(self, pod: Object) -> dict[str, str]:
        """Return the variables of a pod's first container, as its process has them."""
        return {
            entry["name"]: self._value(entry)
            for entry in pod["spec"]["containers"][0].get("env", ())
        }

    def _value(self, entry: Object) -> str:
        if "value" in entry:
            return str(entry["value"]).replace("$$", "$")
        named = entry["valueFrom"]["secretKeyRef"]
        secret = self.objects.get("Secret", named["name"]) or {}
        return base64.b64decode(secret["data"][named["key"]]).decode()

    # --- the protocol

    def version(self) -> str:
        return self.server_version

    def require_access(self) -> None:
        self.find("ConfigMap", ROOT_CA)
        if self.missing:
            raise self._no_namespace()

    def serves(self, kind: str) -> bool:
        return kind in KINDS and kind not in self.unserved

    def apply(
        self, item: Object, *, force: bool = False, require: Callable[[], None] = lambda: None
    ) -> Object:
        require()
        self._request("patch", item["kind"], item["metadata"]["name"])
        self._require_creatable(item["kind"])
        live = self.objects.get(item["kind"], item["metadata"]["name"])
        changed = deep_copy(live or empty_object(item))
        ownership = self._ownership(live).copy()
        if not force and (conflicts := ownership.conflicts(changed, item, FIELD_MANAGER)):
            raise _conflict(item, conflicts)
        changed["apiVersion"] = item.get("apiVersion", changed["apiVersion"])
        ownership.apply(changed, item, FIELD_MANAGER)
        self._admit(changed, live)
        before = deep_copy(live)
        live = self._store(live, changed)
        self._owners[live["metadata"]["uid"]] = ownership
        return self._finish_write(live, before)

    def find(self, kind: str, name: str) -> Object | None:
        self._request("get", kind, name)
        found = deep_copy(self.objects.get(kind, name))
        self.step()
        return found

    def list(self, kind: str, labels: Mapping[str, str]) -> Items:
        self._request("list", kind, ",".join(f"{key}={value}" for key, value in labels.items()))
        found = deep_copy(self.objects.find_all(kind, labels))
        self.step()
        return found

    def create(self, item: Object) -> bool:
        self._request("create", item["kind"], item["metadata"]["name"])
        self._require_creatable(item["kind"])
        if self.objects.get(item["kind"], item["metadata"]["name"]):
            return False
        created = {
            **empty_object(item),
            **{key: value for key, value in deep_copy(item).items() if key != "status"},
        }
        self._admit(created, None)
        self.objects.add(created)
        self._ownership(created).update({}, item, FIELD_MANAGER)
        self._finish_write(created, None)
        return True

    def replace(self, item: Object) -> bool:
        self._request("update", item["kind"], item["metadata"]["name"])
        live = self.objects.get(item["kind"], item["metadata"]["name"])
        version = live["metadata"]["resourceVersion"] if live else ""
        if live is None or item["metadata"].get("resourceVersion", version) != version:
            return False
        before = deep_copy(live)
        after = deep_copy(item)
        after["metadata"] |= {
            key: before["metadata"][key] for key in _SERVER_FIELDS if key in before["metadata"]
        }
        if item["kind"] not in WITHOUT_STATUS:
            after["status"] = before["status"]
        self._admit(after, before)
        self._store(live, after)
        self._ownership(live).update(before, live, FIELD_MANAGER)
        self._finish_write(live, before)
        return True

    def delete(self, kind: str, name: str, *, require: Callable[[], None] = lambda: None) -> None:
        require()
        self._request("delete", kind, name)
        endpoints = self.objects.get("Endpoints", name) if kind == "Service" else None
        for found in (self.objects.get(kind, name), endpoints):
            if found:
                self.objects.remove(found)

    def events(self, name: str) -> Items:
        self._request("list", "Event", name)
        found = [
            event
            for event in self.objects.find_all("Event")
            if event["involvedObject"]["name"] == name
        ]
        events = deep_copy(sorted(found, key=event_time))
        self.step()
        return events

    def log(self, pod: str, lines: int) -> str:
        self._request("get", "Pod/log", pod)
        found = self.objects.get("Pod", pod)
        return (
            "".join(f"{line}\n" for line in self.kubelet.log_lines(found)[-lines:]) if found else ""
        )

    def read_log(
        self, pod: str, since: datetime | None = None, lines: int | None = None
    ) -> Iterator[TimedLine]:
        self._request("get", "Pod/log", pod)
        found = self.objects.get("Pod", pod)
        first = since.replace(microsecond=0) if since else None
        logged = self.kubelet.timed_lines(found, lines) if found else []
        yield from [line for line in logged if first is None or line[0] >= first]

    def nodes(self) -> Items | None:
        self._request("list", "Node", "")
        return deep_copy(self.node_list)

    def is_allowed(self, verb: str, kind: str, subresource: str = "") -> bool:
        return (verb, f"{kind}/{subresource}" if subresource else kind) not in self.forbidden

    def endpoint(self, kind: str, name: str, port: int) -> Endpoint:
        return Endpoint(url=f"http://fake/{kind.lower()}s/{name}:{port}")

    # --- the API server

    def _request(self, verb: str, kind: str, name: str) -> None:
        """Record a request; let it fail, or forbid it, if a test wants that."""
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

    def _require_creatable(self, kind: str) -> None:
        """Refuse what cannot be created here."""
        if not self.serves(kind):
            raise ClusterRefused(
                "the API server does not know this kind of object", on=kind, next="leave it out"
            )
        if self.missing:
            raise self._no_namespace()

    def _no_namespace(self) -> NamespaceMissing:
        return NamespaceMissing(
            f"there is no namespace {self.namespace}",
            on=self.name,
            next="create it, or name another",
        )

    def _admit(self, item: Object, before: Object | None) -> None:
        set_defaults(item, self.objects)
        if why := validation_error(item, before):
            on = f"{item['kind']} {item['metadata']['name']}"
            raise ClusterRefused(
                f"the API server refused the request (422 Invalid): {why}",
                on=on,
                next="fix the template",
            )

    def _store(self, live: Object | None, changed: Object) -> Object:
        """Store an object and return the stored one."""
        if live is None:
            return self.objects.add(changed)
        live.clear()
        live.update(changed)
        return live

    def _ownership(self, item: Object | None) -> Ownership:
        return (
            self._owners.setdefault(item["metadata"]["uid"], Ownership()) if item else Ownership()
        )

    def _finish_write(self, live: Object, before: Object | None) -> Object:
        """Update versions and field owners after a write; return a copy of the object."""
        live["metadata"]["managedFields"] = self._ownership(live).managed_fields(live["apiVersion"])
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
