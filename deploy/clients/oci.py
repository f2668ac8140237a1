"""An OCI registry over its HTTP API: small questions, streamed blobs, and patience with servers that falter.

Source: OCI distribution specification 1.1, "Endpoints", "Pushing a blob in chunks", "Mounting a blob from another
repository". Errors carry the host and the path, never a query or a header: those may hold tokens.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, cast
from urllib.parse import urljoin, urlsplit

from deploy.errors import BlobCorrupt, RegistryDenied, RegistryError, RegistryNotFound, RegistryRefused, RegistryUnreachable

if TYPE_CHECKING:
    import requests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ACCEPT = f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
_ATTEMPTS = 6
_BLOCK = 1 << 20
_PART = 64 << 20
_MAX_MANIFEST = 4 << 20
_TIMEOUT = (10, 120)
_OK, _CREATED, _ACCEPTED = 200, 201, 202
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

Opener = Callable[[], BinaryIO]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Login:
    """A user and a password; it does not show itself."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


class Registry(Protocol):
    """What a release needs of a registry. A thing that is not there gives None or False; not being able to ask is an error."""

    host: str

    def has(self, repository: str, digest: str) -> bool:
        """Whether the repository holds that blob."""

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Takes a blob over from another repository of this registry; False if that cannot be done."""

    def upload(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
        """Sends a blob, going on where a broken connection left off if the registry can."""

    def blob(self, repository: str, digest: str) -> IO[bytes]:
        """A blob's bytes as they arrive, to be closed by the caller; they are not checked here."""

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """A manifest by tag or digest, checked if by digest."""

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        """Stores a manifest under a tag or its digest; the registry refuses it while a blob of it is missing."""


class HttpRegistry:
    """A registry at a host.

    Args:
        host: name or address, with its port if it is not the scheme's own; loopback hosts are asked over plain HTTP.
        login: credentials, or None for anonymous access.
    """

    def __init__(self, host: str, login: Login | None = None) -> None:
        self.host = host
        self._login = login
        self._loopback = bool(re.match(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$", host))
        self._base = f"{'http' if self._loopback else 'https'}://{host}"
        self._authorization: dict[str, str] = {}
        self._open: requests.Session | None = None

    def has(self, repository: str, digest: str) -> bool:
        return self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", repository, expect=(_OK, 404)).status_code == _OK

    def mount(self, repository: str, digest: str, source: str) -> bool:
        path = f"/v2/{repository}/blobs/uploads/"
        answer = self._ask(
            "POST", path, repository, source=source, params={"mount": digest, "from": source}, expect=(_CREATED, _ACCEPTED, 401, 403, 404)
        )
        if answer.status_code == _ACCEPTED:
            self._ask("DELETE", self._location(answer), repository, expect=(200, 202, 204, 404, 405))
        return answer.status_code == _CREATED

    def upload(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
        if size <= _PART or not self._upload_in_parts(repository, digest, size, opened, advance):
            self._upload_at_once(repository, digest, size, opened, advance)

    def blob(self, repository: str, digest: str) -> IO[bytes]:
        answer = self._ask("GET", f"/v2/{repository}/blobs/{digest}", repository, stream=True)
        answer.raw.decode_content = False
        return cast("IO[bytes]", answer.raw)

    def manifest(self, repository: str, reference: str) -> bytes | None:
        path = f"/v2/{repository}/manifests/{reference}"
        with self._ask("GET", path, repository, headers={"Accept": _ACCEPT}, stream=True, expect=(_OK, 404)) as answer:
            if answer.status_code != _OK:
                return None
            data = bytes(answer.raw.read(_MAX_MANIFEST, decode_content=True))
        if reference.startswith("sha256:") and _digest(data) != reference:
            raise BlobCorrupt(
                "the registry answered with another manifest than was asked for",
                on=f"{self.host}{path}",
                next="the registry's storage is damaged or it lies; push the release again, or use another registry",
                detail=f"  expected {reference}\n  actual   {_digest(data)}",
            )
        return data

    def put_manifest(self, repository: str, reference: str, data: bytes) -> None:
        path = f"/v2/{repository}/manifests/{reference}"
        answer = self._ask("PUT", path, repository, data=data, headers={"Content-Type": MANIFEST}, expect=(_OK, _CREATED, _ACCEPTED))
        self._same(answer, _digest(data), path)

    def ping(self) -> None:
        """Asks whether a registry answers at all.

        Raises:
            RegistryUnreachable: nothing there speaks the registry's API.
        """
        answer = self._once("GET", "/v2/", expect=(_OK, 401, 403))
        if (
            "docker-distribution-api-version" not in answer.headers
            and answer.status_code == _OK
            and answer.content.strip() not in (b"", b"{}")
        ):
            raise RegistryUnreachable(
                "something else answers where the registry should be", on=self._base, next="choose another port or host"
            )

    # --- uploads

    def _upload_at_once(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> None:
        def send() -> requests.Response:
            with opened() as file:
                body = _Part(file, 0, size, advance)
                try:
                    return self._once("PUT", self._begin(repository), repository, params={"digest": digest}, data=body, expect=(_CREATED,))
                except RegistryError:
                    advance(-body.sent)
                    raise

        self._same(self._patiently(send), digest, f"/v2/{repository}/blobs/{digest}")

    def _upload_in_parts(self, repository: str, digest: str, size: int, opened: Opener, advance: Advance) -> bool:
        """Sends in parts, each repeated from where the registry says it stopped; False if it does not take parts."""
        location, offset, failures = self._begin(repository), 0, 0
        while offset < size:
            length = min(_PART, size - offset)
            with opened() as file:
                part = _Part(file, offset, length, advance)
                headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{offset + length - 1}"}
                try:
                    answer = self._once("PATCH", location, repository, data=part, headers=headers, expect=(_ACCEPTED, _CREATED, 204))
                    location, offset, failures = self._location(answer), offset + length, 0
                    continue
                except (RegistryUnreachable, RegistryRefused) as error:
                    advance(-part.sent)
                    failures += 1
                    if failures >= _ATTEMPTS:
                        raise
                    _pause(failures, error.retry_after)
            there = self._held(location, repository)
            if there is None:
                advance(-offset)
                return False
            advance(there - offset)
            offset = there
        answer = self._ask("PUT", location, repository, params={"digest": digest}, expect=(_CREATED, _ACCEPTED, 204))
        self._same(answer, digest, f"/v2/{repository}/blobs/{digest}")
        return True

    def _held(self, location: str, repository: str) -> int | None:
        """How many bytes of an upload the registry has, or None if it will not say."""
        answer = self._ask("GET", location, repository, expect=(204, 404, 405, 416, 400))
        found = re.match(r"^(?:bytes=)?0-(\d+)$", answer.headers.get("Range", ""))
        if answer.status_code != 204 or not found:
            return None
        return int(found[1]) + 1 if int(found[1]) else 0

    def _begin(self, repository: str) -> str:
        return self._location(self._ask("POST", f"/v2/{repository}/blobs/uploads/", repository, expect=(_ACCEPTED,)))

    def _location(self, answer: requests.Response) -> str:
        return urljoin(answer.url, answer.headers["Location"])

    def _same(self, answer: requests.Response, digest: str, path: str) -> None:
        stored = answer.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise BlobCorrupt(
                "the registry says it stored other bytes than were sent",
                on=f"{self.host}{path}",
                next="run again; if it stays so, the registry or a proxy before it changes content",
                detail=f"  sent   {digest}\n  stored {stored}",
            )

    # --- one question

    def _ask(self, method: str, url: str, repository: str = "", **options: Any) -> requests.Response:  # noqa: ANN401  requests' own options
        return self._patiently(lambda: self._once(method, url, repository, **options))

    def _patiently(self, ask: Callable[[], requests.Response]) -> requests.Response:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return ask()
            except (RegistryUnreachable, RegistryRefused) as error:
                if attempt == _ATTEMPTS or not error.transient:
                    raise
                _pause(attempt, error.retry_after)
        raise AssertionError("unreachable")

    def _once(
        self,
        method: str,
        url: str,
        repository: str = "",
        *,
        source: str = "",
        expect: tuple[int, ...] = (_OK,),
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
            if isinstance(options.get("data"), _Part):
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
        if answer.status_code != _OK:
            raise self._refusal(answer, "GET", realm)
        found = answer.json()
        return str(found.get("token") or found.get("access_token"))


class _Part(io.RawIOBase):
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


def _pause(attempt: int, retry_after: str) -> None:
    """Waits before another try: as long as the server asks (a minute at most), else longer each time, never in step."""
    asked = float(retry_after) if retry_after.isdecimal() else 0.0
    time.sleep(min(60.0, asked) or min(8.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311  not a secret


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


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
