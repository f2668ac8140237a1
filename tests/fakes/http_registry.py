"""A registry on a loopback port that fails as a test wants, in a thread of this process.

It has the part of the OCI distribution specification that a push and a pull need, and is as strict
as registries are: bodies of known length, ranges in order, digests. It keeps the requests. Its
errors repeat the header with the credentials, as those of a careless registry do.
"""

from __future__ import annotations

import base64
import io
import json
import re
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.fakes.registry import digest

Act = Callable[["Exchange"], bool]
"""Does something to an exchange; False lets the request pass."""


@dataclass
class Fault:
    """What happens to the next `times` requests of a method to a path with that text in it."""

    method: str
    text: str
    act: Act
    times: int


@dataclass(frozen=True)
class SeenRequest:
    """A request that arrived."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    connection: int
    """The client's port, which differs for each connection."""

    @property
    def authorization(self) -> str:
        """The header with the credentials, or nothing."""
        return self.headers.get("Authorization", "")


@dataclass
class HttpRegistryServer:
    """A registry.

    Attributes:
        auth: The kind of login that it requires.
        password: The password of the user `ada`.
        tokens: The scopes of each token.
        denied: Repositories without access, also after a login.
        relative: Whether the URLs of uploads have no host.
        uploads_at: Another server that receives the uploads.
        refuses_chunks: The status of a refused PATCH; 0 if chunks are accepted.
        sends_ranges: Whether it sends a part of a blob on request.
        lies: Whether it reports another digest than the stored one.
        seen: The requests, in order.
        arrived: The number of bytes of blobs that arrived, used or not.
    """

    auth: Literal["", "basic", "bearer"] = ""
    password: str = "open-sesame"
    denied: frozenset[str] = frozenset()
    relative: bool = True
    uploads_at: str = ""
    refuses_chunks: int = 0
    sends_ranges: bool = True
    lies: bool = False
    tokens: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seen: list[SeenRequest] = field(default_factory=list)
    arrived: int = 0
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def serve(self) -> Iterator[HttpRegistryServer]:
        """Serve during a `with` block."""

        class Handler(Exchange):
            registry = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    @property
    def host(self) -> str:
        """The host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def on(self, method: str, text: str, act: Act, times: int = 1) -> None:
        """Let something happen to the next requests of that kind."""
        self.faults.append(Fault(method, text, act, times))

    def requests_of(self, method: str, text: str = "") -> list[SeenRequest]:
        """Return the requests of a method to paths that contain a text."""
        return [seen for seen in self.seen if seen.method == method and text in seen.path]

    def lose_uploads(self) -> None:
        """Forget all unfinished uploads."""
        self.uploads.clear()


class Exchange(BaseHTTPRequestHandler):
    """One request and its response."""

    registry: HttpRegistryServer
    protocol_version = "HTTP/1.1"
    # A client that tries TLS first gets a response in HTTP, which shows it that there is no TLS.
    default_request_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""

    def handle_one_request(self) -> None:
        self.__dict__.pop("body", None)
        self.__dict__.pop("url", None)
        super().handle_one_request()

    @cached_property
    def body(self) -> bytes:
        """The request's body, read at the first use."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @cached_property
    def url(self) -> tuple[str, dict[str, list[str]]]:
        """The path, and the query by name."""
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query)

    def answer(
        self, status: int, headers: Mapping[str, str] | None = None, data: bytes = b""
    ) -> None:
        """Send a response, after the rest of the request's body is read."""
        _ = self.body
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an error that repeats the credentials of the request."""
        credentials = self.headers.get("Authorization", "no credentials")
        document = {"errors": [{"code": code, "message": f"refused with {credentials}"}]}
        self.answer(status, headers, json.dumps(document).encode())

    def reset_connection(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()
        self.rfile = io.BytesIO()
        self.wfile = io.BytesIO()

    # --- the methods of the API

    def _do(self) -> None:
        path, query = self.url
        self.registry.seen.append(
            SeenRequest(
                self.command, path, query, dict(self.headers.items()), self.client_address[1]
            )
        )
        if self._fails(path):
            return
        if path == "/token":
            self._grant(query)
        elif not self._check_access(path, query):
            return
        elif path == "/v2/":
            self.answer(200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}")
        else:
            self._route(path, query)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815 - the base class's names

    def _fails(self, path: str) -> bool:
        """Apply the first fault for such a request; return whether that was the response."""
        for fault in self.registry.faults:
            if fault.times and fault.method == self.command and fault.text in path:
                fault.times -= 1
                return fault.act(self)
        return False

    def _route(self, path: str, query: dict[str, list[str]]) -> None:
        for kind, act in (
            ("blobs/uploads", self._upload),
            ("blobs", self._blob),
            ("manifests", self._manifest),
        ):
            found = re.match(rf"^/v2/(.+)/{kind}/([^/]*)$", path)
            if found:
                act(found[1], found[2], query)
                return
        self.refuse(404, "NAME_UNKNOWN")

    def _blob(self, repository: str, name: str, _: object) -> None:
        data = self.registry.blobs.get((repository, name))
        if data is None:
            self.refuse(404, "BLOB_UNKNOWN")
        else:
            start = (
                int(self.headers.get("Range", "bytes=0-")[6:-1])
                if self.registry.sends_ranges
                else 0
            )
            rest = data[start:]
            headers = (
                {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
            )
            kind = {"Content-Type": "application/octet-stream", "Content-Length": str(len(rest))}
            self.answer(206 if start else 200, headers | kind, rest)

    def _manifest(self, repository: str, reference: str, _: object) -> None:
        if self.command == "PUT":
            self._put_manifest(repository, reference)
            return
        data = self.registry.manifests.get((repository, reference))
        if data is None:
            self.refuse(404, "MANIFEST_UNKNOWN")
        else:
            self.answer(200, {"Content-Type": json.loads(data)["mediaType"]}, data)

    def _put_manifest(self, repository: str, reference: str) -> None:
        document = json.loads(self.body)
        if any(
            (repository, item["digest"]) not in self.registry.blobs
            for item in (document["config"], *document["layers"])
        ):
            self.refuse(400, "MANIFEST_BLOB_UNKNOWN")
            return
        self.registry.manifests[repository, reference] = self.registry.manifests[
            repository, digest(self.body)
        ] = self.body
        self.answer(201, self._stored(digest(self.body)))

    def _upload(self, repository: str, upload: str, query: dict[str, list[str]]) -> None:
        if self.command == "POST":
            self._begin(repository, query)
        elif upload not in self.registry.uploads:
            self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
        elif "secret" not in query:
            self.refuse(400, "BLOB_UPLOAD_INVALID")
        elif self.command == "PATCH" and self.registry.refuses_chunks:
            self.refuse(self.registry.refuses_chunks, "UNSUPPORTED")
        elif self.command in ("PATCH", "PUT") and "Content-Length" not in self.headers:
            self.refuse(411, "LENGTH_REQUIRED")
        else:
            {"GET": self._report, "DELETE": self._cancel, "PATCH": self._take, "PUT": self._finish}[
                self.command
            ](repository, upload, query)

    def _begin(self, repository: str, query: dict[str, list[str]]) -> None:
        wanted = query.get("mount", [""])[0]
        source = query.get("from", [""])[0]
        data = self.registry.blobs.get((source, wanted))
        if data is not None and self._may(f"repository:{source}:pull"):
            self.registry.blobs[repository, wanted] = data
            self.answer(201, self._stored(wanted))
            return
        upload = secrets.token_hex(8)
        self.registry.uploads[upload] = bytearray()
        self.answer(202, self._upload_headers(repository, upload))

    def _report(self, repository: str, upload: str, _: object) -> None:
        self.answer(204, self._upload_headers(repository, upload))

    def _cancel(self, _: str, upload: str, __: object) -> None:
        del self.registry.uploads[upload]
        self.answer(204)

    def _take(self, repository: str, upload: str, _: object) -> None:
        stored = self.registry.uploads[upload]
        start = int(self.headers["Content-Range"].partition("-")[0])
        if start != len(stored):
            self.refuse(416, "RANGE_INVALID", self._upload_headers(repository, upload))
            return
        self.keep(upload, self.body)
        self.answer(202, self._upload_headers(repository, upload))

    def _finish(self, repository: str, upload: str, query: dict[str, list[str]]) -> None:
        self.keep(upload, self.body)
        data = bytes(self.registry.uploads.pop(upload))
        if digest(data) != query["digest"][0]:
            self.refuse(400, "DIGEST_INVALID")
            return
        self.registry.blobs[repository, digest(data)] = data
        self.answer(201, self._stored(digest(data)))

    def keep(self, upload: str, data: bytes) -> None:
        """Add bytes to an upload."""
        self.registry.uploads[upload] += data
        self.registry.arrived += len(data)

    def _upload_headers(self, repository: str, upload: str) -> dict[str, str]:
        """Return the headers of an unfinished upload; its URL has a secret in the query."""
        path = f"/v2/{repository}/blobs/uploads/{upload}?{urlencode({'secret': 's3cr3t-state'})}"
        stored = len(self.registry.uploads[upload])
        base = (
            f"http://{self.registry.uploads_at}"
            if self.registry.uploads_at
            else ""
            if self.registry.relative
            else f"http://{self.registry.host}"
        )
        return {"Location": base + path, "Range": f"0-{max(0, stored - 1)}"}

    def _stored(self, name: str) -> dict[str, str]:
        return {"Docker-Content-Digest": digest(b"something else") if self.registry.lies else name}

    # --- login

    def _check_access(self, path: str, query: Mapping[str, list[str]]) -> bool:
        found = re.match(r"^/v2/(.+)/(?:blobs|manifests)/", path)
        repository = found[1] if found else ""
        if repository in self.registry.denied:
            self.refuse(403, "DENIED")
            return False
        needed = (
            f"repository:{repository}:{'pull' if self.command in ('GET', 'HEAD') else 'push'}"
            if repository
            else ""
        )
        if not self.registry.auth or self._may(needed):
            return True
        self.refuse(401, "UNAUTHORIZED", {"WWW-Authenticate": self._challenge(needed)})
        return False

    def _challenge(self, needed: str) -> str:
        if self.registry.auth == "basic":
            return 'Basic realm="the registry"'
        realm = f"http://{self.registry.host}/token"
        return f'Bearer realm="{realm}",service="the registry",scope="{needed}"'

    def _may(self, needed: str) -> bool:
        """Return whether the request's credentials allow an action on a repository."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if self.registry.auth == "basic":
            return (kind, value) == ("Basic", self._pair())
        if self.registry.auth == "bearer":
            return (
                kind == "Bearer"
                and value in self.registry.tokens
                and needed in ("", *self.registry.tokens[value])
            )
        return True

    def _pair(self) -> str:
        return base64.b64encode(f"ada:{self.registry.password}".encode()).decode()

    def _grant(self, query: Mapping[str, list[str]]) -> None:
        """Send a token for the requested scopes to a user with the right password."""
        if self.headers.get("Authorization") != f"Basic {self._pair()}":
            self.refuse(401, "UNAUTHORIZED")
            return
        token = f"token-{secrets.token_hex(8)}"
        scopes = [scope.rpartition(":") for scope in query.get("scope", []) if " " not in scope]
        self.registry.tokens[token] = tuple(
            f"{where}:{action}" for where, _, actions in scopes for action in actions.split(",")
        )
        self.answer(
            200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode()
        )


# --- acts of faults


def refuse_with(status: int, headers: Mapping[str, str] | None = None) -> Act:
    """Return an act that refuses the request."""

    def act(exchange: Exchange) -> bool:
        exchange.refuse(status, "REFUSED", headers)
        return True

    return act


def respond_with(status: int, headers: Mapping[str, str], data: bytes) -> Act:
    """Return an act that sends a given response."""

    def act(exchange: Exchange) -> bool:
        exchange.answer(status, headers, data)
        return True

    return act


def cut_after(count: int) -> Act:
    """Return an act that breaks the connection after some bytes; an upload keeps them."""

    def act(exchange: Exchange) -> bool:
        data = exchange.rfile.read(min(count, int(exchange.headers.get("Content-Length", 0))))
        upload = exchange.url[0].rpartition("/")[2]
        if exchange.command == "PATCH":
            exchange.keep(upload, data)
        exchange.reset_connection()
        return True

    return act


def cut_response(exchange: Exchange) -> bool:
    """Execute the request, and break the connection before the response."""
    exchange.answer = lambda *_: exchange.reset_connection()  # type: ignore[method-assign]  # for one exchange
    return False


def stall(exchange: Exchange) -> bool:
    """Send no response until the registry stops."""
    exchange.registry.stopping.wait(30)
    exchange.reset_connection()
    return True


def end_response_early(data: bytes, promised: int, status: int = 200) -> Act:
    """Return an act whose response ends before its announced length."""

    def act(exchange: Exchange) -> bool:
        exchange.answer(status, {"Content-Length": str(promised)}, data)
        exchange.wfile.flush()
        exchange.close_connection = True
        return True

    return act


def let_pass(_: Exchange) -> bool:
    """Let the request pass."""
    return False


def run_first(act: Callable[[], None]) -> Act:
    """Return an act that does something and lets the request pass."""

    def after(_: Exchange) -> bool:
        act()
        return False

    return after
