"""Talking to one registry: logging in, waiting out what passes, and telling what does not.

Errors carry the host and the path, never a query or a header: those may hold tokens. Source: OCI distribution
specification 1.1, and the distribution project's "Token Authentication Specification".
"""

from __future__ import annotations

import base64
import io
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from deploy.errors import RegistryDenied, RegistryError, RegistryNotFound, RegistryRefused, RegistryUnreachable

if TYPE_CHECKING:
    import requests

ATTEMPTS = 6
OK = 200
_BLOCK = 1 << 20
_TIMEOUT = (10, 120)
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Login:
    """A user and a password; it does not show itself."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


class Conversation:
    """Requests to one host, with its login and its patience.

    Args:
        host: name or address, with its port if it is not the scheme's own; loopback hosts are asked over plain HTTP.
        login: credentials, or None for anonymous access.
    """

    def __init__(self, host: str, login: Login | None) -> None:
        self.host = host
        self._login = login
        self._loopback = bool(re.match(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$", host))
        self._base = f"{'http' if self._loopback else 'https'}://{host}"
        self._authorization: dict[str, str] = {}
        self._open: requests.Session | None = None

    def ask(self, method: str, url: str, repository: str = "", **options: Any) -> requests.Response:  # noqa: ANN401  requests' own options
        return self.patiently(lambda: self.once(method, url, repository, **options))

    def patiently(self, ask: Callable[[], requests.Response]) -> requests.Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except (RegistryUnreachable, RegistryRefused) as error:
                if attempt == ATTEMPTS or not error.transient:
                    raise
                pause(attempt, error.retry_after)
        raise AssertionError("unreachable")

    def once(
        self,
        method: str,
        url: str,
        repository: str = "",
        *,
        source: str = "",
        expect: tuple[int, ...] = (OK,),
        **options: Any,  # noqa: ANN401
    ) -> requests.Response:
        """One request, answering a challenge to log in once."""
        url = urljoin(self._base, url)
        scope = _scope(method, repository, source)
        headers = dict(options.pop("headers", {}))
        for last in (False, True):
            with self._reaching(url):
                answer = self._session.request(
                    method,
                    url,
                    headers=headers | self._authorized(url, scope),
                    timeout=_TIMEOUT,
                    allow_redirects=method in ("GET", "HEAD"),
                    **options,
                )
            if answer.status_code != 401 or last or not self._log_in(answer, scope):
                break
            if isinstance(options.get("data"), Part):
                options["data"].rewind()
        if answer.status_code in expect:
            return answer
        raise self._refusal(answer, method, url)

    @property
    def _session(self) -> requests.Session:
        if self._open is None:
            import requests
            from requests.adapters import HTTPAdapter

            class LargeBlocks(HTTPAdapter):
                def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  the base class's signature
                    super().init_poolmanager(*args, blocksize=_BLOCK, **kwargs)

            self._open = requests.Session()
            # A company proxy cannot reach this machine's own addresses.
            self._open.trust_env = not self._loopback
            for scheme in ("http://", "https://"):
                self._open.mount(scheme, LargeBlocks(pool_maxsize=8))
        return self._open

    @contextmanager
    def _reaching(self, url: str) -> Iterator[None]:
        import requests

        try:
            yield
        except requests.exceptions.SSLError as error:
            raise RegistryUnreachable(
                "the registry's certificate is not trusted", on=_shown(url), next="name your CA bundle in REQUESTS_CA_BUNDLE"
            ) from error
        except (requests.RequestException, OSError) as error:
            unreachable = RegistryUnreachable(
                f"the registry gave no answer ({_cause(error)})",
                on=_shown(url),
                next="check the address and the network; on this machine `invoke up` starts a registry",
            )
            unreachable.transient = True
            raise unreachable from error

    def _refusal(self, answer: requests.Response, method: str, url: str) -> RegistryError:
        status = answer.status_code
        what, on, detail = f"the registry answered {status} {answer.reason} to {method}", _shown(url), _told(answer)
        if status in (401, 403):
            advice = "log in with `docker login`, or name the variables that hold user and password in the environment's settings"
            return RegistryDenied(what, on=on, next=advice, detail=detail)
        if status == 404:
            return RegistryNotFound(what, on=on, next="check registry and repository in pipeline.toml", detail=detail)
        known = {413: "a proxy before the registry limits the body; raise its limit", 429: "the registry limits requests; run again later"}
        error = RegistryRefused(what, on=on, next=known.get(status, "run again; see the registry's log if it stays so"), detail=detail)
        error.transient = status in _TRANSIENT
        error.retry_after = answer.headers.get("Retry-After", "")
        return error

    # --- logging in (distribution specification, "Token Authentication")

    def _authorized(self, url: str, scope: str) -> dict[str, str]:
        known = self._authorization.get(scope) or self._authorization.get("")
        same_host = urlsplit(url).netloc == self.host
        return {"Authorization": known} if known and same_host else {}

    def _log_in(self, answer: requests.Response, scope: str) -> bool:
        """Acts on a challenge; False if there is nothing to answer it with."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic" and self._login:
            pair = f"{self._login.user}:{self._login.password}".encode()
            self._authorization[""] = f"Basic {base64.b64encode(pair).decode()}"
            return True
        if kind.lower() != "bearer":
            return False
        token = self._token(dict(re.findall(r'(\w+)="([^"]*)"', rest)), scope)
        self._authorization[scope] = f"Bearer {token}"
        return True

    def _token(self, challenge: Mapping[str, str], scope: str) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self._loopback:
            raise RegistryDenied(
                "the registry asks to log in over an unencrypted address", on=_shown(realm), next="use a registry with HTTPS"
            )
        params = {"service": challenge.get("service", ""), "scope": scope or challenge.get("scope", "")}
        auth = (self._login.user, self._login.password) if self._login else None
        with self._reaching(realm):
            answer = self._session.get(realm, params=params, auth=auth, timeout=_TIMEOUT)
        if answer.status_code != OK:
            raise self._refusal(answer, "GET", realm)
        found = answer.json()
        return str(found.get("token") or found.get("access_token"))


class Part(io.RawIOBase):
    """A stretch of a file as a request body of known length that reports what was sent."""

    def __init__(self, file: BinaryIO, start: int, length: int, advance: Advance) -> None:
        self._file, self._start, self._length, self._advance = file, start, length, advance
        self.sent = 0
        file.seek(start)

    def __len__(self) -> int:
        return self._length

    def rewind(self) -> None:
        self._advance(-self.sent)
        self.sent = 0
        self._file.seek(self._start)

    def read(self, size: int = -1) -> bytes:
        left = self._length - self.sent
        data = self._file.read(left if size < 0 else min(size, left))
        self.sent += len(data)
        self._advance(len(data))
        return data


def _scope(method: str, repository: str, source: str) -> str:
    if not repository:
        return ""
    pull = f" repository:{source}:pull" if source else ""
    return f"repository:{repository}:{'pull' if method in ('GET', 'HEAD') else 'pull,push'}{pull}"


def pause(attempt: int, retry_after: str) -> None:
    """Waits before another try: as long as the server asks (a minute at most), else longer each time, never in step."""
    asked = float(retry_after) if retry_after.isdecimal() else 0.0
    time.sleep(min(60.0, asked) or min(8.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311  not a secret


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _cause(error: BaseException) -> str:
    """The innermost reason, without addresses that may hold tokens."""
    while error.__context__ is not None:
        error = error.__context__
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _told(answer: requests.Response) -> str:
    """The codes and messages of the registry's own error body."""
    try:
        errors = answer.json()["errors"]
        return "\n".join(f"  {error.get('code', '')}: {error.get('message', '')}" for error in errors)[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
