"""HTTP: the endpoint of an application, and a client that sends requests to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import unquote, urlsplit

from deploy.clients.causes import causes
from deploy.clients.network import ca_bundle
from deploy.clients.timed import Deadline, timed_pools

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

_MAX_REDIRECTS = 5


@dataclass(frozen=True)
class Request:
    """A request to an application.

    Attributes:
        path: With its query; it is appended to the URL of the endpoint.
        timeout: The seconds in which the whole response has to arrive.
        max_bytes: The number of bytes of the response that are read.
        method: The HTTP method.
        headers: In addition to those of the endpoint; they may hold credentials and are not shown.
        body: Its bytes, if it has any.
        follow_redirects: Whether redirects are followed.
        retry_gateway: Whether the request is repeated while a gateway fails.
    """

    path: str
    timeout: float
    max_bytes: int
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = None
    follow_redirects: bool = False
    retry_gateway: bool = True


@dataclass(frozen=True)
class Response:
    """A response of an application.

    Attributes:
        status: The HTTP status.
        content: The first bytes of the body.
        seconds: The time that the response took.
        retry_after: The header Retry-After; empty if there is none.
        location: The header Location; empty if there is none.
    """

    status: int
    content: bytes = b""
    seconds: float = 0.0
    retry_after: str = ""
    location: str = ""


class NoResponse(Exception):
    """A request without a response.

    Args:
        kind: The kind of the failure.
        seconds: The time until the failure.
        refused: Whether nothing listens at the address.
    """

    def __init__(self, kind: str, seconds: float, *, refused: bool = False) -> None:
        super().__init__(kind)
        self.seconds = seconds
        self.refused = refused


SendOnce = Callable[["Endpoint", Request], Response]


class Gateway(Protocol):
    """A server between this machine and an application that may answer for itself."""

    def forward(self, send: SendOnce, request: Request) -> Response:
        """Return the application's response.

        Args:
            send: Sends a request once, to an endpoint with the present credentials.
            request: The request; its `retry_gateway` decides how long a failing gateway is retried.

        Raises:
            NoResponse: The gateway works, but the application did not respond.
            ClusterError: The gateway fails or refuses access.
        """


@dataclass(frozen=True)
class Endpoint:
    """The address at which clients reach an application, and what a gateway requires.

    Attributes:
        url: Scheme, host and port, optionally a path; the paths of requests are appended.
        headers: Sent with every request; they may hold credentials and are never shown.
        ca_bundle: The path of a CA bundle that verifies the server's certificate; empty for the
            usual authorities.
        client_certificate: The paths of a client certificate and its key.
        proxy: The URL of an HTTP proxy; it may hold credentials and is never shown.
        server_name: The name in the server's certificate, if it is not the URL's.
        unverified: Whether any certificate is accepted.
        gateway: Separates the application's responses from its own; None without a gateway.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_bundle: str = ""
    client_certificate: tuple[str, str] | None = None
    proxy: str = field(default="", repr=False)
    server_name: str = ""
    unverified: bool = False
    gateway: Gateway | None = field(default=None, repr=False, compare=False)

    def open_session(self, deadline: Deadline | None = None) -> requests.Session:
        """Open a session with these credentials; it takes no settings from the environment.

        Args:
            deadline: Ends each exchange; None for timeouts of single reads.
        """
        session = open_session(trust_env=False)
        session.headers.update(self.headers)
        session.verify = not self.unverified and (self.ca_bundle or True)
        session.cert = self.client_certificate
        session.proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else {}
        named: dict[str, Any] = {"server_hostname": self.server_name} if self.server_name else {}
        session.mount("http://", make_adapter(deadline=deadline))
        session.mount("https://", make_adapter(deadline=deadline, **named))
        return session


def open_session(*, trust_env: bool) -> requests.Session:
    """Open a session of requests that sends no credentials but those it is given.

    By default requests looks for the host in the user's .netrc, and replaces the header with the
    credentials of a request by the login that it finds there, or by one in the URL.

    Args:
        trust_env: whether the proxies and CA bundles that the process's environment names are used.
    """
    import requests

    session = requests.Session()
    session.trust_env = trust_env
    if trust_env:
        # Requests reads no SSL_CERT_FILE; what it reads itself still counts before that.
        session.verify = ca_bundle() or True
    session.auth = _keep_credentials
    return session


def _keep_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request's credentials as they are; requests asks this instead of .netrc."""
    return request


class HttpClient:
    """A client of one endpoint that keeps its connections between requests.

    Args:
        endpoint: The receiver of all requests.
        now: Returns a time in seconds.
    """

    def __init__(self, endpoint: Endpoint, now: Callable[[], float] = time.perf_counter) -> None:
        self._endpoint = endpoint
        self._gateway = endpoint.gateway
        self._now = now
        self._deadline = Deadline(now)
        self._session = endpoint.open_session(self._deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def send(self, request: Request) -> Response:
        """Send a request and return the application's response, whatever its status is.

        Raises:
            NoResponse: The application did not respond.
            ClusterError: The gateway fails or refuses access.
        """
        if self._gateway is None:
            return self._send_once(self._endpoint, request)
        return self._gateway.forward(self._send_once, request)

    def _send_once(self, endpoint: Endpoint, request: Request) -> Response:
        import requests
        import urllib3

        if endpoint != self._endpoint:
            # The credentials are new; connections with the old ones may no longer be accepted.
            self._session.close()
            self._endpoint = endpoint
            self._session = endpoint.open_session(self._deadline)
        started = self._now()
        try:
            return self._exchange(request, started)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes(error))
            raise NoResponse(
                _describe(error, request), self._now() - started, refused=refused
            ) from error

    def _exchange(self, request: Request, started: float) -> Response:
        import requests

        deadline = started + request.timeout
        self._deadline.set(deadline)
        url = self._endpoint.url + request.path
        prepared = self._session.prepare_request(
            requests.Request(request.method, url, dict(request.headers), data=request.body)
        )
        for _ in range(_MAX_REDIRECTS + 1):
            self._require_below_endpoint(str(prepared.url))
            with self._session.send(
                prepared, timeout=request.timeout, stream=True, allow_redirects=False
            ) as response:
                following = response.next if request.follow_redirects else None
                if following is None:
                    content = read_body(response.raw, request.max_bytes, deadline, self._now)
                    return Response(
                        response.status_code,
                        content,
                        self._now() - started,
                        response.headers.get("Retry-After", ""),
                        response.headers.get("Location", ""),
                    )
            prepared = following
        raise requests.TooManyRedirects

    def _require_below_endpoint(self, url: str) -> None:
        """Raise unless a URL is below the endpoint, whose credentials are meant for that alone."""
        import requests

        wanted = urlsplit(self._endpoint.url)
        found = urlsplit(url)
        folder = wanted.path.rstrip("/") + "/"
        if (
            (found.scheme, found.netloc) != (wanted.scheme, wanted.netloc)
            or not f"{found.path}/".startswith(folder)
            or leaves_its_folder(found.path)
        ):
            raise requests.exceptions.InvalidURL("the URL is outside the endpoint")


def _describe(error: Exception, request: Request) -> str:
    """Return the kind of a failure."""
    import requests

    if any(isinstance(cause, (TimeoutError, requests.Timeout)) for cause in causes(error)):
        return f"not complete after {request.timeout:.1f} s"
    return type(error).__name__


def send(endpoint: Endpoint, request: Request) -> Response:
    """Send one request on a connection of its own and return the response.

    Raises:
        NoResponse: The application did not respond.
        ClusterError: A gateway fails or refuses access.
    """
    with HttpClient(endpoint) as client:
        return client.send(request)


def leaves_its_folder(path: str) -> bool:
    """Return whether a path, appended to a URL, may lead out of the folder of that URL.

    A path does so by dot segments, also by encoded ones, by a backslash, which some servers read as
    a slash, by an empty first segment, which can be read as a host, or by a fragment.
    """
    plain = path.partition("?")[0]
    decoded = unquote(plain)
    # Each server on the way may decode the path once.
    while decoded != plain:
        plain = decoded
        decoded = unquote(plain)
    segments = plain.split("/")
    return plain.startswith("//") or "\\" in plain or "#" in path or bool({".", ".."} & {*segments})


def read_body(
    raw: Any,  # noqa: ANN401 - urllib3 is imported lazily
    max_bytes: int,
    deadline: float,
    now: Callable[[], float] = time.monotonic,
) -> bytes:
    """Return the first bytes of a response's body.

    Args:
        raw: The response of urllib3.
        max_bytes: The number of bytes after which reading stops.
        deadline: The time at which reading ends. A timeout of each read alone would let a slow body
            last without end.
        now: Returns the present time in seconds.

    Raises:
        TimeoutError: The body had not arrived at the deadline.
    """
    content = b""
    while len(content) < max_bytes and (
        piece := raw.read1(max_bytes - len(content), decode_content=True)
    ):
        content += piece
        if now() > deadline:
            raise TimeoutError
    return content


def make_adapter(
    *,
    max_connections: int = 10,
    deadline: Deadline | None = None,
    **options: Any,  # noqa: ANN401 - urllib3's own options
) -> HTTPAdapter:
    """Return an adapter of requests for options of urllib3 that requests has no setting for.

    Args:
        max_connections: The number of connections to one host that are kept.
        deadline: Ends all operations of the connections; None for timeouts of single reads.
        options: Options of urllib3's connections, such as `server_hostname` or `blocksize`.
    """
    from requests.adapters import HTTPAdapter

    class OptionsAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the base class's signature
            super().init_poolmanager(*args, **(options | kwargs))
            _limit(self.poolmanager)

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - the base class's signature
            if proxy in self.proxy_manager:  # Its classes of pools are the timed ones already.
                return self.proxy_manager[proxy]
            return _limit(super().proxy_manager_for(proxy, **(options | kwargs)))

    def _limit(pools: Any) -> Any:  # noqa: ANN401 - urllib3 is imported lazily
        if deadline:
            pools.pool_classes_by_scheme = timed_pools(deadline, pools.pool_classes_by_scheme)
        return pools

    return OptionsAdapter(pool_maxsize=max_connections)
