"""The controllers of a cluster in memory, which create pods a step at a time."""

from __future__ import annotations

import functools
import hashlib
import json
import marshal

from deploy.clients.kubernetes.protocol import Object
from tests.fakes.kubernetes.objects import Objects, deep_copy, is_terminating
from tests.fakes.kubernetes.pods import is_ready, pinned_node


def template_hash(template: Object) -> str:
    """Return a hash of a pod template."""
    return _hash_of_bytes(marshal.dumps(template, 2))


@functools.lru_cache
def _hash_of_bytes(template: bytes) -> str:
    """Return the hash of a template that is in marshal's form, whose order may differ."""
    text = json.dumps(marshal.loads(template), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class ReplicaSets:
    """A controller of ReplicaSets."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def step(self) -> None:
        """Create and remove pods, and count them."""
        for item in self.objects.find_all("ReplicaSet"):
            pods = self.active(item)
            missing = item["spec"]["replicas"] - len(pods)
            refused = next(filter(None, (self._make(item) for _ in range(missing))), "")
            for pod in sorted(pods, key=_rank)[: max(0, -missing)]:
                self.objects.event(
                    item, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}"
                )
                self.objects.remove(pod)
            self._count(item, refused)

    def active(self, item: Object) -> list[Object]:
        """Return the active pods of a ReplicaSet."""
        return [
            pod
            for pod in self.objects.owned_by("Pod", item)
            if not is_terminating(pod) and pod["status"]["phase"] not in {"Failed", "Succeeded"}
        ]

    def _make(self, item: Object) -> str:
        """Create a pod; return why it may not be created, if so."""
        quota = self.objects.world.quota
        used = len(self.objects.find_all("Pod"))
        name = f"{item['metadata']['name']}-{_suffix(self.objects.number())}"
        if quota is not None and used >= quota:
            of = f"requested: pods=1, used: pods={used}, limited: pods={quota}"
            reason = f'pods "{name}" is forbidden: exceeded quota: pods, {of}'
            self.objects.event(item, "FailedCreate", f"Error creating: {reason}", "Warning")
            return reason
        make_pod(self.objects, name, item)
        self.objects.event(item, "SuccessfulCreate", f"Created pod: {name}")
        return ""

    def _count(self, item: Object, refused: str) -> None:
        pods = self.active(item)
        min_ready_seconds = item["spec"].get("minReadySeconds", 0)
        ready = [pod for pod in pods if is_ready(pod)]
        available = [
            pod for pod in ready if self.objects.since(_ready_since(pod)) >= min_ready_seconds
        ]
        counts = {
            "fullyLabeledReplicas": len(pods),
            "readyReplicas": len(ready),
            "availableReplicas": len(available),
        }
        status: Object = {key: value for key, value in counts.items() if value}
        if refused:
            condition = {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": "FailedCreate",
                "message": refused,
            }
            status["conditions"] = [condition | {"lastTransitionTime": self.objects.time}]
        self.objects.change(
            item,
            "status",
            {"replicas": len(pods), "observedGeneration": item["metadata"]["generation"], **status},
        )


def make_pod(objects: Objects, name: str, owner: Object) -> Object:
    """Create a pod from its owner's template."""
    template = deep_copy(owner["spec"]["template"])
    return objects.make(
        "Pod",
        name,
        owner,
        {"spec": template["spec"], "status": {"phase": "Pending"}},
        **template.get("metadata", {}),
    )


def _suffix(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:5]


def _rank(pod: Object) -> tuple[bool, bool, bool]:
    """Return the rank of a pod: those without a node are removed first, then pending ones."""
    return ("nodeName" in pod["spec"], pod["status"]["phase"] == "Running", is_ready(pod))


def _ready_since(pod: Object) -> str:
    return next(
        str(one["lastTransitionTime"])
        for one in pod["status"]["conditions"]
        if one["type"] == "Ready"
    )


class DaemonSets:
    """A controller of DaemonSets."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def step(self) -> None:
        """Create missing pods, and replace those of an old template one by one."""
        for item in self.objects.find_all("DaemonSet"):
            pods = [pod for pod in self.objects.owned_by("Pod", item) if not is_terminating(pod)]
            for node in self.objects.world.nodes:
                if node not in map(pinned_node, pods):
                    pods.append(self._make(item, node))
            mark = template_hash(item["spec"]["template"])
            old = [
                pod for pod in pods if pod["metadata"]["labels"]["controller-revision-hash"] != mark
            ]
            if old and all(is_ready(pod) for pod in pods if pod not in old):
                self.objects.remove(old[0])
                pods.remove(old.pop(0))
            self._count(item, pods, len(old))

    def _make(self, item: Object, node: str) -> Object:
        name = f"{item['metadata']['name']}-{_suffix(self.objects.number())}"
        pod = make_pod(self.objects, name, item)
        pod["metadata"].setdefault("labels", {})["controller-revision-hash"] = template_hash(
            item["spec"]["template"]
        )
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
        pod["spec"].setdefault("affinity", {})["nodeAffinity"] = required
        self.objects.event(item, "SuccessfulCreate", f"Created pod: {name}")
        return pod

    def _count(self, item: Object, pods: list[Object], old: int) -> None:
        ready = sum(is_ready(pod) for pod in pods)
        wanted = len(self.objects.world.nodes)
        counts = {
            "updatedNumberScheduled": len(pods) - old,
            "numberAvailable": ready,
            "numberUnavailable": wanted - ready,
        }
        status = {
            "observedGeneration": item["metadata"]["generation"],
            "desiredNumberScheduled": wanted,
            "numberMisscheduled": 0,
        }
        status |= {"currentNumberScheduled": len(pods), "numberReady": ready}
        self.objects.change(
            item, "status", status | {key: value for key, value in counts.items() if value}
        )


class Services:
    """A controller of Services, EndpointSlices, Endpoints and load balancers."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def step(self) -> None:
        """Update the endpoints and the addresses."""
        for item in self.objects.find_all("Service"):
            self._list(item)
            if item["spec"].get("type") == "LoadBalancer":
                self._assign_address(item)
        for item in self.objects.find_all("Ingress"):
            self._assign_address(item)

    def _assign_address(self, item: Object) -> None:
        given = self.objects.world.addresses.get(item["metadata"]["name"])
        key = "ip" if given and given.replace(".", "").isdigit() else "hostname"
        self.objects.change(
            item, "status", {"loadBalancer": {"ingress": [{key: given}]} if given else {}}
        )

    def _list(self, item: Object) -> None:
        spec = item["spec"]
        if not spec.get("selector"):
            return
        pods = [
            pod
            for pod in self.objects.find_all("Pod", spec["selector"])
            if not is_terminating(pod) and "podIP" in pod["status"]
        ]
        self._write_slice(item, pods)
        if self.objects.world.writes_endpoints:
            self._write_endpoints(item, pods)

    def _write_slice(self, item: Object, pods: list[Object]) -> None:
        service = item["metadata"]["name"]
        name = f"{service}-{hashlib.sha256(service.encode()).hexdigest()[:5]}"
        found = self.objects.get("EndpointSlice", name) or self.objects.make(
            "EndpointSlice",
            name,
            item,
            {"addressType": "IPv4"},
            labels={"kubernetes.io/service-name": service},
        )
        endpoints = [
            {
                "addresses": [pod["status"]["podIP"]],
                "conditions": {"ready": is_ready(pod)},
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": self._reference(pod),
            }
            for pod in pods
        ]
        self.objects.change(found, "endpoints", endpoints)

    def _write_endpoints(self, item: Object, pods: list[Object]) -> None:
        name = item["metadata"]["name"]
        endpoints = self.objects.get("Endpoints", name)
        if endpoints is None:
            labels = dict(item["metadata"].get("labels", {}))
            endpoints = self.objects.add(
                {"kind": "Endpoints", "metadata": {"name": name, "labels": labels}}
            )
        self.objects.change(endpoints, "subsets", self._subsets(item["spec"], pods))

    def _reference(self, pod: Object) -> Object:
        return {
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "namespace": self.objects.namespace,
            "uid": pod["metadata"]["uid"],
        }

    def _subsets(self, spec: Object, pods: list[Object]) -> list[Object]:
        by_ports: dict[str, Object] = {}
        for pod in pods:
            ports = [_target(port, pod) for port in spec.get("ports", ())]
            subset = by_ports.setdefault(json.dumps(ports), {"ports": ports})
            address = {
                "ip": pod["status"]["podIP"],
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": self._reference(pod),
            }
            subset.setdefault("addresses" if is_ready(pod) else "notReadyAddresses", []).append(
                address
            )
        return list(by_ports.values())


def _target(port: Object, pod: Object) -> Object:
    """Return the port of a pod to which a port of a Service sends requests."""
    target = port.get("targetPort", port["port"])
    named = {
        one.get("name"): one["containerPort"]
        for run in pod["spec"]["containers"]
        for one in run.get("ports", ())
    }
    number = named.get(target, 0) if isinstance(target, str) else target
    name = {"name": port["name"]} if "name" in port else {}
    return {**name, "port": number, "protocol": port.get("protocol", "TCP")}
