"""The rules for pods in a namespace of the level `restricted`.

Source: Kubernetes documentation, "Pod Security Standards", policies Baseline and Restricted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_VOLUMES = {
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(pod: Mapping[str, Any]) -> list[str]:
    """Return the controls that a pod violates, each with the container or volume."""
    violated = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    violated += [
        f"volume {volume['name']}" for volume in pod.get("volumes", []) if volume.keys() - _VOLUMES
    ]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        violated += [
            f"{container['name']}: {control}"
            for control in _violated(pod.get("securityContext", {}), container)
        ]
    return violated


def _violated(pod_context: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[str]:
    own_context = container.get("securityContext", {})
    context = {**pod_context, **own_context}
    capabilities = own_context.get("capabilities", {})
    controls = {
        "privileged": not own_context.get("privileged"),
        "allowPrivilegeEscalation": own_context.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot": context.get("runAsNonRoot") is True,
        "runAsUser": context.get("runAsUser") != 0,
        "seccompProfile": context.get("seccompProfile", {}).get("type")
        in ("RuntimeDefault", "Localhost"),
        "capabilities": "ALL" in capabilities.get("drop", [])
        and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
    }
    yield from (control for control, is_met in controls.items() if not is_met)
