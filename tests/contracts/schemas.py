"""Whether an object is one of Kubernetes' own: every key known, every value of its type, and nothing that is required left out.

Source: the OpenAPI document of Kubernetes, in the version that the client library's models were made from.
"""

from __future__ import annotations

from typing import Any

from kubernetes.client import models
from pydantic import BaseModel, ValidationError


def problems(item: dict[str, Any]) -> list[str]:
    """What is wrong with an object, each with its place; a kind that the schema does not have is a problem as well."""
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
    # The models also take the names that Python gives to keys, which the API server does not know.
    return [] if read == item else [f"{kind} has a key of Python's"]
