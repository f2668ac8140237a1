"""HTTP requests to one registry, with its login and with retries.

Credentials belong to a host: they are sent to the registry and to the login service that it names,
over HTTPS or on this machine, and to no other server. What is written stays on the registry, too;
what is read may come from another server, to which the request is sent without credentials.
Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from deploy import progress
from deploy.clients import backoff
from deploy.clients.http import make_adapter, open_session, read_body
from deploy.clients.oci.addresses import (
    READS,
    find_origin,
    follow,
    prepare_redirect,
    registry_url,
    resolve_url,
    rewind_body,
)
from deploy.clients.oci.auth import RegistryAuth
from deploy.clients.oci.bodies import ResponseStream
from deploy.clients.oci.credentials import Login
from deploy.clients.oci.errors import display_url, no_registry_error, translate_errors
from deploy.clients.oci.responses import load_body
from deploy.errors import RegistryError, RegistryRefused, RegistryUnreachable

if TYPE_CHECKING:
    import requests

ATTEMPTS = 6
OK = 200
_BLOCK = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class RetryPolicy:
    """The timeouts of a registry in seconds, and the pauses between attempts.

    Attributes:
        connect: The timeout of a connection.
        read: The timeout of the next bytes.
        wait: Waits for a number of seconds.
    """

    connect: float = 10.0
    read: float = 120.0
    wait: Callable[[float], None] = time.sleep

    def pause(self, attempt: int, retry_after: str) -> None:
        """Wait before another attempt, at most a minute if the registry sets the time."""
        self.wait(backoff.delay(attempt, retry_after, retry_after_limit=60.0, backoff_limit=8.0))


class RegistryHttp:
    """HTTP requests to one registry.

    Args:
        host: A name or address, with its port if that is not the scheme's own. Loopback hosts use
            plain HTTP.
        find_login: Returns credentials, or None for anonymous access. It is called when the
            registry requires a login.
        retry_policy: The timeouts and pauses.
    """

    def __init__(
        self, host: str, find_login: Callable[[], Login | None], retry_policy: RetryPolicy
    ) -> None:
        self.retry_policy = retry_policy
        self._base = registry_url(host)
        self._origin = find_origin(self._base)
        self._auth = RegistryAuth(self._origin, find_login, self._send_plainly)
        self._opened_session: requests.Session | None = None

    def send(
        self,
        method: str,
        url: str,
        repository: str = "",
        **options: Any,  # noqa: ANN401 - requests' own options
    ) -> requests.Response:
        """Send a request as `send_once` does, and repeat it after transient failures."""
        return self.retry(lambda: self.send_once(method, url, repository, **options))

    def has_blob(self, repository: str, digest: str) -> bool:
        """Return whether a repository has a blob."""
        path = f"/v2/{repository}/blobs/{digest}"
        return self.send("HEAD", path, repository, expect=(OK, 404)).status_code == OK

    def retry(self, attempt: Callable[[], Result]) -> Result:
        """Return what an attempt returns; repeat it after transient failures."""
        for number in range(1, ATTEMPTS + 1):
            try:
                return attempt()
            except (RegistryUnreachable, RegistryRefused) as error:
                if number == ATTEMPTS or not error.transient:
                    raise
                self.pause(number, error)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, error: RegistryError) -> None:
        """Wait before another attempt, and report the reason."""
        progress.report(f"{error.what}: trying again")
        self.retry_policy.pause(attempt, error.retry_after)

    def send_once(
        self,
        method: str,
        url: str,
        repository: str = "",
        *,
        source: str = "",
        expect: tuple[int, ...] = (OK,),
        anonymous: bool = False,
        stream: bool = False,
        **options: Any,  # noqa: ANN401 - requests' own options
    ) -> requests.Response:
        """Send a request, follow redirects, and log in if the registry requires that.

        Args:
            method: The HTTP method.
            url: The path, or the full URL.
            repository: The repository that the login is for.
            source: Another repository that is read from.
            expect: The statuses that are not an error.
            anonymous: Whether no login is sent, even if the registry requires one.
            stream: Whether the caller reads the body; otherwise all of it has arrived.
            options: Options of requests.

        Raises:
            RegistryError: The registry refuses the request, or redirects it to where it may not go.
        """
        scope = _scope(method, repository, source)

        def send(url: str) -> requests.Response:
            if anonymous:
                return self._send_plainly(method, url, {}, {**options, "stream": stream})
            return self._send_with_login(method, url, scope, stream=stream, **options)

        def check(url: str) -> None:
            if method in READS:
                self._require_readable(url)
            else:
                self._require_own(url)
            prepare_redirect(options)

        response = follow(method, resolve_url(self._base, url), send, check)
        if response.status_code in expect:
            return response
        raise self._auth.refusal_error(response, method)

    def _send_with_login(
        self,
        method: str,
        url: str,
        scope: str,
        **options: Any,  # noqa: ANN401 - requests' own options
    ) -> requests.Response:
        """Send a request, and repeat it once with a login if the registry requires one."""
        headers = self._auth.header(url, scope)
        response = self._send_plainly(method, url, headers, options)
        if response.status_code != 401 or not self._auth.log_in(response, scope):
            return response
        rewind_body(options.get("data"))
        headers = self._auth.header(url, scope)
        return self._send_plainly(method, url, headers, options)

    def _send_plainly(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> requests.Response:
        """Send a request once, without a redirect; load the body unless it is to be streamed.

        Args:
            method: The HTTP method.
            url: The full URL.
            headers: In addition to those of the options.
            options: Options of requests.
        """
        with translate_errors(url):
            response = self._session.request(
                method,
                url,
                **{
                    **options,
                    "headers": {**options.get("headers", {}), **headers},
                    "timeout": (self.retry_policy.connect, self.retry_policy.read),
                    "allow_redirects": False,
                    "stream": True,
                },
            )
            if not options.get("stream"):
                load_body(response, self.retry_policy.read)
        return response

    def upload_url(self, response: requests.Response) -> str:
        """Return the URL at which an upload continues; the registry may send it relative.

        Raises:
            RegistryRefused: There is none, or it is not on this registry.
        """
        location = response.headers.get("Location")
        if location is None:
            what = "the registry did not say where the upload continues"
            raise no_registry_error(what, response.url)
        url = resolve_url(response.url, location)
        self._require_own(url)
        return url

    def _require_own(self, url: str) -> None:
        """Refuse an address of another server for what is written."""
        if find_origin(url) != self._origin:
            raise RegistryRefused(
                "the registry sends what is pushed to another address",
                on=display_url(url),
                next="if that is its new address, set `registry` to it; behind a proxy, have the "
                "registry announce its own address and scheme (X-Forwarded-Proto)",
            )

    def _require_readable(self, url: str) -> None:
        """Refuse an address from which bytes would arrive less safely than from the registry."""
        found = find_origin(url)
        if not (found.is_https or (found.scheme == "http" and self._origin.is_loopback)):
            raise RegistryRefused(
                "the registry redirects to an address without HTTPS",
                on=display_url(url),
                next="have the registry redirect to HTTPS, or serve its blobs itself",
            )

    def stream_body(self, response: requests.Response) -> ResponseStream:
        """Return a response's body as a file; reading it raises errors of this project."""
        response.raw.decode_content = False
        return ResponseStream(response.raw, lambda: translate_errors(response.url))

    def read_body(self, response: requests.Response, max_bytes: int) -> bytes:
        """Return the first bytes of a streamed response's body."""
        with translate_errors(response.url):
            deadline = time.monotonic() + self.retry_policy.read
            return read_body(response.raw, max_bytes, deadline)

    @property
    def _session(self) -> requests.Session:
        if self._opened_session is None:
            # A company's HTTP proxy cannot reach the addresses of this machine.
            session = open_session(trust_env=not self._origin.is_loopback)
            session.hooks["response"] = self._load_unread_body
            for scheme in ("http://", "https://"):
                session.mount(scheme, make_adapter(max_connections=8, blocksize=_BLOCK))
            self._opened_session = session
        return self._opened_session

    def _load_unread_body(self, response: requests.Response, **_: object) -> None:
        """Load the bodies of refusals and redirects; requests would read them without limit."""
        if response.is_redirect or not response.ok:
            load_body(response, self.retry_policy.read)


def _scope(method: str, repository: str, source: str) -> str:
    """Return the scope of a token for a request, as the specification writes it."""
    if not repository:
        return ""
    pull = f" repository:{source}:pull" if source else ""
    return f"repository:{repository}:{'pull' if method in READS else 'pull,push'}{pull}"
