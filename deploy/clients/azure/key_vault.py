"""Secrets in Azure Key Vault, which settings name as `keyvault://vault/name`.

Source: Key Vault's REST API "Get Secret", and "Authentication, requests and responses".
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from deploy.clients.azure import roles
from deploy.clients.azure.errors import as_error_of
from deploy.clients.azure.http import json_of
from deploy.clients.azure.identity import Identity
from deploy.errors import SettingsInvalid

if TYPE_CHECKING:
    import requests

_LOCATION = re.compile(r"keyvault://([A-Za-z0-9-]+)/([A-Za-z0-9-]+)(?:/([A-Za-z0-9]+))?")
_VERSION = "7.4"
_TENANT = re.compile(r'authorization="https://[^/"]+/([^/"]+)')
_NETWORK = frozenset({"ForbiddenByFirewall", "ForbiddenByConnection"})


class KeyVault:
    """The key vaults that an identity can read; each secret is read once.

    Args:
        identity: The identity.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}

    def read(self, location: str) -> str:
        """Return a secret.

        Args:
            location: `keyvault://VAULT/NAME`, or with a version after it.

        Raises:
            SettingsInvalid: There is no such secret, or the vault refuses it.
        """
        with self._lock, as_error_of(SettingsInvalid):
            if location not in self._values:
                self._values[location] = self._request(location)
            return self._values[location]

    def _request(self, location: str) -> str:
        found = _LOCATION.fullmatch(location)
        if found is None:
            raise SettingsInvalid(
                "this names no secret in a key vault",
                on=location,
                next="write keyvault://VAULT/NAME, or keyvault://VAULT/NAME/VERSION",
            )
        cloud = self._identity.cloud
        suffix = cloud.require_suffix(cloud.vault_suffix, "keyvault-dns")
        version = f"/{found[3]}" if found[3] else ""
        url = f"https://{found[1]}{suffix}/secrets/{found[2]}{version}"
        resource = f"https://{suffix.removeprefix('.')}"
        response = self._identity.send(resource, "GET", url, {"api-version": _VERSION})
        body = json_of(response)
        value = body.get("value")
        if response.status_code == 200 and isinstance(value, str):
            return value
        raise self._refusal(location, found, response)

    def _refusal(
        self, location: str, named: re.Match[str], response: requests.Response
    ) -> SettingsInvalid:
        """Return the error of an answer without a secret; its body is shown by its codes alone."""
        status = response.status_code
        error = json_of(response).get("error")
        code = str(error.get("code", "")) if isinstance(error, dict) else ""
        inner = error.get("innererror") if isinstance(error, dict) else None
        reason = str(inner.get("code", "")) if isinstance(inner, dict) else ""
        return SettingsInvalid(
            f"the key vault answered {status} {reason or code}".strip(),
            on=location,
            next=self._cure(response, reason, named[1], named[2]),
        )

    def _tenant_advice(self, response: requests.Response) -> str:
        """Return what to do about a token of another tenant than the vault's."""
        challenge = response.headers.get("WWW-Authenticate", "")
        tenant = _TENANT.search(challenge)
        own = tenant[1] if tenant else "that of the vault"
        return (
            f"the vault belongs to another tenant: set `tenant` in [azure] to {own}; "
            f"this is {self._identity.principal()}"
        )

    def _cure(self, response: requests.Response, reason: str, vault: str, name: str) -> str:
        status = response.status_code
        secret = f"--vault-name {vault} --name {name}"
        if status == 401:
            return self._tenant_advice(response)
        if status == 404:
            return (
                "correct the name, or create the secret: "
                f"`az keyvault secret set {secret} --file FILE`"
            )
        if reason == "SecretDisabled":
            return f"`az keyvault secret set-attributes {secret} --enabled true`"
        if status == 403:
            return self._access_advice(reason, vault)
        return "run again; if it fails again, see the health of the vault"

    def _access_advice(self, reason: str, vault: str) -> str:
        """Return what lets the identity in, by the vault's reason to keep it out."""
        if reason in _NETWORK:
            return (
                "the vault's firewall refuses this address: add it in the vault's networking, "
                "or run where the vault can be reached"
            )
        principal = self._identity.principal()
        if reason == "AccessDenied":
            return (
                f"`az keyvault set-policy --name {vault} --secret-permissions get "
                f"--object-id {principal.object_id}`"
            )
        return roles.assignment(principal, roles.READ_SECRETS, roles.vault_scope(vault))
