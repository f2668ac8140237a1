"""Renderings of an environment, and folders of manifests that a user has edited."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from deploy.clients.kubernetes.protocol import Object
from deploy.records import Attempt, Release
from deploy.settings.environments import Kubernetes
from deploy.settings.reading import App
from deploy.targets.kubernetes import templates
from deploy.targets.kubernetes.render import TRACKS, Rendering

APP = App(name="classifier", port=9000, ready="/ready")


def environment(**keys: Any) -> Kubernetes:
    """An environment on a cluster, with those keys of its table."""
    return Kubernetes.model_validate({"target": "kubernetes", "namespace": "models", **keys})


ALL_SETTINGS: dict[str, Any] = {
    "host": "classifier.example",
    "ingress_class": "nginx",
    "tls_secret": "classifier-tls",
    "autoscale": {"at_most": 5, "cpu": 70},
    "pull_secret": "registry-login",
    "service": "LoadBalancer",
    "dns_label": "classifier",
    "resources": {"cpu": "1500m", "memory": "2Gi", "cpu_limit": "4"},
}
"""Keys under which every object is rendered, with everything that may be in it."""


def rendering(
    folder: Path | None = None, name: str = "staging", app: App = APP, **keys: Any
) -> Rendering:
    """How an environment with those keys is rendered, from the suite's manifests or from a folder of one's own."""
    env = environment(**keys, **({"manifests": folder.name} if folder else {}))
    return Rendering.read(app, name, env, folder.parent if folder else Path("nowhere"))


def all_objects(made: Rendering, release: Release, attempt: Attempt | None = None) -> list[Object]:
    """All that an environment can consist of: both sides, the service before and after a canary, the warm-up."""
    sides = [made.deployment(release, side, made.env.replicas, attempt, 600) for side in TRACKS]
    services = [made.service(side, both=both) for side in TRACKS for both in (False, True)]
    items = [
        made.service_account(),
        *sides,
        *services,
        made.ingress(),
        *map(made.autoscaler, TRACKS),
        made.disruption_budget(),
        made.prepull(release),
    ]
    return [item for item in items if item]


def edit_templates(tmp_path: Path, file: str = "", **changes: Any) -> Path:
    """A folder of manifests like the suite's, in which some keys of a file's object are others: `spec__replicas=3`."""
    folder = tmp_path / "manifests"
    if not folder.exists():
        shutil.copytree(templates.DEFAULT_FOLDER, folder)
    if file:
        item = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
        for place, value in changes.items():
            *above, key = place.split("__")
            _at(item, above)[key] = value
        (folder / file).write_text(yaml.safe_dump(item, sort_keys=False), encoding="utf-8")
    return folder


def _at(item: Any, place: list[str]) -> Any:
    for key in place:
        item = item[int(key)] if isinstance(item, list) else item.setdefault(key, {})
    return item


def pod_spec(item: Object) -> Object:
    """What an object makes its pods of."""
    found: Object = item["spec"]["template"]["spec"]
    return found


def app_container(item: Object) -> Object:
    """The application's container in what an object makes its pods of."""
    found: Object = templates.app_container(pod_spec(item))
    return found
