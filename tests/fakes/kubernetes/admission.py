"""What an API server does before it stores an object: it sets defaults and validates."""

from __future__ import annotations

import re
from typing import Any

from deploy.clients.kubernetes.protocol import KINDS, Object
from tests.fakes.kubernetes.objects import Objects, has_labels

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
WITHOUT_STATUS = frozenset(
    {"ConfigMap", "EndpointSlice", "Endpoints", "Event", "Lease", "Secret", "ServiceAccount"}
)


def empty_object(item: Object) -> Object:
    """Return an empty object of that kind and name."""
    kind = item["kind"]
    created: Object = {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {"name": item["metadata"]["name"]},
    }
    if kind == "Pod":
        created["status"] = {"phase": "Pending"}
    elif kind == "DaemonSet":
        created["status"] = {
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        }
    elif kind not in WITHOUT_STATUS:
        created["status"] = {}
    return created


def set_defaults(item: Object, objects: Objects) -> None:
    """Set the defaults, which no manager owns."""
    spec = item.get("spec", {})
    if item["kind"] == "Deployment":
        _set_defaults_of_deployment(spec)
    if item["kind"] == "Service":
        _set_defaults_of_service(spec, objects)


def _set_defaults_of_deployment(spec: Object) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")


def _set_defaults_of_service(spec: Object, objects: Objects) -> None:
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
    """Return why an object is invalid; empty if it is valid."""
    metadata = item["metadata"]
    if item["apiVersion"] != KINDS[item["kind"]].api_version:
        return f'no matches for kind "{item["kind"]}" in version "{item["apiVersion"]}"'
    if not NAME.fullmatch(metadata["name"]):
        return f'metadata.name: Invalid value: "{metadata["name"]}": a lowercase RFC 1123 subdomain'
    if before and before.get("immutable") and before.get("data") != item.get("data"):
        return "data: Forbidden: field is immutable when `immutable` is set"
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
            rule = "at most 63 letters, digits, '-', '_' or '.'"
            return f"metadata.labels: Invalid value: {wrong!r}: {rule}"
    if item["kind"] in {"Deployment", "DaemonSet", "ReplicaSet"}:
        return _invalid_pods(item["spec"], before)
    return ""


def _invalid_pods(spec: Any, before: Object | None) -> str:
    if "selector" not in spec or "template" not in spec:
        return "spec.selector, spec.template: Required value"
    if not has_labels(spec["template"], spec["selector"].get("matchLabels", {})):
        return (
            "spec.template.metadata.labels: Invalid value: "
            "`selector` does not match template `labels`"
        )
    if before and before["spec"]["selector"] != spec["selector"]:
        return "spec.selector: Invalid value: field is immutable"
    strategy = spec.get("strategy", {})
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        return (
            "spec.strategy.rollingUpdate: Forbidden: "
            "may not be specified when strategy `type` is 'Recreate'"
        )
    return ""
