"""YAML as Kubernetes' tools read and write it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from deploy.clients.kubernetes.protocol import Object


class Loader(yaml.SafeLoader):
    """A loader of YAML as kubectl reads it: a date is text, and a repeated key is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - declared like this in the base class
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - inherited
    ) -> dict[Any, Any]:
        """Return a mapping, or raise an error if it has a key twice."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A writer of YAML that all parsers read alike: no anchors, and quotes for unclear text."""

    def ignore_aliases(self, data: object) -> bool:
        """Return whether a value that occurs twice is written twice."""
        return True


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    is_unclear = re.match(r"[-+.\d]|.?\Z", value) or not value.isprintable()
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style='"' if is_unclear else None
    )


_Dumper.add_representer(str, _represent_text)


def to_yaml(objects: Sequence[Object]) -> str:
    """Return the objects as one stream of YAML documents, with keys in their order."""
    return yaml.dump_all(
        objects,
        Dumper=_Dumper,
        sort_keys=False,
        explicit_start=True,
        width=1_000_000,
        allow_unicode=True,
    )
