"""The schemas of Kubernetes' objects by version: known keys, types of values, and required keys.

Source: the OpenAPI documents of Kubernetes, which the package kubernetes-validate has as strict
JSON schemas.
"""

from __future__ import annotations

from typing import Any

from kubernetes_validate import SchemaNotFoundError, ValidationError, validate

NEWEST = "1.37"
# Every version that is supported somewhere, and those before and after a field was added.
VERSIONS = tuple(f"1.{minor}" for minor in range(25, 38))


def problems(item: dict[str, Any], version: str = NEWEST) -> list[str]:
    """Return the problem of an object with its path; a kind that is not served is one too."""
    try:
        validate(item, version, strict=True)
    except SchemaNotFoundError as error:
        return [error.message]
    except ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []
