"""Where a login to Azure can come from; the first source that is there is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.clients.azure import az_login, credentials
from deploy.clients.azure.assertions import (
    Assertion,
    file_assertion,
    github_assertion,
    pipelines_assertion,
)
from deploy.clients.azure.cloud import Cloud, config_folder
from deploy.clients.azure.credentials import Credential
from deploy.clients.azure.errors import AzureError, NoLogin
from deploy.clients.azure.http import AzureHttp
from deploy.clients.network import is_reachable
from deploy.clients.secrets import read_secret
from deploy.errors import SettingsInvalid

_IMDS = ("169.254.169.254", 80)
_ASSIGN = (
    "assign an identity to this machine (`az vm identity assign`), or set `client_id` in [azure] "
    "to that of the one that is assigned"
)
_NO_CLIENT = "set `tenant` and `client_id` in [azure], or AZURE_TENANT_ID and AZURE_CLIENT_ID"


@dataclass(frozen=True)
class Account:
    """What settings say about the identity; all of it is optional.

    Attributes:
        tenant: The id of the tenant.
        client_id: The client id of a service principal or managed identity.
        client_secret: The name of the environment variable with the client's secret.
        subscription: The id of the subscription.
        cloud: The name of the cloud.
        managed_identity: Whether the identity of the machine may be used.
    """

    tenant: str = ""
    client_id: str = ""
    client_secret: str = ""
    subscription: str = ""
    cloud: str = ""
    managed_identity: bool = False


@dataclass(frozen=True)
class Source:
    """A login that is there.

    Attributes:
        name: For people.
        open: Returns a new credential.
        tenant: The tenant; empty for a managed identity, whose tenant is not known before.
        client_id: The client id; empty if there is none.
        subscription: The subscription that the login has chosen; empty if it has none.
        assertion: The assertion of a federated login.
        advice: What to do about a refusal that is not known; empty for the usual.
    """

    name: str
    open: Callable[[], Credential] = field(repr=False)
    tenant: str = ""
    client_id: str = ""
    subscription: str = ""
    assertion: Assertion | None = field(default=None, repr=False)
    advice: str = ""


@dataclass(frozen=True)
class Missing:
    """A source that is not there, and why."""

    name: str
    why: str


class Sources:
    """The sources of a login.

    Args:
        account: What settings say.
        environ: The environment of the process.
        cloud: The cloud.
        http: Sends the requests.
    """

    def __init__(
        self, account: Account, environ: Mapping[str, str], cloud: Cloud, http: AzureHttp
    ) -> None:
        self._account = account
        self._environ = environ
        self._http = http
        self._cloud = cloud
        self._authority = environ.get("AZURE_AUTHORITY_HOST") or cloud.authority
        self._tenant = account.tenant or environ.get("AZURE_TENANT_ID", "")
        self._client = account.client_id or environ.get("AZURE_CLIENT_ID", "")

    def find(self) -> Source:
        """Return the first source that is there.

        Raises:
            NoLogin: There is none; the detail says what was looked for.
        """
        missing: list[Missing] = []
        for found in self._all():
            if isinstance(found, Source):
                return found
            missing.append(found)
        raise NoLogin(
            "there is no login to Azure",
            on=f"the cloud {self._cloud.name}",
            next="`az login` on this machine; in GitHub Actions `permissions: id-token: write` "
            "with the client and tenant id; docs/11-azure.md has all ways",
            detail="\n".join(f"  {one.name}: {one.why}" for one in missing),
        )

    def _all(self) -> Iterator[Source | Missing]:
        yield self._named_secret()
        yield self._github()
        yield self._pipelines()
        yield self._token_file()
        yield self._secret()
        yield self._certificate()
        yield self._az_login()
        yield self._managed_identity()

    def _options(self, tenant: str) -> dict[str, Any]:
        return credentials.application_options(self._authority, tenant, self._http)

    def _principal(self, name: str, secret: Callable[[], object]) -> Source | Missing:
        tenant = self._tenant
        client = self._client
        if not (tenant and client):
            return Missing(name, _NO_CLIENT)
        return Source(
            name,
            lambda: credentials.principal_credential(client, secret(), self._options(tenant)),
            tenant,
            client,
        )

    def _federated(
        self, name: str, assertion: Assertion, tenant: str, client: str
    ) -> Source | Missing:
        if not (tenant and client):
            return Missing(name, _NO_CLIENT)
        return Source(
            name,
            lambda: credentials.federated_credential(client, assertion, self._options(tenant)),
            tenant,
            client,
            assertion=assertion,
        )

    def _named_secret(self) -> Source | Missing:
        variable = self._account.client_secret
        name = "the variable of [azure] client_secret"
        if not variable:
            return Missing(name, "none is named")
        secret = self._read_client_secret(variable)
        return self._principal(name, lambda: secret)

    def _read_client_secret(self, variable: str) -> str:
        # CI systems set a variable whose secret is missing to nothing.
        filled = {name: value for name, value in self._environ.items() if value}
        on = "[azure] client_secret"
        try:
            return read_secret(
                "client_secret", variable, filled, on=on, example="AZURE_CLIENT_SECRET"
            )
        except SettingsInvalid as error:
            raise AzureError(error.what, on=error.on, next=error.next) from None

    def _github(self) -> Source | Missing:
        name = "GitHub Actions (OpenID Connect)"
        if not self._environ.get("GITHUB_ACTIONS"):
            return Missing(name, "this is no job there")
        if not self._has("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
            return Missing(name, "the job has no `permissions: id-token: write`")
        assertion = github_assertion(self._environ, self._http)
        return self._federated(name, assertion, self._tenant, self._client)

    def _pipelines(self) -> Source | Missing:
        name = "Azure Pipelines (service connection)"
        if not self._has("SYSTEM_OIDCREQUESTURI"):
            return Missing(name, "this is no job there")
        connection = self._environ.get("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "")
        if not connection:
            return Missing(name, "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID is not set")
        if not self._has("SYSTEM_ACCESSTOKEN"):
            return Missing(name, "map SYSTEM_ACCESSTOKEN: $(System.AccessToken) in the step")
        assertion = pipelines_assertion(self._environ, connection, self._http)
        tenant = self._tenant or self._environ.get("AZURESUBSCRIPTION_TENANT_ID", "")
        client = self._client or self._environ.get("AZURESUBSCRIPTION_CLIENT_ID", "")
        return self._federated(name, assertion, tenant, client)

    def _token_file(self) -> Source | Missing:
        name = "workload identity (AZURE_FEDERATED_TOKEN_FILE)"
        path = self._environ.get("AZURE_FEDERATED_TOKEN_FILE", "")
        if not path:
            return Missing(name, "the variable is not set")
        return self._federated(name, file_assertion(Path(path)), self._tenant, self._client)

    def _secret(self) -> Source | Missing:
        name = "a service principal (AZURE_CLIENT_SECRET)"
        secret = self._environ.get("AZURE_CLIENT_SECRET", "")
        return self._principal(name, lambda: secret) if secret else Missing(name, "it is not set")

    def _certificate(self) -> Source | Missing:
        name = "a service principal (AZURE_CLIENT_CERTIFICATE_PATH)"
        path = self._environ.get("AZURE_CLIENT_CERTIFICATE_PATH", "")
        if not path:
            return Missing(name, "it is not set")
        passphrase = self._environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD", "")
        return self._principal(
            name,
            lambda: credentials.certificate_of(self._client, self._tenant, Path(path), passphrase),
        )

    def _az_login(self) -> Source | Missing:
        name = "`az login`"
        folder = config_folder(self._environ)
        wanted = self._account.subscription or self._environ.get("AZURE_SUBSCRIPTION_ID", "")
        found = az_login.read_subscription(folder, self._cloud.name, wanted, self._account.tenant)
        if found is None:
            return Missing(name, f"{folder} has no login to {self._cloud.name}")
        user = found.get("user") or {}
        if user.get("assignedIdentityInfo"):
            return Missing(name, "it is a managed identity: set `managed_identity` in [azure]")
        tenant = str(found.get("tenantId"))
        open_login = self._user if user.get("type") == "user" else self._logged_in_principal
        return Source(
            name,
            lambda: open_login(folder, str(user.get("name")), tenant),
            tenant,
            subscription=str(found.get("id") or ""),
        )

    def _user(self, folder: Path, user: str, tenant: str) -> Credential:
        cache = az_login.read_token_cache(folder, user)
        return credentials.user_credential(user, cache, self._options(tenant))

    def _logged_in_principal(self, folder: Path, client: str, tenant: str) -> Credential:
        entry = az_login.read_principal(folder, client, tenant)
        if entry.get("client_assertion"):
            assertion = Assertion(lambda: str(entry["client_assertion"]))
            return credentials.federated_credential(client, assertion, self._options(tenant))
        secret = credentials.secret_of(entry)
        return credentials.principal_credential(client, secret, self._options(tenant))

    def _managed_identity(self) -> Source | Missing:
        name = "managed identity"
        if not self._account.managed_identity:
            return Missing(name, "[azure] managed_identity is not set")
        # Off Azure a request to this address would hang.
        elsewhere = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
        if not any(map(os.environ.get, elsewhere)) and not is_reachable(*_IMDS, timeout=1.0):
            return Missing(name, "this machine has none")
        http = self._http.without_proxy()
        return Source(
            name,
            lambda: credentials.managed_credential(self._client, http),
            client_id=self._client,
            advice=_ASSIGN,
        )

    def _has(self, *variables: str) -> bool:
        return all(map(self._environ.get, variables))
