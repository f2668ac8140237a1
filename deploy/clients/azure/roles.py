"""The roles that a release needs on Azure, as commands that assign them.

Source: "Azure built-in roles"; "Azure Container Registry Entra permissions and role assignments".
"""

from __future__ import annotations

from deploy.clients.azure.identity import Principal

PUSH = "AcrPush"
PULL = "AcrPull"
WRITE_REPOSITORY = "Container Registry Repository Writer"
READ_REPOSITORY = "Container Registry Repository Reader"
WRITE_BLOBS = "Storage Blob Data Contributor"
READ_BLOBS = "Storage Blob Data Reader"
USE_CLUSTER = "Azure Kubernetes Service Cluster User Role"
WRITE_NAMESPACE = "Azure Kubernetes Service RBAC Writer"
READ_SECRETS = "Key Vault Secrets User"


def assignment(principal: Principal, role: str, scope: str) -> str:
    """Return the command that gives a role to an identity.

    Args:
        principal: The identity.
        role: The role's name.
        scope: The id of a resource, or a command in `$( )` that prints it.
    """
    return (
        f"`az role assignment create --assignee-object-id {principal.object_id} "
        f"--assignee-principal-type {principal.kind} "
        f'--role "{role}" --scope {scope}`'
    )


def registry_scope(host: str) -> str:
    """Return the scope of a registry."""
    return f"$(az acr show --name {host.partition('.')[0]} --query id --output tsv)"


def storage_scope(account: str) -> str:
    """Return the scope of a storage account."""
    return f"$(az storage account show --name {account} --query id --output tsv)"


def cluster_scope(host: str) -> str:
    """Return the scope of a cluster on AKS, by the host of its API server."""
    is_it = f"fqdn=='{host}' || privateFqdn=='{host}'"
    return f'$(az aks list --query "[?{is_it}].id" --output tsv)'


def vault_scope(vault: str) -> str:
    """Return the scope of a key vault."""
    return f"$(az keyvault show --name {vault} --query id --output tsv)"
