"""The names of azure-cli-core that are used: they are no public interface of that package."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from azure.cli.core import cloud
from azure.cli.core.auth import constants, identity, msal_credentials, persistence
from azure.cli.core.azclierror import AuthenticationError


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (
            msal_credentials.ServicePrincipalCredential,
            ["client_id", "client_credential", "kwargs"],
        ),
        (msal_credentials.ServicePrincipalCredential.acquire_token, ["self", "scopes", "kwargs"]),
        (msal_credentials.UserCredential, ["client_id", "username", "kwargs"]),
        (
            msal_credentials.UserCredential.acquire_token,
            ["self", "scopes", "claims_challenge", "kwargs"],
        ),
        (msal_credentials.ManagedIdentityCredential, ["client_id", "resource_id", "object_id"]),
        (msal_credentials.ManagedIdentityCredential.acquire_token, ["self", "scopes", "kwargs"]),
        (identity.ServicePrincipalAuth, ["entry"]),
        (identity.ServicePrincipalAuth.get_msal_client_credential, ["self"]),
        (cloud.get_clouds, ["cli_ctx"]),
        (cloud.get_default_cloud_name, []),
        (persistence.build_persistence, ["location", "encrypt"]),
    ],
)
def test_functions(function: Callable[..., object], parameters: list[str]) -> None:
    """They take what `deploy/clients/azure` gives them."""
    assert list(inspect.signature(function).parameters) == parameters


def test_values() -> None:
    """What is read of the package's modules and objects."""
    known = {one.name: one for one in cloud.HARD_CODED_CLOUD_LIST}
    assert known["AzureCloud"].suffixes.acr_login_server_endpoint == ".azurecr.io"
    assert known["AzureCloud"].endpoints.active_directory == "https://login.microsoftonline.com"
    assert isinstance(cloud.CLOUD_CONFIG_FILE, str)
    assert constants.AZURE_CLI_CLIENT_ID == "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
    assert AuthenticationError("no", msal_error={"error_codes": [1]}).msal_error


def test_the_client_of_a_managed_identity() -> None:
    """The subclass with time limits sets it."""
    source = inspect.getsource(msal_credentials.ManagedIdentityCredential)
    assert source.count("self._msal_client = ") == 1
    assert "self._msal_client.acquire_token_for_client(" in source
