"""The assertions of federated logins: who a CI job or a pod is, by the word of its own system.

Sources: GitHub's "OpenID Connect reference"; Azure Pipelines' REST API "Oidctoken - Create";
"Workload identity federation" of Microsoft Entra.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.clients.azure.errors import AzureError
from deploy.clients.azure.http import AzureHttp, json_of

_AUDIENCE = "api://AzureADTokenExchange"


class Assertion:
    """An assertion that is requested again at each call, as it lives for a few minutes only.

    Args:
        request: Returns a new assertion.

    Attributes:
        claims: What the last one said: its issuer, its subject, its audience.
    """

    def __init__(self, request: Callable[[], str]) -> None:
        self._request = request
        self.claims: Mapping[str, Any] = {}

    def __call__(self) -> str:
        """Return a new assertion.

        Raises:
            AzureError: There is none.
        """
        assertion = self._request()
        self.claims = claims_of(assertion)
        return assertion


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a JSON Web Token without a check; empty if it is none."""
    part = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def github_assertion(environ: Mapping[str, str], http: AzureHttp) -> Assertion:
    """Return the assertion of a job in GitHub Actions."""

    def request() -> str:
        response = http.send(
            "GET",
            environ["ACTIONS_ID_TOKEN_REQUEST_URL"],
            token=environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"],
            params={"audience": _AUDIENCE},
        )
        return _require(
            json_of(response).get("value"),
            f"GitHub answered {response.status_code}",
            "give the job `permissions: id-token: write`",
        )

    return Assertion(request)


def pipelines_assertion(environ: Mapping[str, str], connection: str, http: AzureHttp) -> Assertion:
    """Return the assertion of a service connection in Azure Pipelines."""

    def request() -> str:
        response = http.send(
            "POST",
            environ["SYSTEM_OIDCREQUESTURI"],
            token=environ["SYSTEM_ACCESSTOKEN"],
            params={"api-version": "7.1", "serviceConnectionId": connection},
            headers={"Content-Type": "application/json"},
        )
        return _require(
            json_of(response).get("oidcToken"),
            f"Azure Pipelines answered {response.status_code}",
            "check the service connection, and map SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
        )

    return Assertion(request)


def file_assertion(path: Path) -> Assertion:
    """Return the assertion in a file; the system that writes it replaces it from time to time."""

    def request() -> str:
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AzureError(
                f"the federated token cannot be read ({type(error).__name__})",
                on=str(path),
                next="check AZURE_FEDERATED_TOKEN_FILE",
            ) from error

    return Assertion(request)


def _require(found: object, what: str, cure: str) -> str:
    if isinstance(found, str) and found:
        return found
    raise AzureError(f"there is no federated token: {what}", on="the login to Azure", next=cure)
