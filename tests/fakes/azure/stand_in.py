"""A stand-in for Azure: its login service, CI systems, registry, key vault and management API.

It speaks the published shapes. An adapter of requests reaches it in memory, under the real names;
`tests/fakes/azure/server.py` serves the same over TLS.
"""

from __future__ import annotations

import base64
import io
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import requests
import urllib3
from jwt.algorithms import RSAAlgorithm
from requests.adapters import BaseAdapter

from tests.fakes.azure.blobs import BlobService, blob_error
from tests.fakes.azure.exchange import Answer, Asked
from tests.fakes.azure.tokens import Signer

TENANT = "11111111-aaaa-4aaa-8aaa-111111111111"
CLIENT = "22222222-bbbb-4bbb-8bbb-222222222222"
OBJECT = "33333333-cccc-4ccc-8ccc-333333333333"
SUBSCRIPTION = "44444444-dddd-4ddd-8ddd-444444444444"
USER = "ada@example.com"
USER_OBJECT = "55555555-eeee-4eee-8eee-555555555555"
SECRET = "planted-client-secret"
REFRESH = "planted-refresh-token"
AUDIENCE = "api://AzureADTokenExchange"
GITHUB = "https://token.actions.githubusercontent.com"
PIPELINES = "https://vstoken.dev.azure.com/organisation"
SUBJECT = "repo:example/shop:environment:production"
CONNECTION = "sc://organisation/project/connection"
REGISTRY = "shop.azurecr.io"
CLUSTER = "6dae42f8-4368-4678-94ff-3960e28e3630"
ISSUER = f"https://sts.windows.net/{TENANT}/"
VAULT = "safe.vault.azure.net"

_REFUSALS = {
    "secret": (7000215, "Invalid client secret provided."),
    "app": (700016, "Application was not found in the directory."),
    "federation": (700213, "No matching federated identity record found."),
    "expired": (700024, "Client assertion is not within its valid time range."),
    "user": (700082, "The refresh token has expired due to inactivity."),
    "subject": (70021, "No matching federated identity record found for presented assertion."),
    "case": (7002138, "The presented assertion subject does not match by case."),
    "tenant": (90002, "Tenant was not found."),
    "old secret": (7000222, "The provided client secret keys are expired."),
    "revoked": (50173, "The provided grant has expired due to it being revoked."),
    "factor": (50076, "You must use multi-factor authentication."),
    "enrolment": (50079, "The user is required to use multi-factor authentication."),
}
_REPOSITORY_ROLES = {"repository writer": {"push", "pull"}, "repository reader": {"pull"}}
_REGISTRY_ROLES = {"push", "pull", *_REPOSITORY_ROLES}
# An expired or revoked login, or one that lacks a factor, has another status.
_OF_USERS = {"user", "revoked", "factor", "enrolment"}


class Cut(Exception):
    """A connection that breaks without an answer."""


@dataclass(frozen=True)
class Late:
    """An answer that comes after some seconds."""

    seconds: float


Fault = Answer | Late | type[Cut]


class StandIn:
    """Azure, for one tenant, with one service principal and one user.

    Attributes:
        roles: what the identity may do: `push`, `pull`, `repository writer`,
            `repository reader`, `secrets`, `cluster`, `blobs`, `blob reader`.
        lifetime: the seconds of a token's life.
        assertion_lifetime: the seconds of an assertion's life; those of GitHub live for 300.
        secret: the secret of the service principal.
        subjects: the federated credentials: pairs of issuer and subject.
        faults: what goes wrong with the next requests to a host, by the host's name.
        asked: all requests, in order.
        secrets: the secrets of the key vault.
        subscriptions: those that the identity sees: it has a role there.
        kubeconfig: the kubeconfig of the cluster.
        cluster_token: what is given as the token for the cluster; empty for one of its own.
        blobs: the store.
        revoked: tokens that services no longer accept.
        client_key: the key of the service principal's certificate.
        user_is_known: whether the user's login is still good.
        takes_keys: whether the store takes keys.
        refusal: the name of the refusal that each login gets; empty for none.
        firewall: whether the registry refuses the address of its client.
        abac: whether the registry honours roles for repositories alone.
        refuses_early: whether the registry's login service gives no token of fewer actions than
            were asked for.
    """

    def __init__(self) -> None:
        self.signer = Signer()
        self.roles = {"push", "pull", "secrets", "cluster", "blobs"}
        self.lifetime = 3600.0
        self.assertion_lifetime = 300.0
        self.secret = SECRET
        self.subjects = {(GITHUB, SUBJECT), (PIPELINES, CONNECTION)}
        self.faults: dict[str, deque[Fault]] = {}
        self.asked: list[Asked] = []
        self.secrets = {"password": "planted-vault-secret"}
        self.subscriptions: list[str] = []
        self.kubeconfig = ""
        self.cluster_token = ""
        self.blobs = BlobService()
        self.revoked: set[str] = set()
        self.client_key: Signer | None = None
        self.user_is_known = True
        self.firewall = False
        self.abac = False
        self.refuses_early = False
        self.refusal = ""
        self.takes_keys = False

    def answer(self, asked: Asked) -> Answer:
        """Return the answer to a request.

        Raises:
            Cut: the connection breaks.
        """
        self.asked.append(asked)
        return self.take_fault(asked.host) or self._service(asked)

    def take_fault(self, host: str) -> Answer | None:
        """Let the next fault of a host happen; return its answer, or None for the true one.

        Raises:
            Cut: the connection breaks.
        """
        try:
            fault = self.faults[host].popleft()
        except LookupError:
            return None
        if isinstance(fault, Late):
            time.sleep(fault.seconds)
            return None
        if isinstance(fault, Answer):
            return fault
        raise fault

    def hosts(self) -> list[str]:
        """Return the hosts of all requests, in order."""
        return [one.host for one in self.asked]

    def tokens_issued(self, resource: str) -> int:
        """Return how many requests for a token of a resource there were."""
        wanted = f"{resource}/.default"
        return sum(wanted in one.value("scope").split() for one in self.asked)

    def _service(self, asked: Asked) -> Answer:
        services = {
            "login.": self._authority,
            "sts.": self._issuer,
            "169.254.": self._machine,
            "pipelines.actions.": self._github,
            "dev.azure.": self._pipelines,
            "management.": self._management,
            ".azurecr.": self._registry,
            ".vault.": self._vault,
            "127.0.0.1": self._blobs,
        }
        found = (serve for part, serve in services.items() if part in asked.host)
        return next(found, lambda _: Answer(404))(asked)

    # --- the login service

    def _issuer(self, asked: Asked) -> Answer:
        """Return by what a service that gets tokens checks them (OpenID Connect Discovery)."""
        if asked.path == "/common/discovery/keys":
            key = RSAAlgorithm.to_jwk(self.signer.key.public_key(), as_dict=True)
            return Answer(200, {"keys": [{**key, "use": "sig", "alg": "RS256"}]})
        base = f"https://login.microsoftonline.com/{TENANT}/oauth2"
        return Answer(
            200,
            {
                "issuer": ISSUER,
                "authorization_endpoint": f"{base}/authorize",
                "token_endpoint": f"{base}/token",
                "jwks_uri": f"https://{asked.host}/common/discovery/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            },
        )

    def _authority(self, asked: Asked) -> Answer:
        base = f"https://{urlsplit(asked.url).netloc}/{asked.path.split('/')[1]}"
        if asked.path.endswith("/.well-known/openid-configuration"):
            return Answer(
                200,
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                },
            )
        if asked.path == "/common/discovery/instance":
            names = {"preferred_network": asked.host, "preferred_cache": asked.host}
            return Answer(200, {"metadata": [names | {"aliases": [asked.host]}]})
        if self.refusal:
            return _refusal(self.refusal)
        if asked.value("grant_type") == "refresh_token":
            return self._user_token(asked)
        return self._principal_token(asked)

    def _principal_token(self, asked: Asked) -> Answer:
        if asked.value("client_id") != CLIENT:
            return _refusal("app")
        if "client_assertion" in asked.form:
            refused = self._check_assertion(asked.value("client_assertion"), asked.url)
        else:
            refused = "" if asked.value("client_secret") == self.secret else "secret"
        if refused:
            return _refusal(refused)
        claims = {"appid": CLIENT, "oid": OBJECT, "idtyp": "app"}
        return self._token(asked, claims)

    def _check_assertion(self, assertion: str, endpoint: str) -> str:
        if self.client_key is not None and "x5t" in jwt.get_unverified_header(assertion):
            return "" if self.client_key.claims(assertion, endpoint)["sub"] == CLIENT else "secret"
        try:
            claims = self.signer.claims(assertion, AUDIENCE)
        except jwt.ExpiredSignatureError:
            return "expired"
        except jwt.InvalidTokenError:
            return "federation"
        return "" if (claims["iss"], claims["sub"]) in self.subjects else "federation"

    def _user_token(self, asked: Asked) -> Answer:
        if not self.user_is_known or asked.value("refresh_token") != REFRESH:
            return _refusal("user")
        return self._token(asked, {"upn": USER, "oid": USER_OBJECT, "idtyp": "user"})

    def _token(self, asked: Asked, claims: Mapping[str, str]) -> Answer:
        scope = next(one for one in asked.value("scope").split() if one.endswith("/.default"))
        token = self._sign_in(scope.removesuffix("/.default"), claims)
        lifetime = int(self.lifetime)
        body = {"token_type": "Bearer", "expires_in": lifetime, "access_token": token}
        if asked.value("grant_type") == "refresh_token":
            body |= {"refresh_token": REFRESH, "scope": scope}
        return Answer(200, body)

    def _sign_in(self, resource: str, claims: Mapping[str, str]) -> str:
        """Return a token for a resource."""
        if self.cluster_token and resource == CLUSTER:
            return self.cluster_token
        return self.signer.sign(
            self.lifetime, aud=resource, iss=ISSUER, tid=TENANT, ver="1.0", **claims
        )

    def _machine(self, asked: Asked) -> Answer:
        if asked.headers.get("Metadata") != "true":
            return Answer(400)
        client = asked.value("client_id") or CLIENT
        token = self._sign_in(
            asked.value("resource"), {"appid": client, "oid": OBJECT, "idtyp": "app"}
        )
        return Answer(200, {"access_token": token, "expires_in": str(int(self.lifetime))})

    # --- the CI systems

    def assertion(self, issuer: str, subject: str) -> str:
        """Return an assertion of a CI system."""
        return self.signer.sign(self.assertion_lifetime, iss=issuer, sub=subject, aud=AUDIENCE)

    def _github(self, asked: Asked) -> Answer:
        if asked.token != "planted-request-token" or asked.value("audience") != AUDIENCE:
            return Answer(401)
        return Answer(200, {"value": self.assertion(GITHUB, SUBJECT)})

    def _pipelines(self, asked: Asked) -> Answer:
        if asked.token != "planted-access-token" or asked.value("serviceConnectionId") != "c1":
            return Answer(401)
        return Answer(200, {"oidcToken": self.assertion(PIPELINES, CONNECTION)})

    # --- the services

    def accepts(self, token: str, audience: str) -> bool:
        """Return whether a service takes a token."""
        if token in self.revoked:
            return False
        try:
            self.signer.claims(token, audience)
        except jwt.InvalidTokenError:
            return False
        return True

    def _registry(self, asked: Asked) -> Answer:
        if asked.path == "/oauth2/exchange":
            return self._exchange(asked)
        if asked.path == "/oauth2/token":
            return self._registry_token(asked)
        if asked.path == "/v2/" or not self._registry_allows(asked):
            base = f"https://{urlsplit(asked.url).netloc}"
            challenge = f'Bearer realm="{base}/oauth2/token",service="{asked.host}"'
            return Answer(401, _registry_error("UNAUTHORIZED"), {"WWW-Authenticate": challenge})
        return Answer(200)

    def _exchange(self, asked: Asked) -> Answer:
        if self.firewall:
            text = "client with IP '10.0.0.7' is not allowed access."
            return Answer(403, _registry_error("DENIED", text))
        audience = "https://containerregistry.azure.net"
        if asked.value("service") != asked.host or not self.roles & _REGISTRY_ROLES:
            return Answer(401, _registry_error("UNAUTHORIZED"))
        if not self.accepts(asked.value("access_token"), audience):
            return Answer(401, _registry_error("UNAUTHORIZED"))
        token = self.signer.sign(self.lifetime * 3, aud=asked.host, grant_type="refresh_token")
        return Answer(200, {"refresh_token": token})

    def _registry_token(self, asked: Asked) -> Answer:
        login = base64.b64decode(asked.headers.get("Authorization", "").partition(" ")[2])
        refresh = login.decode().partition(":")[2]
        if not self.accepts(refresh, asked.host):
            return Answer(401, _registry_error("UNAUTHORIZED"))
        scopes = asked.form.get("scope", [])
        access = [self._granted(scope) for scope in scopes]
        wanted = [scope.rpartition(":")[2].split(",") for scope in scopes]
        if self.refuses_early and [one["actions"] for one in access] != wanted:
            return Answer(401, _registry_error("UNAUTHORIZED"))
        token = self.signer.sign(self.lifetime, iss=asked.host, aud=asked.host, access=access)
        return Answer(200, {"access_token": token})

    def _granted(self, scope: str) -> dict[str, Any]:
        kind, name, actions = scope.split(":")
        granted = [action for action in actions.split(",") if action in self._registry_actions()]
        return {"type": kind, "name": name, "actions": granted}

    def _registry_actions(self) -> set[str]:
        """Return what those roles allow that the registry honours."""
        if not self.abac:
            return self.roles & {"push", "pull"}
        return set().union(*(_REPOSITORY_ROLES.get(role, set()) for role in self.roles))

    def _registry_allows(self, asked: Asked) -> bool:
        if not self.accepts(asked.token, asked.host):
            return False
        access = self.signer.claims(asked.token, asked.host)["access"]
        wanted = "pull" if asked.method in ("GET", "HEAD") else "push"
        return any(wanted in one["actions"] for one in access)

    def _vault(self, asked: Asked) -> Answer:
        audience = f"https://{asked.host.partition('.')[2]}"
        if not self.accepts(asked.token, audience):
            challenge = (
                f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", '
                f'resource="{audience}"'
            )
            return Answer(401, _error("Unauthorized"), {"WWW-Authenticate": challenge})
        if "secrets" not in self.roles:
            inner = {"innererror": {"code": "ForbiddenByRbac"}}
            return Answer(403, _error("Forbidden", "Caller is not authorized.", **inner))
        name = asked.path.split("/")[2]
        if name not in self.secrets:
            return Answer(404, _error("SecretNotFound"))
        return Answer(200, {"value": self.secrets[name], "attributes": {"enabled": True}})

    def _blobs(self, asked: Asked) -> Answer:
        if asked.value("sig") or asked.headers.get("Authorization", "").startswith("SharedKey"):
            known = self.blobs if self.takes_keys else None
            refusal = blob_error(403, "KeyBasedAuthenticationNotPermitted")
            return known.answer(asked) if known else refusal
        if not self.accepts(asked.token, "https://storage.azure.com"):
            return blob_error(401, "InvalidAuthenticationInfo")
        reads = asked.method in ("GET", "HEAD")
        if not self.roles & ({"blobs", "blob reader"} if reads else {"blobs"}):
            return blob_error(403, "AuthorizationPermissionMismatch")
        return self.blobs.answer(asked)

    def _management(self, asked: Asked) -> Answer:
        # Only the public cloud has two names for it.
        name = asked.host.replace("management.azure.com", "management.windows.net")
        audience = f"https://{name.replace('management.', 'management.core.', 1)}/"
        if not self.accepts(asked.token, audience):
            return Answer(401, _error("InvalidAuthenticationToken"))
        if asked.path == "/subscriptions":
            found = [{"subscriptionId": one, "state": "Enabled"} for one in self.subscriptions]
            return Answer(200, {"value": found})
        if asked.path.endswith("/listClusterUserCredential"):
            if "cluster" not in self.roles:
                return Answer(403, _error("AuthorizationFailed", _lacking(asked.path)))
            value = base64.b64encode(self.kubeconfig.encode()).decode()
            return Answer(200, {"kubeconfigs": [{"name": "clusterUser", "value": value}]})
        return Answer(404, _error("ResourceNotFound"))


def _refusal(kind: str) -> Answer:
    code, text = _REFUSALS[kind]
    return Answer(
        400 if kind in _OF_USERS else 401,
        {
            "error": "invalid_grant" if kind in _OF_USERS else "invalid_client",
            "error_description": f"AADSTS{code}: {text} Trace ID: 0 Correlation ID: 0",
            "error_codes": [code],
        },
    )


def _lacking(path: str) -> str:
    scope, _, action = path.rpartition("/")
    return (
        f"The client '{CLIENT}' with object id '{OBJECT}' does not have authorization to perform "
        f"action 'Microsoft.ContainerService/managedClusters/{action}/action' over scope "
        f"'{scope}' or the scope is invalid. If access was recently granted, please refresh your "
        "credentials."
    )


def _error(code: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}


def _registry_error(code: str, message: str = "authentication required") -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


class StandInAdapter(BaseAdapter):
    """Connects requests to a stand-in in memory."""

    def __init__(self, azure: StandIn) -> None:
        super().__init__()
        self._azure = azure

    def send(  # type: ignore[override]  # its other arguments are not used
        self, request: requests.PreparedRequest, **_: Any
    ) -> requests.Response:
        """Return the stand-in's answer."""
        try:
            answer = self._azure.answer(asked_of(request))
        except Cut:
            raise requests.ConnectionError("cut") from None
        response = requests.Response()
        response.request = request
        response.url = str(request.url)
        response.status_code = answer.status
        response.headers.update(answer.headers)
        response.raw = urllib3.HTTPResponse(io.BytesIO(answer.data), preload_content=False)
        return response

    def close(self) -> None:
        """Close nothing."""


def asked_of(request: requests.PreparedRequest) -> Asked:
    """Return a request of requests as the stand-in takes it."""
    body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
    return make_asked(str(request.method), str(request.url), request.headers, body)


def make_asked(method: str, url: str, given: Mapping[str, str], body: bytes) -> Asked:
    """Return a request as the stand-in takes it."""
    headers = requests.structures.CaseInsensitiveDict(given)
    is_form = "form-urlencoded" in headers.get("Content-Type", "")
    kind, _, token = headers.get("Authorization", "").partition(" ")
    return Asked(
        method,
        url,
        parse_qs(urlsplit(url).query) | (parse_qs(body.decode()) if is_form else {}),
        token if kind.lower() == "bearer" else "",
        headers,
        body,
    )
