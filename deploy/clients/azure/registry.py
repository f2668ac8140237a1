"""The login to a registry on Azure: a token of the identity is exchanged for one of the registry.

Source: "Azure Container Registry: AAD OAuth". The identity's token is sent to the registry's own
host over HTTPS, and to no other.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from deploy.clients.azure import roles
from deploy.clients.azure.assertions import claims_of
from deploy.clients.azure.errors import AzureError, NoLogin, as_error_of
from deploy.clients.azure.http import json_of
from deploy.clients.azure.identity import Identity, Token, seconds_to_renewal
from deploy.clients.azure.names import may_be_registry
from deploy.clients.oci.credentials import Login
from deploy.clients.oci.responses import parse_token
from deploy.errors import RegistryDenied

if TYPE_CHECKING:
    import requests

RESOURCE = "https://containerregistry.azure.net"
USER = "00000000-0000-0000-0000-000000000000"
"""The user for whom a registry takes a refresh token as the password."""

_HOUR = 3600.0
# The role in a registry with permissions for all of it, and in one with permissions for
# repositories (ABAC), which does not honour the first.
_TO_PUSH = (roles.PUSH, roles.WRITE_REPOSITORY)
_TO_PULL = (roles.PULL, roles.READ_REPOSITORY)
_REFUSED_ADDRESS = re.compile(r"client with IP '([^']*)'")


def is_registry(host: str, identity: Identity) -> bool:
    """Return whether a registry is one of the identity's cloud."""
    if not may_be_registry(host, names_cloud=identity.names_cloud):
        return False
    suffix = identity.cloud.registry_suffix
    name = host.partition(":")[0]
    # A registered cloud may have one registry, whose whole name is the suffix.
    return bool(suffix) and f".{name}".endswith(suffix)


class RegistryLogin:
    """The login to a registry, renewed five minutes before its end, or when it is refused.

    Args:
        host: The registry.
        identity: The identity.
        now: Returns the time in seconds since 1970.
    """

    def __init__(self, host: str, identity: Identity, now: Callable[[], float] = time.time) -> None:
        self._host = host
        self._identity = identity
        self._now = now
        self._lock = threading.Lock()
        self._login: Login | None = None
        self._renew_at = 0.0

    def __call__(self) -> Login | None:
        """Return the login; None if there is no identity.

        Raises:
            RegistryDenied: The identity or the exchange was refused.
        """
        with self._lock, as_error_of(RegistryDenied):
            if self._login is None or self._now() >= self._renew_at:
                try:
                    self._exchange()
                except NoLogin:
                    return None
            return self._login

    def renew(self, refused: str) -> Login | None:
        """Return another login than one whose password was refused before its end.

        Raises:
            RegistryDenied: The identity or the exchange was refused.
        """
        with self._lock:
            if self._login and self._login.password == refused:
                self._login = None
        return self()

    def _exchange(self) -> None:
        service = self._service()
        token = self._identity.token(RESOURCE)
        answer = self._send(service, token)
        if answer is None:
            # The token may have been revoked, or the identity's rights are new.
            answer = self._send(service, self._identity.token(RESOURCE, token.value))
        if answer is None:
            raise self._refusal(
                "the registry does not accept the identity",
                f"{self.advise('PUT', '')}; or set `tenant` in [azure], if the registry belongs to "
                f"another tenant than {self._identity.principal().tenant}",
            )
        now = self._now()
        lifetime = float(claims_of(answer).get("exp", now + _HOUR)) - now
        self._login = Login(USER, answer, self.advise, partial(self.renew, answer))
        self._renew_at = now + seconds_to_renewal(lifetime)

    def granted_actions(self, repository: str) -> frozenset[str]:
        """Return what the registry lets the identity do with a repository: `pull`, `push`.

        Raises:
            RegistryDenied: The identity, the exchange or the request was refused.
        """
        login = self()
        if login is None:
            return frozenset()
        response = self._ask_for_access(login, repository)
        if response.status_code == 401:
            another = self.renew(login.password)
            response = self._ask_for_access(another, repository) if another else response
        access = claims_of(parse_token(response) or "").get("access") or ()
        return frozenset(action for one in access for action in one.get("actions") or ())

    def _ask_for_access(self, login: Login, repository: str) -> requests.Response:
        """Return the answer to a request for a token that may pull and push."""
        with as_error_of(RegistryDenied):
            response = self._identity.http.send(
                "GET",
                f"https://{self._host}/oauth2/token",
                params={
                    "service": self._service(),
                    "scope": f"repository:{repository}:pull,push",
                },
                headers={"Authorization": login.authorization},
            )
            if response.status_code not in (200, 401):
                raise self._unexpected(response)
            return response

    def _service(self) -> str:
        """Return the name by which the registry's login service knows the registry."""
        response = self._identity.http.send("GET", f"https://{self._host}/v2/")
        challenge = response.headers.get("WWW-Authenticate", "")
        found = re.search(r'service="([^"]+)"', challenge)
        return found[1] if found else self._host

    def _send(self, service: str, token: Token) -> str | None:
        """Exchange a token; return None if the registry does not accept it."""
        form = {
            "grant_type": "access_token",
            "service": service,
            "access_token": token.value,
        }
        if self._identity.tenant:
            form["tenant"] = self._identity.tenant
        url = f"https://{self._host}/oauth2/exchange"
        response = self._identity.http.send("POST", url, data=form)
        found = json_of(response).get("refresh_token")
        if response.status_code == 200 and isinstance(found, str):
            return found
        if response.status_code == 401:
            return None
        raise self._unexpected(response)

    def _unexpected(self, response: requests.Response) -> AzureError:
        text = response.text[:300]
        return self._refusal(
            f"the registry answered {response.status_code} to the identity",
            self.advise("PUT", text),
            f"  {' '.join(text.split())}",
        )

    def _refusal(self, what: str, cure: str, detail: str = "") -> AzureError:
        return AzureError(what, on=self._host, next=cure, detail=detail)

    def advise(self, method: str, detail: str) -> str:
        """Return what to do when the registry refuses a request.

        Args:
            method: The HTTP method.
            detail: The registry's own messages.
        """
        address = _REFUSED_ADDRESS.search(detail)
        if address:
            return self._network_advice(address[1])
        names = _TO_PULL if method in ("GET", "HEAD") else _TO_PUSH
        scope = roles.registry_scope(self._host)
        principal = self._identity.principal()
        usual, other = (roles.assignment(principal, name, scope) for name in names)
        return (
            f"{usual}; a registry with permissions for repositories (ABAC) does not honour that "
            f"role, and needs {other}; new roles count after some minutes"
        )

    def _network_advice(self, address: str) -> str:
        name = self._host.partition(".")[0]
        return (
            f"the registry's firewall refuses the address {address}: "
            f"`az acr network-rule add --name {name} --ip-address {address}`, "
            "or run where the registry can be reached"
        )
