"""What an API server does to an object before it keeps it: fills in what was not given, and refuses what is invalid."""

from __future__ import annotations

import re
from typing import Any

from deploy.clients.kubernetes.protocol import KINDS, Object
from tests.fakes.kubernetes.objects import Objects, has_labels

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
WITHOUT_STATUS = frozenset({"ConfigMap", "Endpoints", "Event", "Lease", "ServiceAccount"})


def empty_object(item: Object) -> Object:
    """An object of that kind and name as it is before anything was said about it."""
    kind = item["kind"]
    made: Object = {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {"name": item["metadata"]["name"]},
    }
    if kind == "Pod":
        made["status"] = {"phase": "Pending"}
    elif kind == "DaemonSet":
        made["status"] = {
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        }
    elif kind not in WITHOUT_STATUS:
        made["status"] = {}
    return made


def set_defaults(item: Object, objects: Objects) -> None:
    """Fills in what was not given; nobody owns that."""
    spec = item.get("spec", {})
    if item["kind"] == "Deployment":
        _fill_deployment(spec)
    if item["kind"] == "Service":
        _fill_service(spec, objects)


def _fill_deployment(spec: Object) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")


def _fill_service(spec: Object, objects: Objects) -> None:
    kind = spec.setdefault("type", "ClusterIP")
    number = objects.number()
    spec.setdefault("clusterIP", f"10.96.{number // 250}.{number % 250 + 1}")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
        if kind == "ClusterIP":
            port.pop("nodePort", None)
        else:
            port.setdefault("nodePort", 30000 + objects.number() % 2768)


def validation_error(item: Object, before: Object | None) -> str:
    """Why an object cannot be kept; empty if it can."""
    metadata = item["metadata"]
    if item["apiVersion"] != KINDS[item["kind"]].api_version:
        return f'no matches for kind "{item["kind"]}" in version "{item["apiVersion"]}"'
    if not NAME.fullmatch(metadata["name"]):
        return f'metadata.name: Invalid value: "{metadata["name"]}": a lowercase RFC 1123 subdomain'
    template = item.get("spec", {}).get("template", {}).get("metadata", {})
    for labels in (metadata.get("labels", {}), template.get("labels", {})):
        wrong = next(
            (
                value
                for value in labels.values()
                if not isinstance(value, str) or not LABEL.fullmatch(value)
            ),
            None,
        )
        if wrong is not None:
            return f"metadata.labels: Invalid value: {wrong!r}: at most 63 letters, digits, '-', '_' or '.'"
    if item["kind"] in {"Deployment", "DaemonSet", "ReplicaSet"}:
        return _invalid_pods(item["spec"], before)
    return ""


def _invalid_pods(spec: Any, before: Object | None) -> str:
    if "selector" not in spec or "template" not in spec:
        return "spec.selector, spec.template: Required value"
    if not has_labels(spec["template"], spec["selector"].get("matchLabels", {})):
        return "spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`"
    if before and before["spec"]["selector"] != spec["selector"]:
        return "spec.selector: Invalid value: field is immutable"
    strategy = spec.get("strategy", {})
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        return "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
    return ""
