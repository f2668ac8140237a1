"""Talking to one registry: logging in, waiting out what passes, and telling what does not.

Errors carry the host and the path, never a query or a header: those may hold tokens. Source: OCI distribution
specification 1.1, and the distribution project's "Token Authentication Specification".
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from deploy import progress
from deploy.clients import backoff
from deploy.clients.http import make_adapter
from deploy.clients.oci.bodies import FileChunk, ResponseStream
from deploy.clients.oci.responses import error_text, is_full, load_body, parse_token, read_body
from deploy.errors import (
    RegistryDenied,
    RegistryError,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
)

if TYPE_CHECKING:
    import requests

ATTEMPTS = 6
OK = 200
_BLOCK = 1 << 20
# After 416 an upload goes on from where the registry says it is.
_TRANSIENT = frozenset({408, 416, 425, 429, 500, 502, 503, 504})

Result = TypeVar("Result")


@dataclass(frozen=True)
class Login:
    """A user and a password; it does not show itself."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


@dataclass(frozen=True)
class RetryPolicy:
    """How long a registry is waited for, in seconds: for a connection, for its next bytes, and between two attempts."""

    connect: float = 10.0
    read: float = 120.0
    wait: Callable[[float], None] = time.sleep

    def pause(self, attempt: int, retry_after: str) -> None:
        """Waits before another try: up to a minute where the registry asks for it, else longer each time."""
        self.wait(backoff.delay(attempt, retry_after, retry_after_limit=60.0, backoff_limit=8.0))


class RegistryHttp:
    """Requests to one host, with its login and its patience.

    Args:
        host: name or address, with its port if it is not the scheme's own; loopback hosts are asked over plain HTTP.
        login: gives credentials, or None for anonymous access; asked when the registry wants some.
        patience: how long it is waited for.
    """

    def __init__(self, host: str, login: Callable[[], Login | None], patience: RetryPolicy) -> None:
        self.host = host
        self.retry_policy = patience
        self._ask_login = login
        self._login: Login | None = None
        self._loopback = bool(re.match(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$", host))
        self._base = f"{'http' if self._loopback else 'https'}://{host}"
        self._authorization: dict[str, str] = {}
        self._open: requests.Session | None = None

    def send(
        self,
        method: str,
        url: str,
        repository: str = "",
        **options: Any,  # noqa: ANN401 - requests' own options
    ) -> requests.Response:
        return self.retry(lambda: self.send_once(method, url, repository, **options))

    def retry(self, ask: Callable[[], Result]) -> Result:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except (RegistryUnreachable, RegistryRefused) as error:
                if attempt == ATTEMPTS or not error.transient:
                    raise
                self.pause(attempt, error)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, error: RegistryError) -> None:
        """Waits before another try, and says why."""
        progress.report(f"{error.what}: asking again")
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
        **options: Any,  # noqa: ANN401
    ) -> requests.Response:
        """One request, answering a challenge to log in once; unless it is streamed, all of the answer has arrived."""
        url = urljoin(self._base, url)
        scope = _scope(method, repository, source)
        headers = dict(options.pop("headers", {}))
        for last in (False, True):
            with self._reaching(url):
                answer = self._session.request(
                    method,
                    url,
                    headers=headers | self._authorized(url, scope),
                    timeout=(self.retry_policy.connect, self.retry_policy.read),
                    allow_redirects=method in ("GET", "HEAD"),
                    stream=True,
                    **options,
                )
                if not stream:
                    load_body(answer, self.retry_policy.read)
            if answer.status_code != 401 or last or not self._log_in(answer, scope):
                break
            if isinstance(options.get("data"), FileChunk):
                options["data"].rewind()
        if answer.status_code in expect:
            return answer
        raise self._refusal(answer, method, url)

    def upload_url(self, answer: requests.Response) -> str:
        """Where an upload goes on; the registry may say it in full or relative to what was asked."""
        told = answer.headers.get("Location")
        if told is None:
            raise RegistryRefused(
                "the registry did not say where the upload goes on",
                on=_shown(answer.url),
                next="see whether a registry answers there",
            )
        return urljoin(answer.url, told)

    def stream_body(self, answer: requests.Response) -> ResponseStream:
        """An answer's body as it was sent; what breaks while it is read is this project's error, as before."""
        answer.raw.decode_content = False
        return ResponseStream(answer.raw, lambda: self._reaching(answer.url))

    def read_body(self, answer: requests.Response, most: int) -> bytes:
        """A streamed answer's body, as far as `most` bytes."""
        with self._reaching(answer.url):
            return read_body(answer.raw, most, self.retry_policy.read)

    @property
    def _session(self) -> requests.Session:
        if self._open is None:
            import requests

            self._open = requests.Session()
            # A company proxy cannot reach this machine's own addresses.
            self._open.trust_env = not self._loopback
            self._open.hooks["response"] = self._settled
            for scheme in ("http://", "https://"):
                self._open.mount(scheme, make_adapter(max_connections=8, blocksize=_BLOCK))
        return self._open

    def _settled(self, answer: requests.Response, **_: object) -> None:
        """Takes the bodies that nobody streams before requests does: those of refusals, and of redirections on the way."""
        if answer.is_redirect or not answer.ok:
            load_body(answer, self.retry_policy.read)

    @contextmanager
    def _reaching(self, url: str) -> Iterator[None]:
        import requests
        import urllib3

        try:
            yield
        except requests.exceptions.SSLError as error:
            raise RegistryUnreachable(
                "the registry's certificate is not trusted",
                on=_shown(url),
                next="name your CA bundle in REQUESTS_CA_BUNDLE",
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            unreachable = RegistryUnreachable(
                f"the registry gave no answer ({_cause(error)})",
                on=_shown(url),
                next="check the address and the network; on this machine `invoke up` starts a registry",
            )
            unreachable.transient = True
            raise unreachable from error

    def _refusal(self, answer: requests.Response, method: str, url: str) -> RegistryError:
        status = answer.status_code
        what = f"the registry answered {status} {answer.reason} to {method}"
        on = _shown(url)
        detail = self._hidden(error_text(answer))
        if status in (401, 403):
            advice = "log in with `docker login`, or name the variables that hold user and password in the environment's settings"
            return RegistryDenied(what, on=on, next=advice, detail=detail)
        if status == 404:
            return RegistryNotFound(
                what, on=on, next="check registry and repository in pipeline.toml", detail=detail
            )
        if is_full(answer):
            return RegistryRefused(
                f"the registry has no space left: it answered {status} to {method}",
                on=on,
                next="free some space where the registry keeps its data, then run again",
                detail=detail,
            )
        known = {
            413: "a proxy before the registry limits the body; raise its limit",
            429: "the registry limits requests; run again later",
        }
        error = RegistryRefused(
            what,
            on=on,
            next=known.get(status, "run again; see the registry's log if it stays so"),
            detail=detail,
        )
        error.transient = status in _TRANSIENT
        error.retry_after = answer.headers.get("Retry-After", "")
        return error

    def _hidden(self, text: str) -> str:
        """What the registry said, without the credentials that it may have repeated."""
        known = [value.partition(" ")[2] for value in list(self._authorization.values())]
        for secret in (*known, self._login.password if self._login else ""):
            text = text.replace(secret, "…") if secret else text
        return text

    # --- logging in (distribution specification, "Token Authentication")

    def _authorized(self, url: str, scope: str) -> dict[str, str]:
        known = self._authorization.get(scope) or self._authorization.get("")
        return {"Authorization": known} if known and self._is_here(url) else {}

    def _is_here(self, url: str) -> bool:
        """Whether a URL that the registry named leads to itself, over the same scheme: only there credentials are sent."""
        return urlsplit(url)[:2] == urlsplit(self._base)[:2]

    def _log_in(self, answer: requests.Response, scope: str) -> bool:
        """Acts on a challenge; False if there is nothing to answer it with."""
        challenge = answer.headers.get("WWW-Authenticate", "") if self._is_here(answer.url) else ""
        kind, _, rest = challenge.partition(" ")
        if challenge:
            self._login = self._ask_login()
        if kind.lower() == "basic" and self._login:
            pair = f"{self._login.user}:{self._login.password}".encode()
            self._authorization[""] = f"Basic {base64.b64encode(pair).decode()}"
            return True
        if kind.lower() != "bearer":
            return False
        given = self._token(dict(re.findall(r'(\w+)="([^"]*)"', rest)), scope)
        self._authorization[scope] = f"Bearer {given}"
        return True

    def _token(self, challenge: Mapping[str, str], scope: str) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self._loopback:
            raise RegistryDenied(
                "the registry asks to log in over an unencrypted address",
                on=_shown(realm),
                next="use a registry with HTTPS",
            )
        # One parameter a resource: a mount asks for two.
        params = {
            "service": challenge.get("service", ""),
            "scope": (scope or challenge.get("scope", "")).split(),
        }
        auth = (self._login.user, self._login.password) if self._login else None
        with self._reaching(realm):
            answer = self._session.get(
                realm,
                params=params,
                auth=auth,
                timeout=(self.retry_policy.connect, self.retry_policy.read),
                stream=True,
            )
            load_body(answer, self.retry_policy.read)
        if answer.status_code != OK:
            raise self._refusal(answer, "GET", realm)
        given = parse_token(answer)
        if given is None:
            raise RegistryDenied(
                "the registry's login service gave no token",
                on=_shown(realm),
                next="see whether the address of the registry is right",
            )
        return given


def _scope(method: str, repository: str, source: str) -> str:
    if not repository:
        return ""
    pull = f" repository:{source}:pull" if source else ""
    return f"repository:{repository}:{'pull' if method in ('GET', 'HEAD') else 'pull,push'}{pull}"


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


def _cause(error: BaseException) -> str:
    """The innermost reason, without addresses that may hold tokens."""
    while error.__context__ is not None:
        error = error.__context__
    return str(getattr(error, "strerror", None) or type(error).__name__)
