"""The page about Azure: its commands from nothing can be pasted in order, and fit the suite.

Programs that record their calls take the place of `az` and the others.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.azure import roles
from deploy.settings import environments
from deploy.settings.model import ModelSource
from tests.fakes.programs import write_program

PAGE = Path(__file__).parents[2] / "docs" / "11-azure.md"
SECTION = PAGE.read_text(encoding="utf-8").split("\n## From nothing\n", 1)[1]
TEMPLATE = "By one template"
COMMANDS = "By single commands"
ABAC = "A registry with ABAC"
CI = {"From GitHub Actions": "github", "From Azure Pipelines": "azure-pipelines"}
# Roles that only a person needs.
OF_PERSONS = {"Azure Kubernetes Service RBAC Cluster Admin"}
OF_IDENTITY = {roles.WRITE_BLOBS, roles.PUSH, roles.USE_CLUSTER, roles.WRITE_NAMESPACE}
# A program that is given words and prints a value. The words are separated by an unusual sign.
PROGRAM = """{ printf '%s' "${0##*/}"; printf '\\037%s' "$@"; printf '\\n'; } >>"$CALLS"
echo "value"
"""
PROGRAMS = ("az", "curl", "gh", "git")


@dataclass(frozen=True)
class Call:
    """A call of a program: its words, and the values of its options."""

    words: list[str]

    def option(self, name: str) -> str:
        """Return the value of an option; empty if it is not given."""
        return self.words[self.words.index(name) + 1] if name in self.words else ""


def blocks(language: str) -> dict[str, str]:
    """Return the code in a language below each heading, in order."""
    found = {}
    for part in SECTION.split("\n### ")[1:]:
        heading, _, text = part.partition("\n")
        code = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if code:
            found[heading] = "".join(code)
    return found


def paste(folder: Path, *leave_out: str) -> dict[str, list[Call]]:
    """Run the page's commands in one shell; return the calls below each heading."""
    programs = folder / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        write_program(programs / name, PROGRAM)
    write_program(folder / "run", PROGRAM)
    script = "".join(
        f'CALLS="$FOLDER/{number}"; export CALLS; touch "$CALLS"\n{code}'
        for number, (heading, code) in enumerate(blocks("sh").items())
        if heading not in leave_out
    )
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": f"{programs}:/usr/bin:/bin", "FOLDER": str(folder)},
        check=True,
        capture_output=True,
    )
    return {
        heading: [
            Call(line.split("\x1f"))
            for line in (folder / str(number)).read_text(encoding="utf-8").splitlines()
        ]
        for number, heading in enumerate(blocks("sh"))
        if heading not in leave_out
    }


def roles_for(calls: list[Call], kind: str) -> set[str]:
    """Return the roles that are assigned to a kind of principal."""
    assigned = [call for call in calls if call.words[:4] == ["az", "role", "assignment", "create"]]
    return {
        call.option("--role")
        for call in assigned
        if call.option("--assignee-principal-type") == kind
    }


@pytest.mark.parametrize(
    "leave_out",
    [(COMMANDS, ABAC), (TEMPLATE, ABAC), (TEMPLATE,)],
    ids=["template", "single", "abac"],
)
def test_each_way_can_be_pasted_from_top_to_bottom(
    tmp_path: Path, leave_out: tuple[str, ...]
) -> None:
    """No command uses a variable or a function that no earlier one has set."""
    calls = paste(tmp_path, *leave_out)

    assert all(calls.values())
    assert set(calls) == set(blocks("sh")) - set(leave_out)


def test_the_roles_are_those_that_the_suite_asks_for(tmp_path: Path) -> None:
    """The identity gets what the template gives it; a person gets more in the cluster."""
    calls = paste(tmp_path, TEMPLATE)
    of_person = roles_for(calls["A name, and your own roles"], "User")

    assert roles_for(calls[COMMANDS], "ServicePrincipal") == OF_IDENTITY
    assert of_person == OF_IDENTITY - {roles.WRITE_NAMESPACE} | OF_PERSONS
    assert roles_for(calls[ABAC], "User") == {roles.WRITE_REPOSITORY}
    assert roles_for(calls[ABAC], "ServicePrincipal") == {
        roles.WRITE_REPOSITORY,
        roles.READ_REPOSITORY,
    }
    assert calls[ABAC][-1].option("--role-assignment-mode") == "rbac-abac"


def test_nothing_that_is_made_needs_a_stored_secret(tmp_path: Path) -> None:
    """No keys, no administrator's password, no local accounts."""
    calls = paste(tmp_path, TEMPLATE)[COMMANDS]
    made = {" ".join(call.words[1:3]): call for call in calls if "create" in call.words[:4]}

    assert made["storage account"].option("--allow-shared-key-access") == "false"
    assert made["acr create"].option("--role-assignment-mode") == "rbac"
    assert not made["acr create"].option("--admin-enabled")
    assert {"--enable-aad", "--enable-azure-rbac", "--disable-local-accounts"} <= set(
        made["aks create"].words
    )


@pytest.mark.parametrize("heading", CI)
def test_each_ci_system_gets_a_federated_credential(tmp_path: Path, heading: str) -> None:
    """For the audience for which assertions are requested."""
    calls = paste(tmp_path, TEMPLATE)[heading]
    [made] = [call for call in calls if "federated-credential" in call.words]

    assert made.option("--name") == CI[heading]
    assert made.option("--audiences") == "api://AzureADTokenExchange"
    assert made.option("--issuer")
    assert made.option("--subject")


def test_three_variables_are_all_that_github_needs_for_azure(tmp_path: Path) -> None:
    """A fourth one names the environment to which a push releases."""
    calls = paste(tmp_path, TEMPLATE)["From GitHub Actions"]
    named = [call.words[3] for call in calls if call.words[:3] == ["gh", "variable", "set"]]

    assert named == [
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_SUBSCRIPTION_ID",
        "RELEASE_ENVIRONMENT",
    ]


def test_the_service_connection_has_no_secret(tmp_path: Path) -> None:
    """It is what Azure DevOps documents for workload identity; its file does not stay."""
    calls = paste(tmp_path, TEMPLATE)["From Azure Pipelines"]
    text = re.search(r"<<END\n(.*?)^END$", SECTION, re.MULTILINE | re.DOTALL)
    assert text is not None
    connection = json.loads(re.sub(r'"\$\(.*\)"', '"value"', text[1]))

    assert connection["authorization"] == {
        "scheme": "WorkloadIdentityFederation",
        "parameters": {"tenantid": "value", "serviceprincipalid": "value"},
    }
    assert any("--service-endpoint-configuration" in call.words for call in calls)
    assert not (tmp_path / "connection.json").exists()


def test_the_settings_are_valid_and_name_what_was_made() -> None:
    """Store, registry and cluster have the name that the commands give them."""
    tables: dict[str, Any] = tomllib.loads(blocks("toml")["The first release"])
    [name] = re.findall(r"^NAME=(\w+)$", SECTION, re.MULTILINE)
    model = ModelSource.model_validate(tables["model"])
    production = environments.Kubernetes.model_validate(tables["environments"]["production"])

    assert model.store == f"https://{name}.blob.core.windows.net/models"
    assert production.registry == f"{name}.azurecr.io"
    assert production.aks == f"{name}/{name}"
    assert f"kubectl create namespace {production.namespace}" in SECTION
