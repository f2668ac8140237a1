"""A folder of object templates: YAML files, read as plain JSON values.

Each file must have one object of the right kind, with a mapping, list or number wherever the
rendering reads or writes one. An error names the file and the line. Nothing here knows settings or
releases.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from deploy.clients.kubernetes.protocol import KINDS, Object
from deploy.errors import SettingsInvalid
from deploy.targets.kubernetes.yaml_text import Loader

DEFAULT_FOLDER = Path(__file__).parents[2] / "manifests"
"""The folder of the object templates that come with the suite."""

FILES: Mapping[str, str] = {
    "ServiceAccount": "account.yaml",
    "PodDisruptionBudget": "disruption.yaml",
    "Deployment": "deployment.yaml",
    "Service": "service.yaml",
    "Ingress": "ingress.yaml",
    "HorizontalPodAutoscaler": "autoscaler.yaml",
    "DaemonSet": "warm-up.yaml",
}

# A shape says what a value must be if it is there: a mapping with shapes for some of its keys, a
# list of one shape, or a type.
_METADATA: dict[str, Any] = {"labels": {}, "annotations": {}}
_LABELS: dict[str, Any] = {"matchLabels": {}}
_HOOK: dict[str, Any] = {"exec": {"command": [str]}, "sleep": {"seconds": int}}
_CONTAINER: dict[str, Any] = {
    "ports": [{}],
    "env": [{}],
    "resources": {"requests": {}, "limits": {}},
    "startupProbe": {"httpGet": {}, "periodSeconds": int},
    "readinessProbe": {"httpGet": {}},
    "lifecycle": {"preStop": _HOOK, "postStart": _HOOK},
}
_POD: dict[str, Any] = {
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "affinity": {"nodeAffinity": {}},
    "nodeSelector": {},
    "tolerations": [{}],
    "imagePullSecrets": [{}],
    "topologySpreadConstraints": [{"labelSelector": _LABELS}],
}
_POD_OWNER: dict[str, Any] = {
    "metadata": _METADATA,
    "spec": {
        "minReadySeconds": int,
        "selector": _LABELS,
        "template": {"metadata": _METADATA, "spec": _POD},
    },
}
_BACKEND: dict[str, Any] = {"service": {}}
_SHAPES: Mapping[str, dict[str, Any]] = {
    "ServiceAccount": {"metadata": _METADATA},
    "PodDisruptionBudget": {"metadata": _METADATA, "spec": {"selector": _LABELS}},
    "Deployment": _POD_OWNER,
    "Service": {"metadata": _METADATA, "spec": {"selector": {}, "ports": [{"port": int}]}},
    "Ingress": {
        "metadata": _METADATA,
        "spec": {
            "defaultBackend": _BACKEND,
            "rules": [{"http": {"paths": [{"backend": _BACKEND}]}}],
        },
    },
    "HorizontalPodAutoscaler": {
        "metadata": _METADATA,
        "spec": {"scaleTargetRef": {}, "metrics": [{"resource": {"target": {}}}]},
    },
    "DaemonSet": _POD_OWNER,
}
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template", "spec", "containers"),
    "DaemonSet": ("spec", "template", "spec", "containers"),
    "Service": ("spec", "ports", "0", "port"),
    "Ingress": ("spec", "rules"),
}
"""The path of a value that must be there, because it has no default."""


def read_templates(folder: Path) -> dict[str, Object]:
    """Return the objects of a folder, by kind.

    Raises:
        SettingsInvalid: a file is missing, is not YAML, or is not one object of the right kind; the
            error names the line.
    """
    return {kind: _TemplateFile(folder / name).read(kind) for kind, name in FILES.items()}


def ensure_mapping(item: Object, *path: str) -> Object:
    """Return the mapping at a path; create it if there is none."""
    for key in path:
        item = item.setdefault(key, {})
    return item


def pod_spec(item: Object) -> Object:
    """Return the pod specification in a Deployment or a DaemonSet."""
    return ensure_mapping(item, "spec", "template", "spec")


def app_container(item: Object) -> Object:
    """Return the container that runs the application: the one named `app`, else the only one."""
    containers: list[Object] = item["containers"]
    return next((found for found in containers if found.get("name") == "app"), containers[0])


class _TemplateFile:
    """One file, and the lines on which its values are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._node: yaml.Node | None = None

    def read(self, kind: str) -> Object:
        """Return the object, if it is of that kind and each value has its shape."""
        item: Object = self._parse()
        self._check(item, {}, ())
        expected = {"apiVersion": KINDS[kind].api_version, "kind": kind}
        for key, value in expected.items():
            if item.get(key) != value:
                self._fail_at((key,), f"{key} must be {value}")
        self._check(item, _SHAPES[kind], ())
        self._check_required(item, _REQUIRED.get(kind, ()))
        if kind in ("Deployment", "DaemonSet"):
            self._check_container(pod_spec(item)["containers"])
        return item

    def _parse(self) -> Any:  # noqa: ANN401 - YAML holds anything
        try:
            self._node, found = _load(self._path.read_text(encoding="utf-8"))
            return json.loads(found)
        except FileNotFoundError:
            raise SettingsInvalid(
                "an object template is missing",
                on=str(self._path),
                next=f"copy {self._path.name} from the suite's deploy/manifests, then edit it",
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingsInvalid(
                f"an object template cannot be read: {reason}",
                on=str(self._path),
                next="make the file readable",
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._fail(error.problem or "it is not YAML", mark.line + 1 if mark else 1)
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            self._fail(str(error).partition("\n")[0] or "it is not YAML", 1)

    def _check(self, value: Any, shape: Any, path: tuple[str, ...]) -> None:  # noqa: ANN401 - JSON
        """Fail if a value has another shape; remove keys without a value, which count as absent."""
        kind: Any = shape if isinstance(shape, type) else type(shape)
        if type(value) is not kind:
            self._fail_at(path, f"{_path_text(path)} must be {_TYPE_NAMES[kind]}")
        inner: Sequence[tuple[str, Any]] = ()
        if kind is list:
            inner = [(str(index), shape[0]) for index in range(len(value))]
        elif kind is dict:
            for key in [key for key in shape if value.get(key, "") is None]:
                del value[key]
            inner = [(key, shape[key]) for key in shape if key in value]
        for key, inner_shape in inner:
            self._check(value[int(key) if kind is list else key], inner_shape, (*path, key))

    def _check_required(self, item: Any, path: tuple[str, ...]) -> None:  # noqa: ANN401 - JSON
        for depth, key in enumerate(path, 1):
            item = item.get(key) if isinstance(item, dict) else dict(enumerate(item)).get(int(key))
            if item in (None, [], {}):
                self._fail_at(path[:depth], f"{_path_text(path[:depth])} is missing")

    def _check_container(self, containers: list[Object]) -> None:
        if len(containers) > 1 and [one.get("name") for one in containers].count("app") != 1:
            path = _REQUIRED["Deployment"]
            self._fail_at(
                path,
                f"one of {_path_text(path)} must be named app: the one that runs the application",
            )

    def _fail_at(self, path: Sequence[str], what: str) -> NoReturn:
        node = self._node
        line = 1
        for key in path:
            found = _child(node, key)
            if found is None:
                break
            line, node = found
        self._fail(what, line)

    def _fail(self, what: str, line: int) -> NoReturn:
        raise SettingsInvalid(
            f"an object template is broken: {what}",
            on=f"{self._path}:{line}",
            next="fix that line; the suite's deploy/manifests have an example",
        )


@functools.lru_cache(maxsize=32)
def _load(text: str) -> tuple[yaml.Node | None, str]:
    """Return the node of a YAML document, and its value as JSON.

    In JSON, anchors share no value, and no value is foreign to it. The results are kept, because
    the environments of one command mostly have the same templates.
    """
    loader = Loader(text)
    node = loader.get_single_node()
    found = loader.construct_document(node) if node else None
    return node, json.dumps(found, allow_nan=False)


_TYPE_NAMES: Mapping[type, str] = {
    dict: "a mapping",
    list: "a list",
    int: "a whole number",
    str: "text",
}


def _path_text(path: Sequence[str]) -> str:
    """Return a path as people write it, such as spec.ports[0].port."""
    return re.sub(r"\.(\d+)", r"[\1]", ".".join(path)) or "an object template"


def _child(node: yaml.Node | None, key: str) -> tuple[int, yaml.Node] | None:
    """Return the line of a key or an item, and its value."""
    if isinstance(node, yaml.MappingNode):
        return next(
            ((name.start_mark.line + 1, value) for name, value in node.value if name.value == key),
            None,
        )
    if isinstance(node, yaml.SequenceNode) and int(key) < len(node.value):
        return node.value[int(key)].start_mark.line + 1, node.value[int(key)]
    return None
