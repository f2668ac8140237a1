"""The places in Azure Blob that a location can mean."""

from __future__ import annotations

import pytest
from obstore.exceptions import PermissionDeniedError

from deploy.clients.azure.blob import (
    BlobCredentials,
    BlobRefusals,
    find_address,
    open_blob_store,
)
from deploy.clients.azure.names import is_blob_location
from deploy.clients.azure.sources import Account
from deploy.errors import SettingsInvalid, StoreUnreachable
from tests.fakes.azure.logins import SERVICE_PRINCIPAL, identity_on
from tests.fakes.azure.stand_in import OBJECT, StandIn

NAMED = {"AZURE_STORAGE_ACCOUNT_NAME": "shop"}
PUBLIC = "https://shop.blob.core.windows.net"


@pytest.mark.parametrize(
    ("location", "cloud", "expected"),
    [
        ("az://models/a/b", "", ("shop", "models", "a/b", PUBLIC)),
        ("azure://models", "", ("shop", "models", "", PUBLIC)),
        (f"{PUBLIC}/models/a", "", ("shop", "models", "a", PUBLIC)),
        (
            "https://shop.privatelink.blob.core.windows.net/models",
            "",
            ("shop", "models", "", PUBLIC),
        ),
        ("abfss://models@shop.dfs.core.windows.net/a", "", ("shop", "models", "a", PUBLIC)),
        (
            "https://shop.blob.core.chinacloudapi.cn/models/a",
            "AzureChinaCloud",
            ("shop", "models", "a", "https://shop.blob.core.chinacloudapi.cn"),
        ),
        (
            "https://shop.blob.core.usgovcloudapi.net/models",
            "AzureUSGovernment",
            ("shop", "models", "", "https://shop.blob.core.usgovcloudapi.net"),
        ),
    ],
)
def test_locations(
    azure: StandIn, location: str, cloud: str, expected: tuple[str, str, str, str]
) -> None:
    """By container with the account in a variable, or by URL, in every cloud."""
    assert is_blob_location(location)
    found = find_address(location, identity_on(azure, {}, Account(cloud=cloud)), NAMED)
    assert (found.account, found.container, found.prefix, found.endpoint) == expected


@pytest.mark.parametrize("location", ["s3://a/b", "gs://a", "models", "https://shop.example/a"])
def test_other_locations(location: str) -> None:
    """They are opened as before, and nothing of Azure is imported."""
    assert not is_blob_location(location)


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ("https://shop.blob.core.chinacloudapi.cn/models", "is not in the cloud AzureCloud"),
        ("https://shop.blob.core.windows.net.example/models", "is not in the cloud AzureCloud"),
        (f"{PUBLIC}/", "has no container"),
        ("az://models", "has no storage account"),
    ],
)
def test_locations_that_cannot_be_used(azure: StandIn, location: str, what: str) -> None:
    """Tokens are sent to the identity's own cloud alone."""
    with pytest.raises(SettingsInvalid, match=what):
        find_address(location, identity_on(azure, {}), {})


@pytest.mark.parametrize("endpoint", ["minio:9000", "http://minio", "https://", "https://a:x"])
def test_an_endpoint_that_is_no_url_with_https_is_told(azure: StandIn, endpoint: str) -> None:
    """The library ends the process at some, and sends no token without TLS."""
    environ = {**NAMED, "AZURE_STORAGE_ENDPOINT": endpoint}
    with pytest.raises(SettingsInvalid, match="AZURE_STORAGE_ENDPOINT is no URL with https"):
        find_address("az://models", identity_on(azure, {}), environ)


@pytest.mark.parametrize("location", [f"{PUBLIC}/?sv=1&sig=hunter2", "az://models?sig=hunter2"])
def test_a_signature_in_a_location_is_not_shown(azure: StandIn, location: str) -> None:
    """A URL that was copied from the portal has one."""
    with pytest.raises(SettingsInvalid, match="has no") as caught:
        find_address(location, identity_on(azure, {}), {})
    assert caught.value.on == location.partition("?")[0]


def test_a_stored_key_is_warned_of(azure: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """It is not shown."""
    identity = identity_on(azure, {})
    open_blob_store("az://models", identity, NAMED, {"access_key": "cGxhbnRlZA=="})
    assert "a stored key opens the model store" in caplog.text
    assert "cGxhbnRlZA" not in caplog.text


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ({}, "the token is for another tenant or has expired"),
        ({"sas_token": "sv=1"}, "the key or the SAS that [model] names is wrong or has expired"),
    ],
)
def test_a_login_that_is_not_accepted_is_told_of_the_login_in_use(
    azure: StandIn, key: dict[str, str], advice: str
) -> None:
    """The service has one code for tokens and for keys."""
    identity = identity_on(azure, SERVICE_PRINCIPAL)
    address = find_address("az://models", identity, NAMED)
    refusals = BlobRefusals(address, identity, BlobCredentials(identity, key))
    error = StoreUnreachable("the model store refused the request", on="az://models", next="")
    with pytest.raises(StoreUnreachable) as caught, refusals.explain():
        raise error from PermissionError("<Code>AuthenticationFailed</Code>")
    assert caught.value.next.startswith(advice)
    assert caught.value.next.endswith("(AuthenticationFailed)")


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ({}, f"--assignee-object-id {OBJECT}"),
        ({"sas_token": "sv=1"}, "the key or the SAS that [model] names does not allow this"),
    ],
)
@pytest.mark.parametrize(
    "refusal",
    [
        PermissionError("<Code>AuthorizationPermissionMismatch</Code>"),
        PermissionError("status code: 403"),
        PermissionDeniedError("no"),
    ],
)
def test_what_a_refusal_needs_is_told_of_the_login_in_use(
    azure: StandIn, key: dict[str, str], advice: str, refusal: Exception
) -> None:
    """An identity that could log in as well has no part in a request with a key."""
    identity = identity_on(azure, SERVICE_PRINCIPAL)
    address = find_address("az://models", identity, NAMED)
    refusals = BlobRefusals(address, identity, BlobCredentials(identity, key))
    error = StoreUnreachable("the model store refused the request", on="az://models", next="")
    with pytest.raises(StoreUnreachable) as caught, refusals.explain():
        raise error from refusal
    assert advice in caught.value.next
