"""The template of all that releases need on Azure: its grammar, and what it makes.

Bicep's own compiler is not among the tests; a parser of its grammar is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycep import BicepParser

from deploy.clients.azure import roles

TEMPLATE = Path(__file__).parents[3] / "deploy" / "azure" / "main.bicep"
TEXT = TEMPLATE.read_text(encoding="utf-8")
PARSED: Any = BicepParser().parse(text=TEXT)
CREDENTIALS = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials"
ASSIGNMENT = "Microsoft.Authorization/roleAssignments"
RESOURCES = {
    "identity": "Microsoft.ManagedIdentity/userAssignedIdentities",
    "githubCredential": CREDENTIALS,
    "pipelinesCredential": CREDENTIALS,
    "storage": "Microsoft.Storage/storageAccounts",
    "blobs": "Microsoft.Storage/storageAccounts/blobServices",
    "models": "Microsoft.Storage/storageAccounts/blobServices/containers",
    "registry": "Microsoft.ContainerRegistry/registries",
    "cluster": "Microsoft.ContainerService/managedClusters",
    "publishes": ASSIGNMENT,
    "pushes": ASSIGNMENT,
    "nodesPull": ASSIGNMENT,
    "readsCluster": ASSIGNMENT,
    "deploys": ASSIGNMENT,
}
# Source: "Azure built-in roles"; their ids are the same in every tenant.
ROLES = {
    roles.WRITE_BLOBS: "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    roles.PUSH: "8311e382-0749-4cb8-b61a-304f252e45ec",
    roles.PULL: "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    roles.WRITE_REPOSITORY: "2a1e307c-b015-4ebd-883e-5b7698a07328",
    roles.READ_REPOSITORY: "b93aa761-3e63-49ed-ac28-beffa264f7ac",
    roles.USE_CLUSTER: "4abbcc35-e782-43d8-92c5-2d3f1bd2253f",
    roles.WRITE_NAMESPACE: "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb",
}
IDENTITY = "identity.properties.principalId"
NODES = "cluster.properties.identityProfile.kubeletidentity.objectId"
# Each assignment: where it counts, for whom, and the role; on a registry with ABAC the second one.
ASSIGNMENTS = {
    "publishes": ("storage", IDENTITY, [roles.WRITE_BLOBS]),
    "pushes": ("registry", IDENTITY, [roles.PUSH, roles.WRITE_REPOSITORY]),
    "nodesPull": ("registry", NODES, [roles.PULL, roles.READ_REPOSITORY]),
    "readsCluster": ("cluster", IDENTITY, [roles.USE_CLUSTER]),
    "deploys": ("cluster", IDENTITY, [roles.WRITE_NAMESPACE]),
}
FUNCTIONS = {"empty", "guid", "if", "resourceGroup", "subscription", "subscriptionResourceId"}
WORDS = {"bool", "false", "if", "int", "string", "targetScope", "true"}


def properties_of(resource: str) -> Any:
    """Return the properties of a resource."""
    return PARSED["resources"][resource]["config"]["properties"]


def path_of(accessor: Any) -> str:
    """Return a path such as `identity.id` as it is written."""
    if isinstance(accessor, str):
        return accessor
    operands = accessor["operator"]["operands"]
    return f"{path_of(operands['operand_1'])}.{path_of(operands['operand_2'])}"


def alternatives(variable: str) -> list[str]:
    """Return what a variable may be: on a registry with permissions for repositories the last."""
    value = PARSED["variables"][variable]["value"]
    if isinstance(value, str):
        return [value]
    operands = value["operator"]["operands"]
    assert operands["condition"] == "repositoryPermissions"
    return [found for key in ("false_value", "true_value") for found in alternatives(operands[key])]


def expressions() -> str:
    """Return the template without comments, texts, keys of objects, and what is declared."""
    code = re.sub(r"^\s*//.*$", "", TEXT, flags=re.MULTILINE)
    text = re.compile(r"'(?:[^'$]|\$\{[^}]*\})*'")
    code = text.sub(lambda found: " ".join(re.findall(r"\$\{([^}]*)\}", found[0])), code)
    code = re.sub(r"^\s*\w+:", "", code, flags=re.MULTILINE)
    return re.sub(r"^(?:param|var|resource|output) \w+", "", code, flags=re.MULTILINE)


def declared() -> Iterator[str]:
    """Yield the names of parameters, variables and resources."""
    for kind in ("parameters", "variables", "resources"):
        yield from PARSED[kind]


def test_everything_that_the_page_promises_is_made() -> None:
    """Each resource is a new one, of a version that is no preview."""
    found = PARSED["resources"]

    assert {name: one["type"] for name, one in found.items()} == RESOURCES
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", one["api_version"]) for one in found.values())
    assert not any(one["existing"] for one in found.values())


def test_each_name_is_declared_and_used() -> None:
    """Roles are used by being assigned, and the last credential by being there."""
    code = expressions()
    used = set(re.findall(r"(?<![\w.@])([A-Za-z]\w*)\b(?!\()", code)) - WORDS
    functions = set(re.findall(r"(?<![\w.@])(\w+)\(", code))

    assert used - set(declared()) == set()
    assert set(declared()) - used == {*ASSIGNMENTS, "pipelinesCredential"}
    assert functions <= FUNCTIONS


def test_parts_are_in_the_resources_that_have_them() -> None:
    """The container is in the account, and the credentials are the identity's."""
    parents = {
        name: found["parent"]
        for name, one in PARSED["resources"].items()
        for found in (one["config"].get("config", one["config"]),)
        if "parent" in found
    }

    assert parents == {
        "githubCredential": "identity",
        "pipelinesCredential": "identity",
        "blobs": "storage",
        "models": "blobs",
    }


def test_nothing_needs_a_stored_secret() -> None:
    """No key opens the store, no password the registry, no local account the cluster."""
    storage = properties_of("storage")
    cluster = properties_of("cluster")

    assert storage["allowSharedKeyAccess"] is False
    assert storage["allowBlobPublicAccess"] is False
    assert storage["supportsHttpsTrafficOnly"] is True
    assert storage["minimumTlsVersion"] == "TLS1_2"
    assert properties_of("registry")["adminUserEnabled"] is False
    assert cluster["disableLocalAccounts"] is True
    assert cluster["aadProfile"] == {"managed": True, "enableAzureRBAC": True}
    assert "@secure" not in TEXT


def test_the_registry_has_the_permissions_of_its_roles() -> None:
    """It is said in both cases, as what holds without it may change."""
    chosen = properties_of("registry")["roleAssignmentMode"]["operator"]["operands"]

    assert chosen == {
        "condition": "repositoryPermissions",
        "true_value": "AbacRepositoryPermissions",
        "false_value": "LegacyRegistryPermissions",
    }


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_each_role_is_assigned_where_it_counts(name: str) -> None:
    """To whom needs it, by its id, under a name that stays the same."""
    scope, principal, expected = ASSIGNMENTS[name]
    config = PARSED["resources"][name]["config"]
    given = config["properties"]
    role = given["roleDefinitionId"]["function"]
    variable = role["parameters"]["resource_name_1"]
    named = config["name"]["function"]

    assert config["scope"] == scope
    assert path_of(given["principalId"]) == principal
    assert given["principalType"] == "ServicePrincipal"
    assert role["type"] == "subscription_resource_id"
    assert role["parameters"]["resource_type"] == "Microsoft.Authorization/roleDefinitions"
    assert alternatives(variable) == [ROLES[one] for one in expected]
    assert named["type"] == "guid"
    assert [path_of(part) for part in named["parameters"].values()] == [
        f"{scope}.id",
        f"{principal.partition('.')[0]}.id",
        variable,
    ]


@pytest.mark.parametrize(
    ("name", "parameter", "issuer", "subject"),
    [
        (
            "githubCredential",
            "githubSubject",
            "https://token.actions.githubusercontent.com",
            "githubSubject",
        ),
        ("pipelinesCredential", "pipelinesIssuer", "pipelinesIssuer", "pipelinesSubject"),
    ],
)
def test_both_ci_systems_can_have_a_credential(
    name: str, parameter: str, issuer: str, subject: str
) -> None:
    """It is made if the parameter is given, for the audience that assertions are requested for."""
    made = PARSED["resources"][name]["config"]
    condition = made["condition"]["operator"]
    empty = condition["operands"]["bool_value"]["function"]

    assert condition["type"] == "not"
    assert (empty["type"], empty["parameters"]["item_to_test"]) == ("empty", parameter)
    assert made["config"]["properties"] == {
        "issuer": issuer,
        "subject": subject,
        "audiences": ["audience"],
    }
    assert PARSED["variables"]["audience"]["value"] == "api://AzureADTokenExchange"


@pytest.mark.parametrize("kind", ["parameters", "outputs"])
def test_each_parameter_and_output_is_described(kind: str) -> None:
    """A person fills them in, or copies them into settings."""
    for name, one in PARSED[kind].items():
        described = [
            part["argument"] for part in one["decorators"] if part["type"] == "description"
        ]
        assert len(described) == 1, name


def test_the_outputs_are_what_the_settings_need() -> None:
    """The identity's ids, and the places of store, registry and cluster."""
    values = {name: one["value"] for name, one in PARSED["outputs"].items()}

    assert list(values) == ["clientId", "tenantId", "subscriptionId", "store", "registry", "aks"]
    assert path_of(values["clientId"]) == "identity.properties.clientId"
    assert values["store"] == "${storage.properties.primaryEndpoints.blob}${models.name}"
    assert path_of(values["registry"]) == "registry.properties.loginServer"
    assert values["aks"] == "${resourceGroup().name}/${cluster.name}"
