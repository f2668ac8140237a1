"""The identity and its clients over TLS, on a stand-in with an authority of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.azure.errors import AzureError
from deploy.clients.azure.http import AzureHttp
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.registry import RegistryLogin
from deploy.clients.azure.sources import Account
from deploy.clients.oci.client import HttpRegistry
from deploy.errors import RegistryDenied
from tests.fakes.azure.logins import SERVICE_PRINCIPAL
from tests.fakes.azure.server import Served, serve
from tests.fakes.azure.stand_in import StandIn

pytestmark = pytest.mark.integration

NAMES = ("login.azure.test", "shop.azurecr.test")
STORAGE = "https://storage.azure.com"


@pytest.fixture
def served(azure: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve the stand-in, under names that lead to this machine."""
    look_up = socket.getaddrinfo

    def here(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host in NAMES else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    authorities = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    for name in (*authorities, "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve(azure, tmp_path, *NAMES) as found:
        yield found


def identity_at(served: Served, http: AzureHttp | None = None) -> Identity:
    """Return an identity whose login service is the stand-in."""
    login = {"AZURE_AUTHORITY_HOST": f"https://login.azure.test:{served.port}"}
    return Identity(Account(), SERVICE_PRINCIPAL | login, http)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_one_setting_names_the_authority(
    azure: StandIn, served: Served, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Each of the two is enough for the library of tokens, too."""
    monkeypatch.setenv(variable, str(served.authority))
    token = identity_at(served).token(STORAGE)
    assert azure.accepts(token.value, STORAGE)


def test_an_unknown_authority_is_told(served: Served) -> None:
    """The advice names the variables."""
    with pytest.raises(AzureError, match="is not trusted") as caught:
        identity_at(served, AzureHttp(lambda _: None)).token(STORAGE)
    assert "REQUESTS_CA_BUNDLE or SSL_CERT_FILE" in caught.value.next


def test_a_service_that_does_not_answer_ends_in_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library itself has no time limits."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(served.authority))
        quiet = Served(silent.getsockname()[1], served.authority)
        http = AzureHttp(lambda _: None, connect=0.3, read=0.3, attempts=2)
        with pytest.raises(AzureError, match="gave no answer"):
            identity_at(quiet, http).token(STORAGE)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_real_registry_client_logs_in_and_tells_a_missing_role(
    azure: StandIn, served: Served, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The token of the registry has fewer actions where a role is missing."""
    monkeypatch.setenv(variable, str(served.authority))
    azure.roles.discard("push")
    host = f"shop.azurecr.test:{served.port}"
    registry = HttpRegistry(host, RegistryLogin(host, identity_at(served)))
    assert registry.has_blob("shop", "sha256:" + "0" * 64)
    with pytest.raises(RegistryDenied) as caught:
        registry.put_manifest("shop", "latest", b"{}")
    assert '--role "AcrPush"' in caught.value.next
