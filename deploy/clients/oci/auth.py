"""The authorization of requests to one registry: its login, or a token of its login service.

Sources: the distribution project's "Token Authentication Specification" and "OAuth 2.0 Token
Authentication".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from deploy.clients.oci.addresses import (
    Origin,
    find_origin,
    follow,
    prepare_redirect,
    resolve_url,
)
from deploy.clients.oci.credentials import Login
from deploy.clients.oci.errors import display_url, refusal_error
from deploy.clients.oci.responses import error_text, parse_token
from deploy.errors import RegistryDenied, RegistryError
from deploy.text import hide_secrets

if TYPE_CHECKING:
    import requests

_CLIENT = "twinship"
_OK = 200
_REFUSED = 401


class Send(Protocol):
    """A function that sends a request once, and adds no credentials to it."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> requests.Response:
        """Return the response, whose body is loaded."""


class RegistryAuth:
    """What a registry and its login service get of the user, and no other server.

    Args:
        origin: The registry.
        find_login: Returns the login, or None for anonymous access. It is called when the registry
            requires a login.
        send: Sends the requests to the login service.
    """

    def __init__(self, origin: Origin, find_login: Callable[[], Login | None], send: Send) -> None:
        self._origin = origin
        self._find_login = find_login
        self._send = send
        self._login: Login | None = None
        self._failure: RegistryDenied | None = None
        self._authorization: dict[str, str] = {}

    def header(self, url: str, scope: str) -> dict[str, str]:
        """Return the header for a request to a URL; none if that is not on the registry."""
        value = self._authorization.get(scope) or self._authorization.get("")
        return {"Authorization": value} if value and find_origin(url) == self._origin else {}

    def log_in(self, response: requests.Response, scope: str) -> bool:
        """Log in as a challenge requires; return whether there are new credentials.

        Raises:
            RegistryError: The login service refuses the login, or may not be asked.
        """
        own = find_origin(response.url) == self._origin
        challenge = response.headers.get("WWW-Authenticate", "") if own else ""
        kind, _, rest = challenge.partition(" ")
        if challenge:
            self._load_login()
        if kind.lower() == "basic" and self._login and not self._login.is_identity_token:
            self._authorization[""] = self._login.authorization
            return True
        if kind.lower() != "bearer":
            return False
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = resolve_url(response.url, fields.get("realm", ""))
        token = self._request_token(realm, fields, scope)
        self._authorization[scope] = f"Bearer {token}"
        return True

    def refusal_error(
        self, response: requests.Response, method: str, needed: str = ""
    ) -> RegistryError:
        """Return the error of a refused request, or why no login was found for it.

        Args:
            response: The refusal.
            method: The HTTP method of the request.
            needed: The method of the request that this one is for; empty for its own.
        """
        if response.status_code in (401, 403) and self._failure:
            return self._failure
        detail = self._hide_secrets(error_text(response))
        error = refusal_error(response, method, response.url, detail)
        if isinstance(error, RegistryDenied) and self._login and self._login.advise:
            error.next = self._login.advise(needed or method, detail)
        return error

    def _hide_secrets(self, text: str) -> str:
        """Return a text without the credentials that the registry may have repeated."""
        login = self._login
        sent = [*self._authorization.values(), *([login.authorization] if login else [])]
        secrets = [value.partition(" ")[2] for value in sent]
        return hide_secrets(text, [*secrets, login.password if login else ""])

    def _load_login(self) -> None:
        """Find the login; one that cannot be read is an error only if the registry needs it."""
        try:
            self._login = self._find_login()
        except RegistryDenied as error:
            self._failure = error

    def _request_token(self, realm: str, challenge: Mapping[str, str], scope: str) -> str:
        """Return a token of the login service at the realm of a challenge.

        Raises:
            RegistryDenied: The service gave none, or would be reached without encryption.
        """
        # One parameter for each repository: a mount has two.
        scopes = (scope or challenge.get("scope", "")).split()
        service = challenge.get("service", "")
        method, response = self._ask_for_token(realm, service, scopes)
        if response.status_code == _REFUSED and self._renew_login():
            method, response = self._ask_for_token(realm, service, scopes)
        if response.status_code != _OK:
            raise self.refusal_error(response, method, "PUT" if _may_push(scopes) else "GET")
        token = parse_token(response)
        if token is None:
            raise RegistryDenied(
                "the registry's login service gave no token",
                on=display_url(realm),
                next="check the address of the registry",
            )
        return token

    def _ask_for_token(
        self, realm: str, service: str, scopes: list[str]
    ) -> tuple[str, requests.Response]:
        """Return the method of a request for a token with the present login, and the response."""
        origin = self._require_private(realm)
        method, headers, options = self._token_request(service, scopes)

        def check(url: str) -> None:
            if find_origin(url) != origin:
                raise _login_error("the registry's login service redirects to another server", url)
            prepare_redirect(options)

        return method, follow(
            method, realm, lambda url: self._send(method, url, headers, options), check
        )

    def _renew_login(self) -> bool:
        """Replace a login that was refused before its end; return whether there is another."""
        renew = self._login.renew if self._login else None
        another = renew() if renew else None
        if another is None:
            return False
        self._login = another
        return True

    def _require_private(self, realm: str) -> Origin:
        """Refuse a login service without HTTPS, unless it and the registry are on this machine."""
        origin = find_origin(realm)
        if not (origin.is_https or (origin.is_loopback and self._origin.is_loopback)):
            raise _login_error("the registry asks to log in over an unencrypted address", realm)
        return origin

    def _token_request(
        self, service: str, scopes: list[str]
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        """Return the method, the headers and the options of the request for a token."""
        login = self._login
        if login and login.is_identity_token:
            form = {
                "grant_type": "refresh_token",
                "client_id": _CLIENT,
                "service": service,
                "scope": " ".join(scopes),
                "refresh_token": login.password,
            }
            return "POST", {}, {"data": form}
        headers = {"Authorization": login.authorization} if login else {}
        return "GET", headers, {"params": {"service": service, "scope": scopes}}


def _may_push(scopes: list[str]) -> bool:
    """Return whether one of the scopes `repository:NAME:ACTIONS` is to push."""
    return any("push" in scope.rpartition(":")[2].split(",") for scope in scopes)


def _login_error(what: str, url: str) -> RegistryDenied:
    return RegistryDenied(what, on=display_url(url), next="use a registry whose login has HTTPS")
