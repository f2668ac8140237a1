"""Whether a pod fits a namespace of the level `restricted`.

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
    """The controls that the pod breaks, each with the container or volume that does."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [
        f"volume {volume['name']}" for volume in pod.get("volumes", []) if volume.keys() - _VOLUMES
    ]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        found += [
            f"{container['name']}: {control}"
            for control in _broken(pod.get("securityContext", {}), container)
        ]
    return found


def _broken(of_pod: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = {**of_pod, **own}
    capabilities = own.get("capabilities", {})
    controls = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot": context.get("runAsNonRoot") is True,
        "runAsUser": context.get("runAsUser") != 0,
        "seccompProfile": context.get("seccompProfile", {}).get("type")
        in ("RuntimeDefault", "Localhost"),
        "capabilities": "ALL" in capabilities.get("drop", [])
        and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
    }
    yield from (control for control, kept in controls.items() if not kept)
