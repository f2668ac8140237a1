"""What settings name on Azure, known by the name alone.

Nothing else is imported for this, so that a release without Azure does not wait for it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

CLUSTER = "aks:"
"""The beginning of what names a cluster on AKS in the place of a kubeconfig."""

SECRET = "keyvault://"  # noqa: S105 - the beginning of a name
"""The beginning of the name of a secret in a key vault."""

_BLOB = frozenset({"az", "azure", "adl", "abfs", "abfss"})


def is_blob_location(location: str) -> bool:
    """Return whether a location is in Azure Blob."""
    parts = urlsplit(location)
    host = parts.hostname or ""
    is_url = parts.scheme == "https" and (".blob." in host or ".dfs." in host)
    return parts.scheme in _BLOB or is_url


def may_be_registry(host: str, *, names_cloud: bool) -> bool:
    """Return whether a registry may be one of Azure.

    Args:
        host: the registry.
        names_cloud: whether a cloud is named, whose registries may have any suffix.
    """
    return ".azurecr." in host or names_cloud
