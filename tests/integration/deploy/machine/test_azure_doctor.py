"""What the doctor says of a model store in Azure Blob: the real library, on a stand-in over TLS."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.machine.doctor import Check
from tests.fakes.application import Application
from tests.fakes.azure.blobs import blob_error
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import SERVICE_PRINCIPAL
from tests.fakes.azure.server import Served, serve
from tests.fakes.azure.stand_in import OBJECT

pytestmark = pytest.mark.integration

HOST = "127.0.0.1"
ASSIGN = f"az role assignment create --assignee-object-id {OBJECT}"
TO_PUBLISH = (
    f"`{ASSIGN} --assignee-principal-type ServicePrincipal "
    '--role "Storage Blob Data Contributor" --scope $(az storage account show --name shop'
)


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """Return an application."""
    return Application(tmp_path / "application")


@pytest.fixture(autouse=True)
def served(
    application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    """Serve the stand-in, as the model store of the application."""
    with serve(application.azure, tmp_path) as found:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(found.authority))
        for name, value in {
            **SERVICE_PRINCIPAL,
            "TWINSHIP_MODEL__STORE": "az://models",
            "AZURE_STORAGE_ACCOUNT_NAME": "shop",
            "AZURE_STORAGE_ENDPOINT": f"https://{HOST}:{found.port}/shop",
        }.items():
            monkeypatch.setenv(name, value)
        yield found


def check(application: Application) -> Check:
    """Return the check of the model store."""
    found = application.context("staging").azure_doctor().checks()
    return next(one for one in found if one.part == "model store")


def test_an_identity_that_can_publish(application: Application) -> None:
    """Nothing is written to find that out, and a blob of that name is left alone."""
    blobs = {"models/probe": b"mine"}
    application.azure.blobs.blobs.update(blobs)
    assert check(application) == Check("model store", "az://models, can fetch and publish")
    assert application.azure.blobs.blobs == blobs


def test_an_identity_that_can_only_fetch_is_told_how_to_publish(application: Application) -> None:
    """That is no failure: a release only fetches."""
    application.azure.roles = {"blob reader"}
    found = check(application)
    assert found.ok
    assert found.found.startswith(f"az://models, can fetch; to publish: {TO_PUBLISH}")


def test_an_identity_without_a_role_is_told_which(application: Application) -> None:
    """Owner and Contributor of the account are not enough."""
    application.azure.roles.clear()
    found = check(application)
    assert not found.ok
    assert TO_PUBLISH in found.cure
    assert "Owner or Contributor are not" in found.cure


def test_a_key_that_can_only_fetch_is_told(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No role of the identity would help."""
    application.azure.takes_keys = True
    monkeypatch.setenv("TWINSHIP_MODEL__SAS", "STORE_SAS")
    monkeypatch.setenv("STORE_SAS", "sv=2026-01-01&sig=planted")
    read = application.azure.blobs.answer
    refused = blob_error(403, "AuthorizationPermissionMismatch")
    monkeypatch.setattr(
        application.azure.blobs,
        "answer",
        lambda asked: refused if asked.method == "PUT" else read(asked),
    )
    found = check(application)
    assert found.ok
    assert "the key or the SAS that [model] names does not allow this" in found.found
    assert "planted" not in repr(found)


def test_a_missing_container_is_the_command_that_creates_it(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no store without models."""
    monkeypatch.setenv("TWINSHIP_MODEL__STORE", "az://other")
    assert (
        "`az storage container create --account-name shop --name other --auth-mode login`"
    ) in check(application).cure


@pytest.mark.parametrize(
    ("status", "code", "cure"),
    [
        (403, "AuthorizationFailure", "the account's firewall refuses this address"),
        (401, "InvalidAuthenticationInfo", "the token is for another tenant or has expired"),
        (403, "AuthenticationFailed", "the token is for another tenant or has expired"),
        (403, "KeyBasedAuthenticationNotPermitted", "the account takes no keys"),
        (409, "PublicAccessNotPermitted", "the account has no anonymous access"),
    ],
)
def test_refusals_are_told_apart(
    application: Application, status: int, code: str, cure: str
) -> None:
    """By the service's code; none of them is a missing role."""
    application.azure.faults[HOST] = deque([blob_error(status, code)] * 2)
    found = check(application)
    assert not found.ok
    assert cure in found.cure
    assert code in found.cure
    assert "az role assignment" not in found.cure


def test_another_refusal_of_the_write_is_a_failure(application: Application) -> None:
    """Only a missing role means that others may publish."""
    nothing = Answer(200, b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>")
    refusal = blob_error(403, "AuthorizationFailure")
    application.azure.faults[HOST] = deque([nothing, refusal])
    assert "firewall" in check(application).cure
