"""The environments of the sources of a login, and the files that `az login` leaves."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.clients.azure.http import AzureHttp
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.sources import Account
from tests.fakes.azure.stand_in import (
    CLIENT,
    REFRESH,
    SECRET,
    SUBSCRIPTION,
    TENANT,
    USER,
    USER_OBJECT,
    StandIn,
    StandInAdapter,
)

PRINCIPAL = {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT}
SERVICE_PRINCIPAL = {**PRINCIPAL, "AZURE_CLIENT_SECRET": SECRET}
GITHUB_JOB = {
    **PRINCIPAL,
    "GITHUB_ACTIONS": "true",
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://pipelines.actions.githubusercontent.com/t?api=2",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "planted-request-token",
}
PIPELINES_JOB = {
    "AZURESUBSCRIPTION_CLIENT_ID": CLIENT,
    "AZURESUBSCRIPTION_TENANT_ID": TENANT,
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": "c1",
    "SYSTEM_OIDCREQUESTURI": "https://dev.azure.com/organisation/oidctoken",
    "SYSTEM_ACCESSTOKEN": "planted-access-token",
}


def http_to(azure: StandIn, waits: list[float] | None = None) -> AzureHttp:
    """Return a client that reaches a stand-in in memory, and records its waits."""
    seconds = waits if waits is not None else []
    return AzureHttp(seconds.append, adapter=StandInAdapter(azure))


def identity_on(
    azure: StandIn, environ: Mapping[str, str], account: Account | None = None
) -> Identity:
    """Return an identity on a stand-in in memory.

    Args:
        azure: the stand-in.
        environ: the environment of the process.
        account: what settings say.
    """
    return Identity(account or Account(), environ, http_to(azure))


def write_az_login(
    folder: Path,
    *,
    tenant: str = TENANT,
    cloud: str = "AzureCloud",
    host: str = "login.microsoftonline.com",
) -> dict[str, str]:
    """Write what `az login` of a user leaves; return the variable that names the folder.

    Args:
        folder: the folder of `az`.
        tenant: the tenant.
        cloud: the name of the cloud.
        host: the host of its login service.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subscription = {
        "id": SUBSCRIPTION,
        "name": "Shop",
        "environmentName": cloud,
        "isDefault": True,
        "state": "Enabled",
        "tenantId": tenant,
        "user": {"name": USER, "type": "user"},
    }
    (folder / "azureProfile.json").write_text(
        json.dumps({"subscriptions": [subscription]}), encoding="utf-8-sig"
    )
    (folder / "msal_token_cache.json").write_text(_token_cache(tenant, host), encoding="utf-8")
    return {"AZURE_CONFIG_DIR": str(folder)}


def _token_cache(tenant: str, host: str) -> str:
    """Return a token cache as msal writes it after a login."""
    import msal

    uid = {"uid": USER_OBJECT, "utid": tenant}
    client_info = base64.urlsafe_b64encode(json.dumps(uid).encode()).decode().rstrip("=")
    now = int(time.time())
    claims = {
        "iss": f"https://{host}/{tenant}/v2.0",
        "aud": "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
        "preferred_username": USER,
        "oid": USER_OBJECT,
        "tid": tenant,
        "sub": "s",
        "iat": now,
        "exp": now + 3600,
    }
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({}, claims)]
    cache = msal.SerializableTokenCache()
    cache.add(
        {
            "client_id": "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
            "scope": ["openid"],
            "token_endpoint": f"https://{host}/{tenant}/oauth2/v2.0/token",
            "response": {
                "access_token": "planted-old-token",
                "expires_in": 3600,
                "refresh_token": REFRESH,
                "id_token": f"{parts[0]}.{parts[1]}.",
                "client_info": client_info,
                "foci": "1",
            },
        }
    )
    return str(cache.serialize())


def write_az_principal(folder: Path, *, cloud: str = "AzureCloud") -> dict[str, str]:
    """Write what `az login --service-principal` leaves; return the variable of the folder."""
    variables = write_az_login(folder, cloud=cloud)
    path = folder / "azureProfile.json"
    profile = json.loads(path.read_text(encoding="utf-8-sig"))
    profile["subscriptions"][0]["user"] = {"name": CLIENT, "type": "servicePrincipal"}
    path.write_text(json.dumps(profile), encoding="utf-8-sig")
    entry = {"client_id": CLIENT, "tenant": TENANT, "client_secret": SECRET}
    (folder / "service_principal_entries.json").write_text(json.dumps([entry]), encoding="utf-8")
    return variables
