"""HTTP requests to the services of Azure: with time limits, one CA setting, and retries.

The library for tokens, msal, uses this client too. Proxies are those of HTTPS_PROXY and NO_PROXY.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy import progress
from deploy.clients import backoff
from deploy.clients.azure.errors import AzureError, no_answer_error
from deploy.clients.http import open_session
from deploy.clients.network import ca_bundle
from deploy.clients.oci.responses import load_body

if TYPE_CHECKING:
    import requests
    from requests.adapters import BaseAdapter

_ATTEMPTS = 4
_CONNECT = 10.0
_READ = 30.0
_SECRET_FIELDS = ("access_token", "client_assertion", "client_secret", "refresh_token")
_BUSY = frozenset({408, 429, 500, 502, 503, 504})


class AzureHttp:
    """A client that follows no redirects, as its requests have credentials.

    Args:
        wait: Waits for a number of seconds.
        connect: The time limit of a connection in seconds.
        read: The time limit of a whole answer in seconds.
        attempts: How often a request is sent while the service is busy.
        direct: Whether no proxy is used.
        adapter: Connects to the services; None for the one of requests.
    """

    def __init__(
        self,
        wait: Callable[[float], None] = time.sleep,
        connect: float = _CONNECT,
        read: float = _READ,
        attempts: int = _ATTEMPTS,
        *,
        direct: bool = False,
        adapter: BaseAdapter | None = None,
    ) -> None:
        self._wait = wait
        self._timeout = (connect, read)
        self._attempts = attempts
        self._direct = direct
        self._adapter = adapter

    def without_proxy(self) -> AzureHttp:
        """Return a client of addresses that no proxy reaches."""
        connect, read = self._timeout
        return AzureHttp(
            self._wait, connect, read, self._attempts, direct=True, adapter=self._adapter
        )

    def get(
        self, url: str, params: object = None, headers: object = None, **options: object
    ) -> requests.Response:
        """Send a request as msal does; its other options are those of this client."""
        return self.send("GET", url, params=params, headers=headers)

    def post(
        self,
        url: str,
        params: object = None,
        data: object = None,
        headers: object = None,
        **options: object,
    ) -> requests.Response:
        """Send a form as msal does; its other options are those of this client."""
        return self.send("POST", url, params=params, data=data, headers=headers)

    def close(self) -> None:
        """Close nothing: no connection is kept."""

    def send(
        self,
        method: str,
        url: str,
        *,
        token: str = "",
        **options: Any,  # noqa: ANN401 - requests' own options
    ) -> requests.Response:
        """Send a request, again while the service is busy, and return its last answer.

        Args:
            method: The HTTP method.
            url: The URL.
            token: Sent as a bearer token.
            options: Options of requests.

        Raises:
            AzureError: There was no answer.
        """
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                response = self._send_once(method, url, token, options)
            except AzureError:
                if last:
                    raise
                retry_after = ""
            else:
                if last or response.status_code not in _BUSY:
                    return response
                retry_after = response.headers.get("Retry-After", "")
            self._pause(url, attempt, retry_after)
        raise AssertionError("unreachable")

    def _pause(self, url: str, attempt: int, retry_after: str) -> None:
        progress.report(f"{urlsplit(url).hostname} is busy: trying again")
        self._wait(backoff.delay(attempt, retry_after, retry_after_limit=60.0, backoff_limit=8.0))

    def _send_once(
        self, method: str, url: str, token: str, options: Mapping[str, Any]
    ) -> requests.Response:
        import requests
        import urllib3

        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if token:
                request.headers["Authorization"] = f"Bearer {token}"
            return request

        try:
            with open_session(trust_env=not self._direct) as session:
                if self._adapter is not None:
                    session.mount("http://", self._adapter)
                    session.mount("https://", self._adapter)
                response = session.request(
                    method,
                    url,
                    auth=authorize,
                    timeout=self._timeout,
                    verify=ca_bundle() or True,
                    allow_redirects=False,
                    stream=True,
                    **options,
                )
                load_body(response, self._timeout[1])
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # Without a cause: the request that it holds has credentials.
            raise no_answer_error(url, error) from None
        if response.status_code >= 400:
            _hide(response, [token, *_secrets_in(options.get("data"))])
        return response


def _secrets_in(form: object) -> list[str]:
    """Return the secrets in the fields of a form."""
    fields = form if isinstance(form, Mapping) else {}
    values = [fields[name] for name in _SECRET_FIELDS if fields.get(name)]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _hide(response: requests.Response, secrets: list[str]) -> None:
    """Leave secrets out of a refusal: a server may repeat what it was sent."""
    content = response.content
    for secret in filter(None, secrets):
        content = content.replace(secret.encode(), "…".encode())
    response._content = content  # noqa: SLF001 - requests has no way to replace it


def json_of(response: requests.Response) -> dict[str, Any]:
    """Return the object in an answer; empty if there is none."""
    try:
        found = response.json()
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
