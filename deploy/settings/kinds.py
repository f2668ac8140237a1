"""The kinds of environments: which class a table [environments.NAME] is, by its `target`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import Discriminator, Tag

from deploy.settings.environments import (
    Autoscale,
    Canary,
    Docker,
    Environment,
    Kubernetes,
    Resources,
)
from deploy.settings.table import Table

Kinds = Mapping[str, type[Environment]]


def target_of(table: object) -> str:
    """Return the kind of target that a table names; `docker` is the default."""
    return str(
        table.get("target", "docker")
        if isinstance(table, Mapping)
        else getattr(table, "target", "docker")
    )


KINDS: Kinds = {"docker": Docker, "kubernetes": Kubernetes}
AnyEnvironment = Annotated[
    Annotated[Docker, Tag("docker")] | Annotated[Kubernetes, Tag("kubernetes")],
    Discriminator(target_of),
]
_NESTED: Mapping[str, type[Table]] = {
    "canary": Canary,
    "resources": Resources,
    "autoscale": Autoscale,
}


def union_of(kinds: Kinds) -> Any:  # noqa: ANN401 - a type that is made at run time
    """Return the type of a table that is one of those kinds, chosen by its `target`."""
    tagged = tuple(Annotated[kind, Tag(name)] for name, kind in kinds.items())
    return Annotated[Union[tagged], Discriminator(target_of)]  # noqa: UP007 - known at run time only


def known_keys(kind: type[Environment] | None, *nested: str) -> list[str]:
    """Return the keys that a table of that kind knows, or a table inside it."""
    section = _NESTED.get(nested[0]) if nested else kind
    return list(section.model_fields) if section else []
