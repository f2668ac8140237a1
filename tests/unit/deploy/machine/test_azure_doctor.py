"""What the doctor says of an environment on Azure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import pytest

from deploy.machine.doctor import Check
from tests.fakes.application import Application
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import SERVICE_PRINCIPAL
from tests.fakes.azure.stand_in import CLIENT, OBJECT, REGISTRY, SUBSCRIPTION, TENANT

STAGING = "TWINSHIP_ENVIRONMENTS__STAGING"
SECRET = "keyvault://safe/password"
KEYS = {
    f"{STAGING}__REGISTRY": REGISTRY,
    f"{STAGING}__AKS": "pictures/shop",
    "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
}


def checks(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    environ: Mapping[str, str],
) -> dict[str, Check]:
    """Return the checks of `staging` by part."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = application.context("staging").azure_doctor().checks()
    return {check.part: check for check in found}


def test_an_environment_without_azure_has_no_checks(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is requested."""
    assert checks(application, monkeypatch, SERVICE_PRINCIPAL) == {}
    assert application.azure.asked == []


def test_all_parts_are_there(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is found by a request that reads."""
    found = checks(application, monkeypatch, SERVICE_PRINCIPAL | KEYS)
    assert [check.part for check in found.values() if not check.ok] == []
    name = "a service principal (AZURE_CLIENT_SECRET)"
    assert found["Azure login"].found == f"{name}, as {CLIENT} of tenant {TENANT}"
    assert found["registry login"].found == f"pull and push, {REGISTRY}/classifier"
    assert found["cluster rights"].found == "namespace shop"


def test_without_a_login_nothing_else_is_tried(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cure is to log in."""
    found = checks(application, monkeypatch, KEYS)
    assert list(found) == ["Azure login"]
    assert "`az login`" in found["Azure login"].cure


@pytest.mark.parametrize(
    ("part", "lacking", "role"),
    [
        ("registry login", {"push"}, "AcrPush"),
        ("registry login", {"push", "pull"}, "AcrPush"),
        ("key vault", {"secrets"}, "Key Vault Secrets User"),
    ],
)
def test_a_missing_role_is_a_command(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    lacking: set[str],
    role: str,
) -> None:
    """It is filled in for the identity."""
    application.azure.roles -= lacking
    keys = SERVICE_PRINCIPAL | KEYS | {"TWINSHIP_MODEL__SAS": SECRET}
    found = checks(application, monkeypatch, keys)[part]
    assert f"az role assignment create --assignee-object-id {OBJECT}" in found.cure
    assert f'--role "{role}"' in found.cure


def test_missing_rights_in_a_cluster_are_a_command(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For roles of Azure, and for those of the cluster."""
    application.cluster.forbidden.add(("create", "Deployment"))
    found = checks(application, monkeypatch, SERVICE_PRINCIPAL | KEYS)["cluster rights"]
    assert '--role "Azure Kubernetes Service RBAC Writer"' in found.cure
    assert (
        f"--scope /subscriptions/{SUBSCRIPTION}/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop/namespaces/shop`"
    ) in found.cure
    assert f"bind the object id {OBJECT}" in found.cure


def test_the_id_of_a_cluster_has_its_subscription(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identity may see several subscriptions, and none has to be set."""
    resource = (
        "/subscriptions/other/resourceGroups/pictures/providers"
        "/Microsoft.ContainerService/managedClusters/shop"
    )
    application.cluster.forbidden.add(("create", "Deployment"))
    application.azure.faults["management.azure.com"] = deque([Answer(200, {"value": []})])
    keys = SERVICE_PRINCIPAL | {f"{STAGING}__AKS": resource}
    found = checks(application, monkeypatch, keys)["cluster rights"]
    assert f"--scope {resource}/namespaces/shop`" in found.cure


@pytest.mark.parametrize("key", ["TWINSHIP_MODEL__SAS", f"{STAGING}__SECRETS__API_KEY"])
def test_a_secret_is_found_and_not_shown(
    application: Application, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The report has its name."""
    keys = SERVICE_PRINCIPAL | {key: SECRET}
    found = checks(application, monkeypatch, keys)
    assert found["key vault"] == Check("key vault", SECRET)
    assert "planted" not in repr(found)
