"""Where requests to what serves are sent, how one is let in there, and asking there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter


@dataclass(frozen=True)
class Request:
    """A request to an application.

    Attributes:
        path: with its query; it is appended to the URL of the endpoint.
        within: for how many seconds the whole answer is waited for.
        at_most: how many bytes of the answer are read.
        method: of HTTP.
        headers: beside those that the endpoint asks for.
        body: its bytes, if it has any.
        follow: whether redirects are followed.
        insist: whether a gateway that fails is waited for.
    """

    path: str
    timeout: float
    max_bytes: int
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    follow_redirects: bool = False
    retry_gateway: bool = True


@dataclass(frozen=True)
class Response:
    """An answer: the status of HTTP, the first bytes of the content, the seconds that it took, and the header Retry-After."""

    status: int
    content: bytes = b""
    seconds: float = 0.0
    retry_after: str = ""


class NoResponse(Exception):
    """A question without an answer.

    Args:
        kind: of the failure.
        seconds: after how many it was known.
    """

    def __init__(self, kind: str, seconds: float) -> None:
        super().__init__(kind)
        self.seconds = seconds


class Gateway(Protocol):
    """What stands before an application, and may fail in its own name."""

    def forward(self, ask: Callable[[Endpoint, Request], Response], question: Request) -> Response:
        """The application's answer.

        Args:
            ask: asks once, at the endpoint as it is then.
            question: what is asked; whether it insists says how long the gateway is waited for.

        Raises:
            NoAnswer: there was none, though the gateway is there.
            ClusterError: the gateway fails, or does not let one pass.
        """


def make_adapter(*, at_most: int = 10, **options: Any) -> HTTPAdapter:  # noqa: ANN401 - urllib3's own options
    """Makes every connection with those options of urllib3, to the server itself and by way of a proxy.

    Args:
        at_most: how many connections to one host are kept.
        options: what urllib3's connections take, such as `server_hostname` or `blocksize`.
    """
    from requests.adapters import HTTPAdapter

    class Connecting(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the base class's signature
            super().init_poolmanager(*args, **(options | kwargs))

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - the base class's signature
            return super().proxy_manager_for(proxy, **(options | kwargs))

    return Connecting(pool_maxsize=at_most)


@dataclass(frozen=True)
class Endpoint:
    """A URL, and what a gateway before the application asks for.

    Attributes:
        url: scheme, host and port, perhaps a path; the paths of requests are appended.
        headers: sent with every request; they may hold credentials, and are never shown.
        authority: path of the CA bundle that the server's certificate is checked with; empty for the usual ones.
        certificate: paths of a client certificate and its key.
        proxy: URL of a proxy on the way; it may hold credentials, and is never shown.
        server_name: the name that the server's certificate must have, if not the URL's.
        unverified: whether any certificate will do.
        gateway: what tells the application's answers from its own, if it has answers of its own.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_bundle: str = ""
    client_certificate: tuple[str, str] | None = None
    proxy: str = field(default="", repr=False)
    server_name: str = ""
    unverified: bool = False
    gateway: Gateway | None = field(default=None, repr=False, compare=False)

    def open_session(self) -> requests.Session:
        """A session that is let in here; nothing of this machine's environment is sent along."""
        import requests

        opened = requests.Session()
        opened.trust_env = False
        opened.headers.update(self.headers)
        opened.verify = not self.unverified and (self.ca_bundle or True)
        opened.cert = self.client_certificate
        opened.proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else {}
        if self.server_name:
            opened.mount("https://", make_adapter(server_hostname=self.server_name))
        return opened


class HttpClient:
    """Asks at an endpoint, over connections that are kept from one question to the next.

    Args:
        endpoint: where.
        now: tells the seconds.
    """

    def __init__(self, endpoint: Endpoint, now: Callable[[], float] = time.perf_counter) -> None:
        self._endpoint = endpoint
        self._gateway = endpoint.gateway
        self._now = now
        self._session = endpoint.open_session()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def send(self, question: Request) -> Response:
        """The application's answer, whatever it is.

        Raises:
            NoAnswer: there was none.
            ClusterError: what stands before the application fails, or does not let one pass.
        """
        return (
            self._gateway.forward(self._once, question)
            if self._gateway
            else self._once(self._endpoint, question)
        )

    def _once(self, endpoint: Endpoint, question: Request) -> Response:
        import requests
        import urllib3

        if endpoint != self._endpoint:
            # Credentials have been renewed, and those of the old connections may not be good any more.
            self._session.close()
            self._endpoint = endpoint
            self._session = endpoint.open_session()
        started = self._now()
        try:
            return self._read(question, started)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NoResponse(type(error).__name__, self._now() - started) from error

    def _read(self, question: Request, started: float) -> Response:
        how: dict[str, Any] = {
            "timeout": question.timeout,
            "stream": True,
            "allow_redirects": question.follow_redirects,
        }
        url = self._endpoint.url + question.path
        with self._session.request(
            question.method, url, headers=question.headers, data=question.body, **how
        ) as answer:
            content = self._content(answer.raw, question.max_bytes, started + question.timeout)
            return Response(
                answer.status_code,
                content,
                self._now() - started,
                answer.headers.get("Retry-After", ""),
            )

    def _content(self, raw: Any, at_most: int, deadline: float) -> bytes:  # noqa: ANN401 - requests is imported lazily
        """The first bytes of an answer; a timeout for each read alone would let a trickle last for ever."""
        content = b""
        while len(content) < at_most and (
            piece := raw.read1(at_most - len(content), decode_content=True)
        ):
            content += piece
            if self._now() > deadline:
                raise TimeoutError
        return content
