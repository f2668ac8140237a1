"""Renderings of an environment, and folders of object templates that a user has edited."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from deploy.clients.kubernetes.protocol import Object
from deploy.records import Attempt, Release
from deploy.settings.app import App
from deploy.settings.environments import Kubernetes
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.render import TRACKS, Rendering

APP = App(name="classifier", port=9000, ready="/ready")


def environment(**keys: Any) -> Kubernetes:
    """Return the settings of an environment on a cluster, with those keys of its table."""
    return Kubernetes.model_validate({"target": "kubernetes", "namespace": "models", **keys})


ALL_SETTINGS: dict[str, Any] = {
    "host": "classifier.example",
    "ingress_class": "nginx",
    "tls_secret": "classifier-tls",
    "autoscale": {"at_most": 5, "cpu": 70},
    "pull_secret": "registry-login",
    "service": "LoadBalancer",
    "dns_label": "classifier",
    "resources": {
        "cpu": "1500m",
        "memory": "2Gi",
        "cpu_limit": "4",
        "ephemeral_storage": "1Gi",
    },
    "min_ready_seconds": 5,
    "priority_class": "serving",
    "topology_keys": ["topology.kubernetes.io/zone"],
}
"""Settings with which every object is rendered, with all its optional parts."""


def rendering(
    folder: Path | None = None, name: str = "staging", app: App = APP, **keys: Any
) -> Rendering:
    """Return the rendering of an environment, from the suite's or other object templates."""
    env = environment(**keys, **({"manifests": folder.name} if folder else {}))
    return Rendering.read(app, name, env, folder.parent if folder else Path("nowhere"))


def all_objects(
    rendered: Rendering, release: Release, attempt: Attempt | None = None
) -> list[Object]:
    """Return all objects that an environment can have, on each track and with a canary on hold."""
    deployments = [
        rendered.deployment(release, track, rendered.env.replicas, attempt, 600) for track in TRACKS
    ]
    services = [rendered.service(track, both=both) for track in TRACKS for both in (False, True)]
    items = [
        rendered.service_account(),
        *deployments,
        *services,
        rendered.ingress(),
        *map(rendered.autoscaler, TRACKS),
        rendered.disruption_budget(),
        rendered.prepull(release),
    ]
    return [item for item in items if item]


def edit_templates(tmp_path: Path, file: str = "", **changes: Any) -> Path:
    """Return a copy of the suite's templates with other values in a file: `spec__replicas=3`."""
    folder = tmp_path / "manifests"
    if not folder.exists():
        shutil.copytree(templates.DEFAULT_FOLDER, folder)
    if file:
        item = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
        for path, value in changes.items():
            *above, key = path.split("__")
            _at(item, above)[key] = value
        (folder / file).write_text(yaml.safe_dump(item, sort_keys=False), encoding="utf-8")
    return folder


def _at(item: Any, path: list[str]) -> Any:
    for key in path:
        item = item[int(key)] if isinstance(item, list) else item.setdefault(key, {})
    return item


def pod_spec(item: Object) -> Object:
    """Return the pod specification in an object."""
    found: Object = item["spec"]["template"]["spec"]
    return found


def app_container(item: Object) -> Object:
    """Return the application's container in the pod specification of an object."""
    found: Object = templates.app_container(pod_spec(item))
    return found
