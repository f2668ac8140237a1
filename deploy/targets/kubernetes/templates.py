"""A folder of manifests: YAML read to plain JSON values, with every mistake told by its file and line.

What a rendering relies on is made sure of here: one object of the right kind in each file, and mappings, lists and numbers wherever it
looks or writes. Nothing here knows settings or releases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from deploy.clients.kubernetes.protocol import KINDS, Object
from deploy.errors import SettingsInvalid

DEFAULT_FOLDER = Path(__file__).parents[2] / "manifests"
"""The suite's own folder."""

FILES: Mapping[str, str] = {
    "ServiceAccount": "account.yaml",
    "PodDisruptionBudget": "disruption.yaml",
    "Deployment": "deployment.yaml",
    "Service": "service.yaml",
    "Ingress": "ingress.yaml",
    "HorizontalPodAutoscaler": "autoscaler.yaml",
    "DaemonSet": "warm-up.yaml",
}

# A shape is what a value must be if it is there: a mapping with shapes for some of its keys, a list of one shape, or a type.
_NAMES: dict[str, Any] = {"labels": {}, "annotations": {}}
_LABELS: dict[str, Any] = {"matchLabels": {}}
_CONTAINER: dict[str, Any] = {
    "ports": [{}],
    "resources": {"requests": {}, "limits": {}},
    "startupProbe": {"httpGet": {}, "periodSeconds": int},
    "readinessProbe": {"httpGet": {}},
    "lifecycle": {"preStop": {"exec": {"command": [str]}, "sleep": {"seconds": int}}},
}
_POD: dict[str, Any] = {
    "containers": [_CONTAINER],
    "affinity": {"nodeAffinity": {}},
    "nodeSelector": {},
    "tolerations": [{}],
    "imagePullSecrets": [{}],
    "topologySpreadConstraints": [{"labelSelector": _LABELS}],
}
_PODS: dict[str, Any] = {
    "metadata": _NAMES,
    "spec": {"selector": _LABELS, "template": {"metadata": _NAMES, "spec": _POD}},
}
_BACKEND: dict[str, Any] = {"service": {}}
_SHAPES: Mapping[str, dict[str, Any]] = {
    "ServiceAccount": {"metadata": _NAMES},
    "PodDisruptionBudget": {"metadata": _NAMES, "spec": {"selector": _LABELS}},
    "Deployment": _PODS,
    "Service": {"metadata": _NAMES, "spec": {"selector": {}, "ports": [{"port": int}]}},
    "Ingress": {
        "metadata": _NAMES,
        "spec": {
            "defaultBackend": _BACKEND,
            "rules": [{"http": {"paths": [{"backend": _BACKEND}]}}],
        },
    },
    "HorizontalPodAutoscaler": {
        "metadata": _NAMES,
        "spec": {"scaleTargetRef": {}, "metrics": [{"resource": {"target": {}}}]},
    },
    "DaemonSet": _PODS,
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template", "spec", "containers"),
    "DaemonSet": ("spec", "template", "spec", "containers"),
    "Service": ("spec", "ports", "0", "port"),
    "Ingress": ("spec", "rules"),
}
"""What must be there, since nothing can be made up in its place."""


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: a date is text, and a key that is written twice is a mistake."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - declared like that where it is overridden
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - inherited
        """A mapping, refused if it has two keys of one name."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """YAML that means the same to every reader: without anchors, and with quotes where some reader would see no text."""

    def ignore_aliases(self, data: object) -> bool:
        """Whether something that occurs twice is written twice."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    doubtful = re.match(r"[-+.\d]|.?\Z", value) or not value.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if doubtful else None)


_Dumper.add_representer(str, _text)


def to_yaml(objects: Sequence[Object]) -> str:
    """The objects as one stream of YAML documents, keys in their order."""
    return yaml.dump_all(
        objects,
        Dumper=_Dumper,
        sort_keys=False,
        explicit_start=True,
        width=1_000_000,
        allow_unicode=True,
    )


def read_templates(folder: Path) -> dict[str, Object]:
    """The objects of a folder, by kind.

    Raises:
        SettingsInvalid: a file is missing, is not YAML, or is not the one object that its name promises; with its line.
    """
    return {kind: _TemplateFile(folder / name).read(kind) for kind, name in FILES.items()}


def ensure_mapping(item: Object, *place: str) -> Object:
    """The mapping at a place, made if there is none."""
    for key in place:
        item = item.setdefault(key, {})
    return item


def pod_spec(item: Object) -> Object:
    """What a Deployment or a DaemonSet makes its pods of."""
    return ensure_mapping(item, "spec", "template", "spec")


def app_container(item: Object) -> Object:
    """The container of a pod that runs the application: the one named `app`, else the only one."""
    containers: list[Object] = item["containers"]
    return next((found for found in containers if found.get("name") == "app"), containers[0])


class _TemplateFile:
    """One file, and where in it things stand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._node: yaml.Node | None = None

    def read(self, kind: str) -> Object:
        """The object of that kind in which everything that is there has its shape."""
        item: Object = self._parsed()
        self._check(item, {}, ())
        expected = {"apiVersion": KINDS[kind].api_version, "kind": kind}
        for key, value in expected.items():
            if item.get(key) != value:
                self._refuse((key,), f"{key} must be {value}")
        self._check(item, _SHAPES[kind], ())
        self._check_needed(item, _NEEDED.get(kind, ()))
        if kind in ("Deployment", "DaemonSet"):
            self._check_container(pod_spec(item)["containers"])
        return item

    def _parsed(self) -> Any:  # noqa: ANN401 - YAML holds anything
        try:
            loader = _Loader(self._path.read_text(encoding="utf-8"))
            self._node = loader.get_single_node()
            found = loader.construct_document(self._node) if self._node else None
            # By way of JSON nothing is shared by an anchor, and nothing is there that JSON does not have.
            return json.loads(json.dumps(found, allow_nan=False))
        except FileNotFoundError:
            raise SettingsInvalid(
                "a manifest is missing",
                on=str(self._path),
                next=f"copy {self._path.name} from the suite's deploy/manifests, then edit it",
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingsInvalid(
                f"a manifest cannot be read: {reason}",
                on=str(self._path),
                next="make the file readable",
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._fail(error.problem or "it is not YAML", mark.line + 1 if mark else 1)
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            self._fail(str(error).partition("\n")[0] or "it is not YAML", 1)

    def _check(self, value: Any, shape: Any, place: tuple[str, ...]) -> None:  # noqa: ANN401 - JSON
        """Refuses a value of another shape; keys without a value are as good as absent, and are taken out."""
        kind: Any = shape if isinstance(shape, type) else type(shape)
        if type(value) is not kind:
            self._refuse(place, f"{_shown(place)} must be {_CALLED[kind]}")
        inner: Sequence[tuple[str, Any]] = ()
        if kind is list:
            inner = [(str(index), shape[0]) for index in range(len(value))]
        elif kind is dict:
            for key in [key for key in shape if value.get(key, "") is None]:
                del value[key]
            inner = [(key, shape[key]) for key in shape if key in value]
        for key, below in inner:
            self._check(value[int(key) if kind is list else key], below, (*place, key))

    def _check_needed(self, item: Any, place: tuple[str, ...]) -> None:  # noqa: ANN401 - JSON
        for depth, key in enumerate(place, 1):
            item = item.get(key) if isinstance(item, dict) else dict(enumerate(item)).get(int(key))
            if item in (None, [], {}):
                self._refuse(place[:depth], f"{_shown(place[:depth])} is missing")

    def _check_container(self, containers: list[Object]) -> None:
        if len(containers) > 1 and [one.get("name") for one in containers].count("app") != 1:
            place = _NEEDED["Deployment"]
            self._refuse(
                place,
                f"one of {_shown(place)} must be named app: the one that runs the application",
            )

    def _refuse(self, place: Sequence[str], what: str) -> NoReturn:
        node = self._node
        line = 1
        for key in place:
            found = _below(node, key)
            if found is None:
                break
            line, node = found
        self._fail(what, line)

    def _fail(self, what: str, line: int) -> NoReturn:
        raise SettingsInvalid(
            f"a manifest is broken: {what}",
            on=f"{self._path}:{line}",
            next="mend that line; the suite's deploy/manifests show how it is meant",
        )


_CALLED: Mapping[type, str] = {
    dict: "a mapping",
    list: "a list",
    int: "a whole number",
    str: "text",
}


def _shown(place: Sequence[str]) -> str:
    """A place as people write it, such as spec.ports[0].port."""
    return re.sub(r"\.(\d+)", r"[\1]", ".".join(place)) or "a manifest"


def _below(node: yaml.Node | None, key: str) -> tuple[int, yaml.Node] | None:
    """The line of a key or an item, and what stands there."""
    if isinstance(node, yaml.MappingNode):
        return next(
            ((name.start_mark.line + 1, value) for name, value in node.value if name.value == key),
            None,
        )
    if isinstance(node, yaml.SequenceNode) and int(key) < len(node.value):
        return node.value[int(key)].start_mark.line + 1, node.value[int(key)]
    return None
