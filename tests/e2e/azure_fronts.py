"""The addresses of a registry and a store on Azure: the stand-in decides, real parts do the work.

A part behind such an address knows neither the roles of the stand-in nor the faults of a network.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from tests.fakes.azure.blobs import blob_error
from tests.fakes.azure.exchange import Answer, Asked
from tests.fakes.azure.stand_in import StandIn

REALM = "https://realm.invalid/oauth2/token"
STORAGE = "https://storage.azure.com"
_READS = ("GET", "HEAD")
# What concerns one connection only, and what the server of the address writes itself.
_OF_CONNECTIONS = ("Transfer-Encoding", "Connection", "Keep-Alive", "Date")

Connect = Callable[[], http.client.HTTPConnection]


class RegistryFront:
    """The address of a registry: its logins are the stand-in's, its images those of a real one.

    Args:
        azure: the stand-in.
        name: the registry's name on Azure.
        connect: connects to the real registry.

    Attributes:
        name: the registry's name on Azure.
        delay: the seconds that each write takes longer.
        asked: all requests, in order, without their bodies.
    """

    def __init__(self, azure: StandIn, name: str, connect: Connect) -> None:
        self.name = name
        self.delay = 0.0
        self.asked: list[Asked] = []
        self._azure = azure
        self._connect = connect

    @property
    def exchanges(self) -> int:
        """How many tokens of the identity were exchanged for one of the registry."""
        return sum(one.path == "/oauth2/exchange" for one in self.asked)

    def answer(self, asked: Asked) -> Answer:
        """Return the answer to a request.

        Raises:
            Cut: the connection breaks.
        """
        self.asked.append(replace(asked, body=b""))
        if not asked.path.startswith("/v2/"):
            return self._azure.answer(asked.to(self.name))
        # Whether a registry on this machine is there is asked once.
        fault = None if asked.path == "/v2/" else self._azure.take_fault(self.name)
        return fault or self._answer_images(asked)

    def _answer_images(self, asked: Asked) -> Answer:
        if asked.method not in _READS:
            if not self._azure.accepts(asked.token, self.name):
                # The real registry would take a token for a minute after its end.
                asked = _without_login(asked)
            time.sleep(self.delay)
        found = _forward(asked, self._connect())
        headers = dict(found.headers)
        if "Www-Authenticate" in headers:
            parts = urlsplit(asked.url)
            own = f"{parts.scheme}://{parts.netloc}/oauth2/token"
            headers["Www-Authenticate"] = headers["Www-Authenticate"].replace(REALM, own)
        return replace(found, headers=headers)


class StoreFront:
    """The address of a store: its logins and roles are the stand-in's, its blobs those of Azurite.

    Args:
        azure: the stand-in.
        connect: connects to Azurite.
    """

    def __init__(self, azure: StandIn, connect: Connect) -> None:
        self._azure = azure
        self._connect = connect

    def answer(self, asked: Asked) -> Answer:
        """Return the answer to a request.

        Raises:
            Cut: the connection breaks.
        """
        fault = self._azure.take_fault(asked.host)
        return fault or self._refusal(asked) or _forward(asked, self._connect())

    def _refusal(self, asked: Asked) -> Answer | None:
        """Return the refusal of an identity; Azurite itself checks keys."""
        if not asked.token:
            return None
        if not self._azure.accepts(asked.token, STORAGE):
            return blob_error(401, "InvalidAuthenticationInfo")
        if "blobs" not in self._azure.roles:
            return blob_error(403, "AuthorizationPermissionMismatch")
        return None


def _without_login(asked: Asked) -> Asked:
    headers = {
        name: value for name, value in asked.headers.items() if name.lower() != "authorization"
    }
    return replace(asked, token="", headers=headers)


def _forward(asked: Asked, connection: http.client.HTTPConnection) -> Answer:
    """Return the answer of a real part to a request."""
    path = asked.url.partition(urlsplit(asked.url).netloc)[2]
    try:
        connection.request(asked.method, path, asked.body or None, dict(asked.headers))
        response = connection.getresponse()
        headers = {name.title(): value for name, value in response.getheaders()}
        data = response.read()
    finally:
        connection.close()
    for name in _OF_CONNECTIONS:
        headers.pop(name, None)
    return Answer(response.status, data, headers)
