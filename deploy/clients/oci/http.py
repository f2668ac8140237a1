"""HTTP requests to one registry, with its login and with retries.

Source: OCI distribution specification 1.1, and the distribution project's "Token Authentication
Specification".
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from deploy import progress
from deploy.clients import backoff
from deploy.clients.http import make_adapter, read_body
from deploy.clients.oci.bodies import FileChunk, ResponseStream
from deploy.clients.oci.errors import display_url, refusal_error, translate_errors
from deploy.clients.oci.responses import error_text, load_body, parse_token
from deploy.errors import RegistryDenied, RegistryError, RegistryRefused, RegistryUnreachable

if TYPE_CHECKING:
    import requests

ATTEMPTS = 6
OK = 200
_BLOCK = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Login:
    """A user and a password; its text has neither."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


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
        self.host = host
        self.retry_policy = retry_policy
        self._find_login = find_login
        self._login: Login | None = None
        self._loopback = bool(re.match(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$", host))
        self._base = f"{'http' if self._loopback else 'https'}://{host}"
        self._authorization: dict[str, str] = {}
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
        stream: bool = False,
        **options: Any,  # noqa: ANN401 - requests' own options
    ) -> requests.Response:
        """Send a request, and repeat it once with a login if the registry requires one.

        Args:
            method: The HTTP method.
            url: The path, or the full URL.
            repository: The repository that the login is for.
            source: Another repository that is read from.
            expect: The statuses that are not an error.
            stream: Whether the caller reads the body; otherwise all of it has arrived.
            options: Options of requests.
        """
        url = urljoin(self._base, url)
        scope = _scope(method, repository, source)
        headers = dict(options.pop("headers", {}))
        for last in (False, True):
            with translate_errors(url):
                response = self._session.request(
                    method,
                    url,
                    headers=headers | self._authorization_header(url, scope),
                    timeout=(self.retry_policy.connect, self.retry_policy.read),
                    allow_redirects=method in ("GET", "HEAD"),
                    stream=True,
                    **options,
                )
                if not stream:
                    load_body(response, self.retry_policy.read)
            if response.status_code != 401 or last or not self._log_in(response, scope):
                break
            if isinstance(options.get("data"), FileChunk):
                options["data"].rewind()
        if response.status_code in expect:
            return response
        raise self._refusal_error(response, method, url)

    def upload_url(self, response: requests.Response) -> str:
        """Return the URL at which an upload continues; the registry may send it relative."""
        location = response.headers.get("Location")
        if location is None:
            raise RegistryRefused(
                "the registry did not say where the upload continues",
                on=display_url(response.url),
                next="see whether a registry answers there",
            )
        return urljoin(response.url, location)

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
            import requests

            session = requests.Session()
            # A company's HTTP proxy cannot reach the addresses of this machine.
            session.trust_env = not self._loopback
            session.hooks["response"] = self._load_unread_body
            for scheme in ("http://", "https://"):
                session.mount(scheme, make_adapter(max_connections=8, blocksize=_BLOCK))
            self._opened_session = session
        return self._opened_session

    def _load_unread_body(self, response: requests.Response, **_: object) -> None:
        """Load the bodies of refusals and redirects; requests would read them without limit."""
        if response.is_redirect or not response.ok:
            load_body(response, self.retry_policy.read)

    def _refusal_error(self, response: requests.Response, method: str, url: str) -> RegistryError:
        return refusal_error(response, method, url, self._hide_secrets(error_text(response)))

    def _hide_secrets(self, text: str) -> str:
        """Return a text without the credentials that the registry may have repeated."""
        tokens = [value.partition(" ")[2] for value in list(self._authorization.values())]
        for secret in (*tokens, self._login.password if self._login else ""):
            text = text.replace(secret, "…") if secret else text
        return text

    # --- login (distribution specification, "Token Authentication")

    def _authorization_header(self, url: str, scope: str) -> dict[str, str]:
        value = self._authorization.get(scope) or self._authorization.get("")
        return {"Authorization": value} if value and self._is_own_url(url) else {}

    def _is_own_url(self, url: str) -> bool:
        """Return whether a URL leads to this registry over the same scheme.

        Credentials are sent nowhere else.
        """
        return urlsplit(url)[:2] == urlsplit(self._base)[:2]

    def _log_in(self, response: requests.Response, scope: str) -> bool:
        """Log in as a challenge requires; return whether there are new credentials."""
        own = self._is_own_url(response.url)
        challenge = response.headers.get("WWW-Authenticate", "") if own else ""
        kind, _, rest = challenge.partition(" ")
        if challenge:
            self._login = self._find_login()
        if kind.lower() == "basic" and self._login:
            pair = f"{self._login.user}:{self._login.password}".encode()
            self._authorization[""] = f"Basic {base64.b64encode(pair).decode()}"
            return True
        if kind.lower() != "bearer":
            return False
        token = self._request_token(dict(re.findall(r'(\w+)="([^"]*)"', rest)), scope)
        self._authorization[scope] = f"Bearer {token}"
        return True

    def _request_token(self, challenge: Mapping[str, str], scope: str) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self._loopback:
            raise RegistryDenied(
                "the registry asks to log in over an unencrypted address",
                on=display_url(realm),
                next="use a registry with HTTPS",
            )
        # One parameter for each repository: a mount has two.
        params = {
            "service": challenge.get("service", ""),
            "scope": (scope or challenge.get("scope", "")).split(),
        }
        auth = (self._login.user, self._login.password) if self._login else None
        with translate_errors(realm):
            response = self._session.get(
                realm,
                params=params,
                auth=auth,
                timeout=(self.retry_policy.connect, self.retry_policy.read),
                stream=True,
            )
            load_body(response, self.retry_policy.read)
        if response.status_code != OK:
            raise self._refusal_error(response, "GET", realm)
        token = parse_token(response)
        if token is None:
            raise RegistryDenied(
                "the registry's login service gave no token",
                on=display_url(realm),
                next="check the address of the registry",
            )
        return token


def _scope(method: str, repository: str, source: str) -> str:
    """Return the scope of a token for a request, as the specification writes it."""
    if not repository:
        return ""
    pull = f" repository:{source}:pull" if source else ""
    return f"repository:{repository}:{'pull' if method in ('GET', 'HEAD') else 'pull,push'}{pull}"
