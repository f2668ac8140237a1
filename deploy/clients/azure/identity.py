"""The one identity of a run on Azure: its tokens, kept in memory and renewed in time."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deploy.clients.azure.assertions import claims_of
from deploy.clients.azure.cloud import Cloud, find_cloud
from deploy.clients.azure.credentials import Credential
from deploy.clients.azure.errors import AzureError, no_answer_error, refused_login_error
from deploy.clients.azure.http import AzureHttp
from deploy.clients.azure.sources import Account, Source, Sources

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

_EARLY = 300.0
# What msal raises for an answer that has another form than that of a login service.
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class Token:
    """A token; its text is never shown.

    Attributes:
        value: The token.
        renew_at: When it is renewed, in seconds since 1970.
        expires_at: When it ends.
    """

    value: str = field(repr=False)
    renew_at: float
    expires_at: float


@dataclass(frozen=True)
class Principal:
    """Who an identity is.

    Attributes:
        object_id: The id that roles are assigned to.
        kind: `User` or `ServicePrincipal`.
        name: The user's name or the client id.
        tenant: The tenant.
    """

    object_id: str
    kind: str
    name: str
    tenant: str

    @classmethod
    def of(cls, token: str) -> Principal:
        """Return whom a token is for."""
        claims = claims_of(token)
        is_user = claims.get("idtyp") == "user" or bool(claims.get("upn"))
        names = ("upn", "unique_name", "preferred_username", "appid", "azp")
        return cls(
            str(claims.get("oid", "")),
            "User" if is_user else "ServicePrincipal",
            next((str(claims[name]) for name in names if claims.get(name)), ""),
            str(claims.get("tid", "")),
        )

    def __str__(self) -> str:
        return f"{self.name} of tenant {self.tenant}"


class Identity:
    """An identity, which is looked for when its first token is needed.

    Several threads can use it: of those that need a token for one resource, one requests it.

    Args:
        account: What settings say about it.
        environ: The environment of the process.
        http: Sends the requests.
        now: Returns the time in seconds since 1970.
    """

    def __init__(
        self,
        account: Account,
        environ: Mapping[str, str],
        http: AzureHttp | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.account = account
        self.http = http or AzureHttp()
        self._environ = environ
        self._now = now
        self._opening = threading.RLock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._tokens: dict[str, Token] = {}
        self._credential: Credential | None = None
        self._principal: Principal | None = None

    @property
    def names_cloud(self) -> bool:
        """Whether settings or the environment name a cloud; this imports nothing."""
        return bool(self.account.cloud or self._environ.get("AZURE_CLOUD_NAME"))

    @cached_property
    def cloud(self) -> Cloud:
        """The cloud.

        Raises:
            SettingsInvalid: There is no such cloud.
        """
        return find_cloud(self.account.cloud, self._environ)

    @cached_property
    def source(self) -> Source:
        """Where the login comes from.

        Raises:
            AzureError: There is no login.
        """
        return Sources(self.account, self._environ, self.cloud, self.http).find()

    @property
    def subscription(self) -> str:
        """The id of the subscription; empty if none is known."""
        variable = self._environ.get("AZURE_SUBSCRIPTION_ID", "")
        return self.account.subscription or variable or self.source.subscription

    @property
    def tenant(self) -> str:
        """The id of the tenant; empty if it is not known yet."""
        with self._opening:
            known = self.source.tenant
        return known or (self._principal.tenant if self._principal else "")

    def principal(self) -> Principal:
        """Return who this is.

        Raises:
            AzureError: There is no login, or it was refused.
        """
        if self._principal is None:
            self.token(self.cloud.management)
        assert self._principal is not None  # noqa: S101 - the first token sets it
        return self._principal

    def token(self, resource: str, refused: str = "") -> Token:
        """Return a token for a resource.

        Args:
            resource: The audience, without `/.default`.
            refused: The value of a token that the resource did not accept: it is replaced.

        Raises:
            AzureError: There is no login, or it was refused.
        """
        with self._opening:
            lock = self._locks[resource]
        with lock:
            kept = self._tokens.get(resource)
            is_refused = kept is not None and kept.value == refused
            if kept is not None and not is_refused and self._now() < kept.renew_at:
                return kept
            try:
                found = self._request(resource, renew=bool(refused))
            except AzureError:
                # It is renewed early for this: the authority may be away for a moment.
                if kept is None or is_refused or self._now() >= kept.expires_at:
                    raise
                return kept
            self._tokens[resource] = found
            return found

    def send(
        self, resource: str, method: str, url: str, params: Mapping[str, str]
    ) -> requests.Response:
        """Send a request with a token, and once more with another if its token is refused.

        Args:
            resource: The audience of the token.
            method: The HTTP method.
            url: The URL.
            params: The parameters of the URL.

        Raises:
            AzureError: There was no answer, or no login.
        """
        token = self.token(resource).value
        response = self.http.send(method, url, token=token, params=params)
        if response.status_code != 401:
            return response
        token = self.token(resource, token).value
        return self.http.send(method, url, token=token, params=params)

    def _request(self, resource: str, *, renew: bool) -> Token:
        scope = f"{resource}/.default"
        with self._translate(scope):
            credential = self._open(renew=renew)
            challenge = {"claims_challenge": _new_token(self._now())} if renew else {}
            found = credential.acquire_token([scope], **challenge)
            token = _token_of(found, self._now())
        self._introduce(token)
        return token

    def _open(self, *, renew: bool) -> Credential:
        """Return the credential; a new one if its tokens are not to be used again."""
        with self._opening:
            if self._credential is None or renew:
                self._credential = self.source.open()
            return self._credential

    def _introduce(self, token: Token) -> None:
        """Say once with whom this works."""
        with self._opening:
            if self._principal is None:
                self._principal = Principal.of(token.value)
                log.info("azure  %s, as %s", self.source.name, self._principal)

    @contextmanager
    def _translate(self, scope: str) -> Iterator[None]:
        """Translate the errors of azure-cli-core, without causes: they hold requests."""
        import requests
        from azure.cli.core.azclierror import AuthenticationError
        from knack.util import CLIError
        from msal.exceptions import MsalError

        source = self.source
        on = f"{source.name}, tenant {source.tenant or 'unknown'}"
        try:
            yield
        except AuthenticationError as error:
            known = {"client": source.client_id, "tenant": source.tenant, "scope": scope}
            refusal = getattr(error, "msal_error", None) or {"error_description": str(error)}
            claims = source.assertion.claims if source.assertion else {}
            raise refused_login_error(refusal, on, known, claims, source.advice) from None
        except requests.RequestException as error:
            raise no_answer_error(self.cloud.authority, error) from None
        except (CLIError, MsalError, OSError, *_MALFORMED) as error:
            # The first lines: the others are advice for users of `az`, or a stack of settings.
            raise AzureError(
                f"the login to Azure cannot be used ({type(error).__name__})",
                on=on,
                next=source.advice
                or "check `tenant` and `cloud` in [azure], or log in again: `az login`",
                detail=f"  {str(error).splitlines()[0][:300]}" if str(error) else "",
            ) from None


def seconds_to_renewal(lifetime: float) -> float:
    """Return after how many seconds of its life a token is renewed: five minutes before its end."""
    # A token that lives for minutes only is renewed after half of its life.
    return lifetime - _EARLY if lifetime > 2 * _EARLY else lifetime / 2


def _token_of(found: Mapping[str, Any], now: float) -> Token:
    lifetime = float(found["expires_in"])
    return Token(str(found["access_token"]), now + seconds_to_renewal(lifetime), now + lifetime)


def _new_token(now: float) -> str:
    """Return the claims that keep msal from its cache (continuous access evaluation)."""
    return json.dumps({"access_token": {"nbf": {"essential": True, "value": str(int(now))}}})
