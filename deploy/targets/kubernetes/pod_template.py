"""The settings of a pod: what a release fills in in the pod specification of a template."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from deploy.clients.kubernetes.protocol import Object
from deploy.records import Release
from deploy.settings.app import App
from deploy.settings.environments import Kubernetes, Resources
from deploy.targets.kubernetes.templates import app_container, ensure_mapping


def fill_pod(pod: Object, env: Kubernetes, labels: Mapping[str, str]) -> None:
    """Set the times, the spreading, the priority and the pull secret of a pod specification."""
    pod["terminationGracePeriodSeconds"] = ceil(env.drain_within) + _stop_delay(app_container(pod))
    _spread(pod, env, labels)
    if env.priority_class:
        pod["priorityClassName"] = env.priority_class
    add_pull_secret(pod, env)


def _spread(pod: Object, env: Kubernetes, labels: Mapping[str, str]) -> None:
    """Spread the replicas over the keys of the settings that the template does not have."""
    spreads: list[Object] = pod.get("topologySpreadConstraints", [])
    known = {spread.get("topologyKey") for spread in spreads}
    spreads += [
        {
            "maxSkew": 1,
            "topologyKey": key,
            # The failure of one zone must not stop all replicas, and one zone must do.
            "whenUnsatisfiable": "ScheduleAnyway",
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in dict.fromkeys(env.topology_keys)
        if key not in known
    ]
    for spread in spreads:
        ensure_mapping(spread, "labelSelector", "matchLabels").update(labels)
    if spreads:
        pod["topologySpreadConstraints"] = spreads


def add_pull_secret(pod: Object, env: Kubernetes) -> None:
    """Add the pull secret of the settings to a pod specification, if there is one."""
    secret = {"name": env.pull_secret}
    existing = pod.get("imagePullSecrets", [])
    if env.pull_secret and secret not in existing:
        pod["imagePullSecrets"] = [*existing, secret]


def fill_container(container: Object, app: App, env: Kubernetes, release: Release) -> None:
    """Set the image, the port, the resources and the probes of the application's container."""
    container["image"] = release.reference
    _port(container)["containerPort"] = app.port
    _set_resources(container, env.resources)
    for probe in (container.get("startupProbe", {}), container.get("readinessProbe", {})):
        if "httpGet" in probe:
            probe["httpGet"]["path"] = app.ready
    if startup := container.get("startupProbe"):
        # The rollout must fail first, with a reason; the kubelet would only restart the container.
        startup["failureThreshold"] = (
            ceil(2 * env.ready_within / (startup.get("periodSeconds") or 10)) + 5
        )


def _set_resources(container: Object, resources: Resources) -> None:
    both = {"memory": resources.memory}
    if resources.ephemeral_storage:
        both["ephemeral-storage"] = resources.ephemeral_storage
    ensure_mapping(container, "resources", "requests").update(both | {"cpu": resources.cpu})
    limits = ensure_mapping(container, "resources", "limits")
    limits.update(both | {"cpu": resources.cpu_limit})
    if not resources.cpu_limit:
        del limits["cpu"]


def _port(container: Object) -> Object:
    """Return the container port to which the Service sends requests; create it if missing."""
    ports: list[Object] = container.setdefault("ports", [])
    for port in ports:
        if port.get("name") == "http":
            return port
    ports.append({"name": "http", "protocol": "TCP"})
    return ports[-1]


def _stop_delay(container: Object) -> int:
    """Return how many seconds a container goes on before it is stopped."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    seconds: int = hook.get("sleep", {}).get("seconds", 0)
    command = hook.get("exec", {}).get("command", [])
    argument = command[1] if command[:1] == ["sleep"] and len(command) == 2 else ""
    return int(argument) if argument.isdecimal() else seconds
