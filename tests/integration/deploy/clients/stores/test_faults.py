"""An object store that is hostile or fails: responses without end, other bytes, refusals."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.cache import Cache
from deploy.clients.stores.protocol import Store, open_store
from deploy.errors import FileTampered, ManifestInvalid, StoreUnreachable
from deploy.model.fetch import fetch_layer
from deploy.model.publish import publish_model
from deploy.model.reading import parse_model_manifest
from deploy.model.versions import resolve_version
from tests.fakes.store import MemoryStore

pytestmark = pytest.mark.integration

DIGITS = Path(__file__).parents[4] / "models" / "digits"
MANIFEST = "models/digits/1/manifest.json"
HUGE = 100_000_000
MUCH = 32 << 20
"""More than the buffers of both ends of a connection hold."""
AHEAD = 48 << 20
"""The ranges of an object that are read ahead."""


class Bucket(BaseHTTPRequestHandler):
    """A part of S3; `instead` has acts that replace the answer for a name."""

    protocol_version = "HTTP/1.1"
    held: dict[str, bytes]
    instead: dict[str, Callable[[Bucket], None]]
    asked: list[str]
    sent = 0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix("/bucket/prefix/")
        self.asked.append(name)
        if name in self.instead:
            self.instead[name](self)
        elif name in self.held:
            self.say(200, self.held[name])
        else:
            self.say(404)

    def say(self, status: int, data: bytes = b"", length: int | None = None) -> int:
        """Send a response, or the range of it that is asked for; return its announced length.

        Args:
            status: Its status.
            data: The object's bytes.
            length: The announced number of the object's bytes, if it is not the real one.
        """
        length = len(data) if length is None else length
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and status == 200:
            start, end = int(asked[1]), min(int(asked[2]) + 1, length)
            status, data = 206, data[start:end]
        self.send_response(status)
        for header, value in (("ETag", '"1"'), ("Last-Modified", "Wed, 21 Oct 2026 07:28:00 GMT")):
            self.send_header(header, value)
        if asked and status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{length}")
            length = end - start
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)
        return length


def send_huge(exchange: Bucket) -> None:
    """Send a hundred megabytes of opening brackets, or a range of them."""
    left = exchange.say(200, length=HUGE)
    exchange.close_connection = True
    with suppress(OSError):
        while left:
            size = min(left, 100_000)
            exchange.wfile.write(b"[" * size)
            Bucket.sent += size
            left -= size


def break_connection(exchange: Bucket) -> None:
    """Break the connection."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.close_connection = True
    exchange.connection.close()


def refuse_with(status: int) -> Callable[[Bucket], None]:
    """Return an act that refuses."""

    def refuse(exchange: Bucket) -> None:
        exchange.say(status)

    return refuse


def refusal_body(code: str) -> bytes:
    """Return the body of a refusal."""
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def refuse_region(exchange: Bucket) -> None:
    """Refuse a signature that names another region."""
    exchange.say(400, refusal_body("AuthorizationHeaderMalformed"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Bucket]]:
    """Start a server with the digits model, and set S3's variables to it."""
    published = MemoryStore()
    publish_model(DIGITS, published)
    Bucket.held = published.files
    Bucket.instead = {}
    Bucket.asked = []
    Bucket.sent = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in {
        "ENDPOINT_URL": address,
        "METADATA_ENDPOINT": address,
        "REGION": "none",
        "ACCESS_KEY_ID": "ada",
        "SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield Bucket
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def store(bucket: type[Bucket], tmp_path: Path) -> Store:
    """Open the store by its URL."""
    return open_store("s3://bucket/prefix", tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return Cache(tmp_path / "cache")


def weights(bucket: type[Bucket]) -> str:
    """Return the store's name of the weights."""
    found = parse_model_manifest(bucket.held[MANIFEST], on=MANIFEST)
    return next(f"blobs/sha256/{file.sha256}" for file in found.files if file.path == found.weights)


def cached_files(cache: Cache) -> list[Path]:
    """Return every file of the cache."""
    return [path for path in cache.root.rglob("*") if path.is_file()]


def test_a_store_that_is_in_order_gives_what_was_published(store: Store, cache: Cache) -> None:
    """No act replaces any bytes."""
    found = resolve_version("digits", "latest", store)
    assert fetch_layer(found, store, cache, "/model").model == found


@pytest.mark.parametrize("name", [MANIFEST, "models/digits/latest.json"])
def test_a_manifest_of_100_mb_is_not_read_whole(
    bucket: type[Bucket], store: Store, name: str
) -> None:
    """The connection is closed soon after the first megabyte."""
    bucket.instead[name] = send_huge
    with pytest.raises(ManifestInvalid):
        resolve_version("digits", "latest", store)
    assert 0 < bucket.sent < MUCH


def test_weights_that_go_on_and_on_are_not_read_to_their_end(
    bucket: type[Bucket], store: Store, cache: Cache
) -> None:
    """A file that is longer than published is refused."""
    bucket.instead[weights(bucket)] = send_huge
    with pytest.raises(FileTampered, match="not the one that was published"):
        fetch_layer(resolve_version("digits", "1", store), store, cache, "/model")
    assert 0 < bucket.sent < AHEAD + MUCH
    assert not cached_files(cache)


def test_a_tampered_byte_is_found_in_an_object_store_too(
    bucket: type[Bucket], store: Store, cache: Cache
) -> None:
    """The error has the expected and the actual digest."""
    name = weights(bucket)
    bucket.held[name] = damaged = bucket.held[name][:-1] + b"X"
    with pytest.raises(FileTampered) as caught:
        fetch_layer(resolve_version("digits", "1", store), store, cache, "/model")
    assert name.rpartition("/")[2] in caught.value.detail
    assert hashlib.sha256(damaged).hexdigest() in caught.value.detail
    assert not cached_files(cache)


def test_a_missing_file_is_another_error_than_a_missing_store(
    bucket: type[Bucket], store: Store, cache: Cache
) -> None:
    """A 404 for a file of a model manifest is a damaged version."""
    del bucket.held[weights(bucket)]
    with pytest.raises(FileTampered, match="missing"):
        fetch_layer(resolve_version("digits", "1", store), store, cache, "/model")
    assert not cached_files(cache)


@pytest.mark.parametrize(
    ("act", "words"),
    [(refuse_with(401), "refused the login"), (refuse_with(403), "refused the login")],
    ids=["401", "403"],
)
def test_a_permanent_refusal_is_an_error_at_once(
    bucket: type[Bucket], store: Store, act: Callable[[Bucket], None], words: str
) -> None:
    """The error names the file, and there is no retry."""
    bucket.instead[MANIFEST] = act
    with pytest.raises(StoreUnreachable, match=words) as caught:
        resolve_version("digits", "1", store)
    assert caught.value.on == f"s3://bucket/prefix/{MANIFEST}"
    assert bucket.asked == [MANIFEST]


def test_a_permanent_failure_is_given_up(bucket: type[Bucket], store: Store, cache: Cache) -> None:
    """It ends after several attempts, and leaves nothing behind."""
    found = resolve_version("digits", "1", store)
    bucket.instead[weights(bucket)] = refuse_with(500)
    with pytest.raises(StoreUnreachable) as caught:
        fetch_layer(found, store, cache, "/model")
    assert "run again" in caught.value.next
    assert bucket.asked.count(weights(bucket)) > 3
    assert not cached_files(cache)


@pytest.mark.parametrize("act", [refuse_with(503), break_connection], ids=["503", "a reset"])
def test_a_transient_failure_is_retried(
    bucket: type[Bucket], store: Store, cache: Cache, act: Callable[[Bucket], None]
) -> None:
    """A few errors cause only pauses."""
    name = weights(bucket)

    def twice(exchange: Bucket) -> None:
        act(exchange) if bucket.asked.count(name) < 3 else exchange.say(200, bucket.held[name])

    bucket.instead[name] = twice
    found = resolve_version("digits", "1", store)
    assert fetch_layer(found, store, cache, "/model").model == found


@pytest.mark.parametrize("act", [refuse_with(301), refuse_region], ids=["301", "400"])
def test_another_region_is_told(
    bucket: type[Bucket], store: Store, act: Callable[[Bucket], None]
) -> None:
    """Amazon's service redirects without an address, or refuses the signature."""
    bucket.instead["a"] = act
    with pytest.raises(StoreUnreachable, match="in another region") as caught:
        store.read("a", 1)
    assert "AWS_REGION" in caught.value.next


def test_a_login_that_is_nowhere_is_told(
    bucket: type[Bucket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys the library asks for the identity of an instance, which there is not."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreUnreachable, match="there is no login") as caught:
        open_store("s3://bucket/prefix", tmp_path).read("a", 1)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in caught.value.next
    assert bucket.asked == ["/latest/api/token"]


def test_a_conflict_of_two_writers_is_tried_again(bucket: type[Bucket], store: Store) -> None:
    """Amazon's service does not say which of them was first; the next answer does."""

    def conflict(exchange: Bucket) -> None:
        first = bucket.asked.count("a") == 1
        exchange.say(*((409, refusal_body("ConditionalRequestConflict")) if first else (412,)))

    bucket.instead["a"] = conflict
    assert not store.create("a", b"1")
    assert bucket.asked == ["a", "a"]
