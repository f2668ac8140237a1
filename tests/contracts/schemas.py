"""The schemas of Kubernetes' objects: known keys, types of values, and required keys.

Source: the OpenAPI document of Kubernetes, in the version from which the client library's models
were generated.
"""

from __future__ import annotations

from typing import Any

from kubernetes.client import models
from pydantic import BaseModel, ValidationError


def problems(item: dict[str, Any]) -> list[str]:
    """Return the problems of an object, each with its path; an unknown kind is a problem too."""
    version = str(item.get("apiVersion", "")).rpartition("/")[2]
    kind = str(item.get("kind", ""))
    model: type[BaseModel] | None = getattr(models, f"{version.capitalize()}{kind}", None)
    if model is None:
        return [f"{kind} is not in {item.get('apiVersion')}"]
    try:
        read = model.model_validate(item).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        ]
    # The models also accept Python's names of keys, which the API server does not know.
    return [] if read == item else [f"{kind} has a key with its Python name"]
