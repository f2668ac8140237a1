"""Secrets in a key vault."""

from __future__ import annotations

from collections import deque

import pytest

from deploy.clients.azure.key_vault import KeyVault
from deploy.clients.secrets import NamedSecrets
from deploy.errors import SettingsInvalid
from tests.fakes.azure.exchange import Answer
from tests.fakes.azure.logins import SERVICE_PRINCIPAL, identity_on
from tests.fakes.azure.stand_in import OBJECT, TENANT, VAULT, StandIn

PASSWORD = "keyvault://safe/password"


def vault_on(azure: StandIn) -> KeyVault:
    """Return the key vaults of the stand-in."""
    return KeyVault(identity_on(azure, SERVICE_PRINCIPAL))


def refusal_of(azure: StandIn, location: str = PASSWORD) -> SettingsInvalid:
    """Return the error of a secret that cannot be read."""
    with pytest.raises(SettingsInvalid) as caught:
        vault_on(azure).read(location)
    return caught.value


def test_a_secret_is_read_once(azure: StandIn) -> None:
    """Vaults limit how often they are asked."""
    vault = vault_on(azure)
    assert vault.read(PASSWORD) == "planted-vault-secret"
    assert vault.read(PASSWORD) == "planted-vault-secret"
    assert azure.hosts().count(VAULT) == 1


def test_a_version_can_be_named(azure: StandIn) -> None:
    """Without one it is the current one."""
    vault_on(azure).read(f"{PASSWORD}/0123abc")
    assert azure.asked[-1].path == "/secrets/password/0123abc"


def test_settings_name_variables_or_secrets(azure: StandIn) -> None:
    """A variable's name is never looked for in a vault."""
    secrets = NamedSecrets({"VARIABLE": "value"}, vault_on(azure).read)
    assert secrets["VARIABLE"] == "value"
    assert azure.asked == []
    assert secrets[PASSWORD] == "planted-vault-secret"
    with pytest.raises(KeyError):
        secrets["OTHER"]


@pytest.mark.parametrize(
    "location", ["keyvault://safe", "keyvault://safe.example/a", "keyvault://a/b/c/d"]
)
def test_other_locations_are_errors(azure: StandIn, location: str) -> None:
    """No token is sent to a host that is no vault of the cloud."""
    assert "keyvault://VAULT/NAME" in refusal_of(azure, location).next
    assert azure.asked == []


def test_a_missing_secret_is_told(azure: StandIn) -> None:
    """The advice is to create it."""
    error = refusal_of(azure, "keyvault://safe/other")
    assert error.what == "the key vault answered 404 SecretNotFound"
    assert "`az keyvault secret set --vault-name safe --name other --file FILE`" in error.next


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        (
            "ForbiddenByRbac",
            '--role "Key Vault Secrets User" --scope $(az keyvault show --name safe',
        ),
        (
            "AccessDenied",
            f"`az keyvault set-policy --name safe --secret-permissions get --object-id {OBJECT}`",
        ),
        ("ForbiddenByFirewall", "firewall"),
        ("ForbiddenByConnection", "run where the vault can be reached"),
        (
            "SecretDisabled",
            "`az keyvault secret set-attributes --vault-name safe --name password --enabled true`",
        ),
    ],
)
def test_refusals_are_told_apart(azure: StandIn, reason: str, cure: str) -> None:
    """A role, an access policy and a firewall have different cures."""
    body = {"error": {"code": "Forbidden", "innererror": {"code": reason}}}
    azure.faults[VAULT] = deque([Answer(403, body)])
    error = refusal_of(azure)
    assert error.what == f"the key vault answered 403 {reason}"
    assert cure in error.next


def test_a_refused_token_is_replaced(azure: StandIn) -> None:
    """Once; then the vault belongs to another tenant."""
    azure.faults[VAULT] = deque([Answer(401)])
    assert vault_on(azure).read(PASSWORD) == "planted-vault-secret"
    azure.faults[VAULT] = deque([Answer(401), Answer(401)])
    assert "another tenant" in refusal_of(azure).next


def test_a_vault_of_another_tenant_says_which(azure: StandIn) -> None:
    """Its challenge has the tenant, to which no token is sent by itself."""
    other = "https://login.microsoftonline.com/other-tenant"
    challenge = f'Bearer authorization="{other}", resource="https://vault.azure.net"'
    refused = Answer(401, {}, {"WWW-Authenticate": challenge})
    azure.faults[VAULT] = deque([refused, refused])
    error = refusal_of(azure)
    assert "set `tenant` in [azure] to other-tenant" in error.next
    assert f"of tenant {TENANT}" in error.next
    assert not any("other-tenant" in one.url for one in azure.asked)


def test_a_busy_vault_is_asked_again(azure: StandIn) -> None:
    """It says when."""
    azure.faults[VAULT] = deque([Answer(429, {}, {"Retry-After": "2"})])
    assert vault_on(azure).read(PASSWORD) == "planted-vault-secret"
