"""The management API of Azure: requests with the identity, and what its refusals mean.

Source: "Azure REST API reference", "Troubleshoot common Azure deployment errors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deploy.clients.azure.errors import AzureError
from deploy.clients.azure.http import json_of
from deploy.clients.azure.identity import Identity
from deploy.clients.azure.roles import USE_CLUSTER, assignment

# The message of AuthorizationFailed; no field of the answer has these.
_LACKING = re.compile(r"action '(?P<action>[^']+)' over scope '(?P<scope>[^']+)'")
_CURES: Mapping[str, str] = {
    "ResourceNotFound": "check group and name; `az resource list --output table` shows them",
    "ResourceGroupNotFound": "check the resource group; `az group list --output table` shows them",
    "SubscriptionNotFound": "set `subscription` in [azure]; `az account list` shows them",
}


class ResourceManager:
    """The management API.

    Args:
        identity: Its requests are for this identity.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def send(self, method: str, path: str, version: str, **parameters: str) -> dict[str, Any]:
        """Send a request and return the object in the answer.

        Args:
            method: The HTTP method.
            path: The path, which begins with a slash.
            version: The version of the API.
            parameters: Other parameters of the URL.

        Raises:
            AzureError: The request was refused.
        """
        resource = self._identity.cloud.management
        url = f"{self._identity.cloud.resource_manager}{path}"
        query = {"api-version": version, **parameters}
        response = self._identity.send(resource, method, url, query)
        body = json_of(response)
        if response.status_code == 200:
            return body
        error = body.get("error")
        raise self._refusal(response.status_code, path, error if isinstance(error, dict) else {})

    def subscription(self) -> str:
        """Return the id of the subscription: the one that is set, or the only one there is.

        Raises:
            AzureError: None is set, and there is not exactly one.
        """
        known = self._identity.subscription
        if known:
            return known
        found = self.send("GET", "/subscriptions", "2022-12-01").get("value") or []
        if len(found) == 1:
            return str(found[0].get("subscriptionId"))
        raise AzureError(
            f"the identity sees {len(found)} subscriptions",
            on="[azure] subscription",
            next="set `subscription` in [azure], or AZURE_SUBSCRIPTION_ID",
        )

    def _refusal(self, status: int, path: str, error: Mapping[str, Any]) -> AzureError:
        code = str(error.get("code") or "")
        message = " ".join(str(error.get("message") or "").split())[:400]
        return AzureError(
            f"Azure's management API answered {status} {code}".strip(),
            on=path,
            next=self._cure(status, code, message, path),
            detail=f"  {message}" if message else "",
        )

    def _cure(self, status: int, code: str, message: str, path: str) -> str:
        if code in _CURES:
            return _CURES[code]
        if status == 403:
            lacking = _LACKING.search(message)
            scope = lacking["scope"] if lacking else path.rpartition("/")[0]
            command = assignment(self._identity.principal(), USE_CLUSTER, scope)
            return f"{command}; a new role counts after up to half an hour"
        if "static credential" in message:
            return (
                "the cluster has neither accounts of its own nor a login by Entra: "
                f"`az aks update --ids {path.rpartition('/')[0]} --enable-aad`"
            )
        if status == 401:
            return "check `tenant` in [azure]: the resource may belong to another tenant"
        return "run again; if it fails again, see the message"
