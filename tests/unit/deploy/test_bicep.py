"""The template of all that releases need on Azure: its shape, as no compiler is among the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[3] / "deploy" / "azure" / "main.bicep"
TEXT = TEMPLATE.read_text(encoding="utf-8")
CODE = re.sub(r"^\s*//.*$", "", TEXT, flags=re.MULTILINE)
ROLES = {
    "storageBlobDataContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "acrPush": "8311e382-0749-4cb8-b61a-304f252e45ec",
    "acrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    "aksClusterUser": "4abbcc35-e782-43d8-92c5-2d3f1bd2253f",
    "aksRbacWriter": "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb",
}
STRING = re.compile(r"'(?:[^'$]|\$\{[^}]*\})*'")
RESOURCE = re.compile(
    r"^resource (\w+) '([\w.]+/[\w/]+)@\d{4}-\d\d-\d\d' = (?:if \(.*\) )?\{$", re.MULTILINE
)


def body_of(name: str) -> str:
    """Return the body of a resource."""
    found = re.search(rf"^resource {name} .*?^\}}$", CODE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def test_brackets_are_closed_in_order() -> None:
    """Texts are left out, with the expressions in them."""
    open_brackets: list[str] = []
    for sign in STRING.sub("", CODE):
        if sign in "([{":
            open_brackets.append(sign)
        elif sign in ")]}":
            assert open_brackets.pop() + sign in ("()", "[]", "{}")
    assert open_brackets == []


def test_each_resource_is_declared_with_type_and_version() -> None:
    """The pattern finds all of them."""
    assert len(RESOURCE.findall(CODE)) == len(re.findall(r"^resource ", CODE, re.MULTILINE)) == 13


def test_what_is_declared_is_used() -> None:
    """Roles are used by being assigned, and the last credential by being there."""
    declared = set(re.findall(r"^(?:param|var|resource) (\w+)", CODE, re.MULTILINE))
    alone = {name for name in declared if len(re.findall(rf"\b{name}\b", CODE)) == 1}
    roles = {name for name, kind in RESOURCE.findall(CODE) if kind.endswith("/roleAssignments")}
    assert alone == roles | {"pipelinesCredential"}


def test_what_resources_are_in_is_declared() -> None:
    """Their parents and scopes."""
    declared = {name for name, _ in RESOURCE.findall(CODE)}
    assert set(re.findall(r"(?:parent|scope): (\w+)", CODE)) <= declared


def test_nothing_needs_a_stored_secret() -> None:
    """No key opens the store, no password the registry, no local account the cluster."""
    assert "allowSharedKeyAccess: false" in body_of("storage")
    assert "allowBlobPublicAccess: false" in body_of("storage")
    assert "adminUserEnabled: false" in body_of("registry")
    assert "disableLocalAccounts: true" in body_of("cluster")
    assert "enableAzureRBAC: true" in body_of("cluster")
    assert "@secure" not in CODE


@pytest.mark.parametrize(("name", "role"), ROLES.items())
def test_each_role_is_assigned_where_it_counts(name: str, role: str) -> None:
    """By the id that is the same in every tenant."""
    assert f"var {name} = '{role}'" in CODE
    assignments = [
        body_of(resource)
        for resource, kind in RESOURCE.findall(CODE)
        if kind == "Microsoft.Authorization/roleAssignments"
    ]
    [found] = [body for body in assignments if f"Definitions', {name})" in body]
    scope = re.search(r"^  scope: (\w+)$", found, re.MULTILINE)
    assert scope is not None
    assert f"guid({scope[1]}.id, " in found


def test_both_ci_systems_have_a_credential() -> None:
    """Their audience is the one that assertions are requested for."""
    for name in ("githubCredential", "pipelinesCredential"):
        assert "audiences: [audience]" in body_of(name)
    assert "var audience = 'api://AzureADTokenExchange'" in CODE
    assert "repo:${githubRepository}:environment:${githubEnvironment}" in CODE


def test_each_parameter_and_output_is_described() -> None:
    """A person fills them in, or copies them into settings."""
    lines = TEXT.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("param ", "output ")):
            above = "\n".join(lines[max(0, number - 4) : number])
            assert "@description(" in above.rpartition("\n\n")[2], line
