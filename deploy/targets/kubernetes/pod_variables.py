"""The variables of replicas as objects name them: values, and the Secret that has the secrets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import suppress

from pydantic import Field

from deploy.clients.kubernetes.protocol import Cluster, Object
from deploy.records import Record


class PodVariables(Record):
    """The variables of the pods of one release; no secret is in it.

    Attributes:
        values: the values by name.
        secrets: the names of those that are secret, sorted.
        source: the name of the Secret that has them, by the same names; empty without any.
    """

    values: Mapping[str, str] = Field(default={})
    secrets: tuple[str, ...] = ()
    source: str = ""

    def to_annotation(self) -> str:
        """Return the record as short text; empty for no variables."""
        return self.model_dump_json(exclude_defaults=True) if self != NO_POD_VARIABLES else ""


NO_POD_VARIABLES = PodVariables()


def fill_variables(container: Object, variables: PodVariables) -> None:
    """Set the variables of a container; others that its template has stay."""
    own = list(_entries(variables))
    if own:
        names = {entry["name"] for entry in own}
        others = [entry for entry in container.get("env", []) if entry.get("name") not in names]
        container["env"] = [*others, *own]


def _entries(variables: PodVariables) -> Iterator[Object]:
    for name, value in variables.values.items():
        # A cluster replaces $(NAME) by another variable, and reads $$ as one $.
        yield {"name": name, "value": value.replace("$", "$$")}
    for name in variables.secrets:
        yield {
            "name": name,
            "valueFrom": {"secretKeyRef": {"name": variables.source, "key": name}},
        }


def secret_sources(pod: Object) -> set[str]:
    """Return the names of the Secrets that the variables of a pod name."""
    entries = [
        entry
        for container in pod.get("spec", {}).get("containers") or []
        for entry in container.get("env") or []
    ]
    named = ((entry.get("valueFrom") or {}).get("secretKeyRef") or {} for entry in entries)
    return {item["name"] for item in named if item.get("name")}


def read_secrets(cluster: Cluster, name: str) -> dict[str, str]:
    """Return what a Secret has, by key, without what is no text; empty if it does not exist."""
    data = (cluster.find("Secret", name) or {}).get("data") or {}
    found = {}
    for key, encoded in data.items():
        with suppress(binascii.Error, UnicodeDecodeError):
            found[key] = base64.b64decode(encoded).decode()
    return found
