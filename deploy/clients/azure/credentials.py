"""The credential classes of azure-cli-core, with token caches in memory.

They are no public interface of that package: a contract test holds the names that are used here.
Nothing here writes a file. The package's own logins do, so none of them is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from deploy.clients.azure.assertions import Assertion
from deploy.clients.azure.certificate import require_certificate
from deploy.clients.azure.http import AzureHttp


class Credential(Protocol):
    """A login that gives tokens."""

    def acquire_token(self, scopes: list[str], **options: object) -> Mapping[str, Any]:
        """Return a token; with `claims_challenge` a new one."""


def application_options(authority: str, tenant: str, http: AzureHttp) -> dict[str, Any]:
    """Return msal's options of an application.

    Args:
        authority: The URL of the login service.
        tenant: The tenant.
        http: Sends the requests.
    """
    import msal
    from msal.authority import WELL_KNOWN_AUTHORITY_HOSTS

    is_known = urlsplit(authority).hostname in WELL_KNOWN_AUTHORITY_HOSTS
    is_adfs = authority.rstrip("/").endswith("/adfs")
    return {
        "authority": authority if is_adfs else f"{authority.rstrip('/')}/{tenant}",
        "token_cache": msal.TokenCache(),
        # Microsoft's own service knows nothing of the others.
        "instance_discovery": None if is_known else False,
        "client_capabilities": ["CP1"],
        "http_client": http,
    }


def principal_credential(client: str, secret: object, options: Mapping[str, Any]) -> Credential:
    """Return the credential of a service principal.

    Args:
        client: The client id.
        secret: Its secret, or the parts of its certificate, as msal takes them.
        options: The options of the application.
    """
    from azure.cli.core.auth.msal_credentials import ServicePrincipalCredential

    found: Credential = ServicePrincipalCredential(client, secret, **options)
    return found


def federated_credential(
    client: str, assertion: Assertion, options: Mapping[str, Any]
) -> Credential:
    """Return the credential of a federated login; it requests an assertion for each token."""
    return principal_credential(client, {"client_assertion": assertion}, options)


def certificate_of(client: str, tenant: str, path: Path, passphrase: str) -> dict[str, Any]:
    """Return the secret of a service principal with a certificate, in a PEM file with its key.

    Raises:
        AzureError: The file has not both, or the passphrase does not open the key.
    """
    require_certificate(path, passphrase)
    entry = {"client_id": client, "tenant": tenant, "certificate": str(path)}
    found: dict[str, Any] = secret_of(entry)
    return found | ({"passphrase": passphrase} if passphrase else {})


def secret_of(entry: Mapping[str, Any]) -> Any:  # noqa: ANN401 - msal takes a text or parts
    """Return the secret in an entry of azure-cli-core, as msal takes it."""
    from azure.cli.core.auth.identity import ServicePrincipalAuth

    return ServicePrincipalAuth(dict(entry)).get_msal_client_credential()


def user_credential(user: str, token_cache: str, options: Mapping[str, Any]) -> Credential:
    """Return the credential of a user who logged in with `az`.

    Args:
        user: The user's name.
        token_cache: The text of a token cache.
        options: The options of the application.
    """
    import msal
    from azure.cli.core.auth.constants import AZURE_CLI_CLIENT_ID
    from azure.cli.core.auth.msal_credentials import UserCredential

    copy = msal.SerializableTokenCache()
    copy.deserialize(token_cache)
    found: Credential = UserCredential(
        AZURE_CLI_CLIENT_ID, user, **(dict(options) | {"token_cache": copy})
    )
    return found


def managed_credential(client: str, http: AzureHttp) -> Credential:
    """Return the credential of a managed identity.

    Args:
        client: The client id of the identity; empty for the one of the machine.
        http: Sends the requests.
    """
    import msal
    from azure.cli.core.auth.msal_credentials import ManagedIdentityCredential

    class TimedManagedIdentity(ManagedIdentityCredential):  # type: ignore[misc]  # the library has no types
        """The library's class, whose own requests have no time limit."""

        def __init__(self) -> None:
            identity = (
                msal.UserAssignedManagedIdentity(client_id=client)
                if client
                else msal.SystemAssignedManagedIdentity()
            )
            self._msal_client = msal.ManagedIdentityClient(identity, http_client=http)

    found: Credential = TimedManagedIdentity()
    return found
