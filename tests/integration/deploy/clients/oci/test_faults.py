"""Pushes and pulls while the registry or the network fails."""

from __future__ import annotations

import io
import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.credentials import Login
from deploy.clients.oci.http import ATTEMPTS, RetryPolicy
from deploy.errors import (
    BlobCorrupt,
    RegistryDenied,
    RegistryError,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
)
from deploy.machine.host import THIS_MACHINE
from tests.contracts.engine import wait_until
from tests.contracts.registry import CONFIG, RegistryContract, send
from tests.fakes.http_registry import (
    Exchange,
    HttpRegistryServer,
    cut_after,
    cut_response,
    end_response_early,
    let_pass,
    refuse_with,
    respond_with,
    run_first,
    stall,
)
from tests.fakes.registry import digest, manifest

pytestmark = pytest.mark.integration

PART = 64 << 10
LARGE = secrets.token_bytes(4 * PART + 1000)
SMALL = LARGE[:5000]
REPOSITORY = "team/app"
ADA = Login("ada", "open-sesame")


@pytest.fixture
def server() -> Iterator[HttpRegistryServer]:
    """Start a registry that fails as a test wants."""
    with HttpRegistryServer().serve() as serving:
        yield serving


@pytest.fixture
def waits() -> list[float]:
    """Return the list of pauses between attempts, in seconds."""
    return []


Connect = Callable[..., HttpRegistry]


@pytest.fixture
def connect(server: HttpRegistryServer, waits: list[float]) -> Connect:
    """Return a function that creates a client with small chunks and without real pauses."""

    def made(login: Login | None = None, host: str = "", read: float = 10.0) -> HttpRegistry:
        return HttpRegistry(
            host or server.host,
            lambda: login,
            chunk_size=PART,
            retry_policy=RetryPolicy(connect=2.0, read=read, wait=waits.append),
        )

    return made


@pytest.fixture
def client(connect: Connect) -> HttpRegistry:
    """Return a client without a login."""
    return connect()


def starts(server: HttpRegistryServer) -> list[int]:
    """Return the start offsets of the chunks, in order."""
    return [
        int(seen.headers["Content-Range"].partition("-")[0]) for seen in server.requests_of("PATCH")
    ]


class TestFakeRegistry(RegistryContract):
    """The failing registry keeps the contract without a fault."""

    @pytest.fixture(params=["", "basic", "bearer"])
    def registry(
        self, request: pytest.FixtureRequest, server: HttpRegistryServer, connect: Connect
    ) -> HttpRegistry:
        """Return a client for each kind of login."""
        server.auth = request.param
        return connect(ADA if request.param else None)


# --- nothing there, or something else


def test_a_registry_that_is_down_is_an_error_after_retries(
    waits: list[float], connect: Connect
) -> None:
    """Each pause is longer, and the error has the host and the fix."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(RegistryUnreachable) as caught:
        connect(host=host).has_blob(REPOSITORY, digest(SMALL))
    assert caught.value.exit_code == 50
    assert host in caught.value.on
    assert "refused" in caught.value.what
    assert len(waits) == ATTEMPTS - 1
    assert all(before < after * 2 for before, after in pairwise(waits))


def test_an_upload_to_a_registry_that_is_down_does_not_multiply_its_retries(
    waits: list[float], connect: Connect
) -> None:
    """The attempts of one request are not repeated for each attempt of the upload."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
    for data in (SMALL, LARGE):
        waits.clear()
        with pytest.raises(RegistryUnreachable):
            send(connect(host=host), REPOSITORY, data)
        assert len(waits) == ATTEMPTS - 1


def test_a_registry_that_recovers_costs_only_retries(
    server: HttpRegistryServer, client: HttpRegistry, waits: list[float]
) -> None:
    """A few errors cause only pauses."""
    server.on("HEAD", "blobs", refuse_with(502), times=2)
    server.on("HEAD", "blobs", cut_after(0), times=2)
    assert not client.has_blob(REPOSITORY, digest(SMALL))
    assert len(waits) == 4


@pytest.mark.parametrize(
    "spoken",
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n<html>Welcome to me</html>"[:-2],
            id="a web page",
        ),
        pytest.param(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            id="a web server without that page",
        ),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"", id="silence, then a hang-up"),
    ],
)
def test_another_server_on_the_port_is_not_a_registry(spoken: bytes) -> None:
    """Another server is an error at once."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(spoken)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RegistryError):
            HttpRegistry(host).ping()
        thread.join()


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_registry_that_wants_a_login_is_a_registry(
    server: HttpRegistryServer, client: HttpRegistry, auth: str
) -> None:
    """A ping succeeds without a password, also where the login service gives none a token."""
    server.auth = auth  # type: ignore[assignment]  # one of the two
    client.ping()
    assert [seen.path for seen in server.seen] == ["/v2/"]


def test_a_web_page_in_place_of_a_manifest_is_refused(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """By digest, it is refused as another manifest."""
    server.on(
        "GET",
        "manifests",
        respond_with(200, {"Content-Type": "text/html"}, b"<html>Log in here</html>"),
    )
    with pytest.raises(BlobCorrupt, match="another manifest"):
        client.get_manifest(REPOSITORY, digest(b"{}"))


def test_a_registry_that_never_answers_is_given_up(
    server: HttpRegistryServer, connect: Connect, waits: list[float]
) -> None:
    """Every attempt ends at its timeout."""
    server.on("HEAD", "blobs", stall, times=ATTEMPTS)
    with pytest.raises(RegistryUnreachable):
        connect(read=0.02).has_blob(REPOSITORY, digest(SMALL))
    assert len(waits) == ATTEMPTS - 1


def test_a_late_response_is_retried(server: HttpRegistryServer, connect: Connect) -> None:
    """One late response does not end a push."""
    server.on("PATCH", "uploads", stall, times=1)
    assert send(connect(read=0.1), REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE


# --- refusals


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, RegistryRefused, "run again"),
        (403, RegistryDenied, "docker login"),
        (404, RegistryNotFound, "pipeline.toml"),
        (413, RegistryRefused, "limit"),
    ],
)
def test_a_permanent_refusal_is_an_error_at_once(
    server: HttpRegistryServer,
    client: HttpRegistry,
    waits: list[float],
    status: int,
    kind: type[RegistryError],
    advice: str,
) -> None:
    """There is no retry, and the error has the registry's own message."""
    server.on("POST", "uploads", refuse_with(status), times=ATTEMPTS)
    with pytest.raises(kind) as caught:
        send(client, REPOSITORY, SMALL)
    assert str(status) in caught.value.what
    assert caught.value.on == f"{server.host}/v2/{REPOSITORY}/blobs/uploads/"
    assert advice in caught.value.next
    assert "REFUSED" in caught.value.detail
    assert len(server.requests_of("POST")) == 1
    assert not waits


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_transient_refusal_is_retried_for_a_limited_time(
    server: HttpRegistryServer, client: HttpRegistry, waits: list[float], status: int
) -> None:
    """The last error is a refusal, not a missing registry."""
    server.on("PUT", "manifests", refuse_with(status), times=ATTEMPTS)
    with pytest.raises(RegistryRefused, match=str(status)):
        client.put_manifest(REPOSITORY, "one", b"{}")
    assert len(server.requests_of("PUT")) == ATTEMPTS
    assert len(waits) == ATTEMPTS - 1


def test_the_pause_that_a_registry_requests_is_kept(
    server: HttpRegistryServer, client: HttpRegistry, waits: list[float]
) -> None:
    """Whole seconds count, up to a minute; other values do not."""
    for said in ("7", "3600", "Wed, 21 Oct 2026 07:28:00 GMT", "-1"):
        server.on("HEAD", "blobs", refuse_with(429, {"Retry-After": said}))
    client.has_blob(REPOSITORY, digest(SMALL))
    assert waits[:2] == [7.0, 60.0]
    assert all(0 < wait <= 8 for wait in waits[2:])


# --- logging in


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_password_is_refused_after_one_attempt(
    server: HttpRegistryServer, connect: Connect, waits: list[float], auth: str
) -> None:
    """More attempts could lock the account."""
    server.auth = auth  # type: ignore[assignment]  # one of the two
    with pytest.raises(RegistryDenied) as caught:
        connect(Login("ada", "wrong")).has_blob(REPOSITORY, digest(SMALL))
    assert caught.value.exit_code == 51
    assert len([seen for seen in server.seen if seen.authorization]) == 1
    assert not waits


def test_a_login_is_requested_when_the_registry_requires_one(server: HttpRegistryServer) -> None:
    """A registry without a login never requests one."""
    asked: list[str] = []

    def login() -> Login:
        asked.append("login")
        return ADA

    client = HttpRegistry(server.host, login)
    client.has_blob(REPOSITORY, digest(SMALL))
    assert not asked
    server.auth = "basic"
    client.has_blob(REPOSITORY, digest(SMALL))
    client.has_blob(REPOSITORY, digest(SMALL))
    assert asked == ["login"]


def test_a_closed_registry_without_a_login_is_an_error(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The error names the login command."""
    server.auth = "basic"
    with pytest.raises(RegistryDenied) as caught:
        client.has_blob(REPOSITORY, digest(SMALL))
    assert "docker login" in caught.value.next


def test_a_token_is_requested_once_for_each_scope(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """Reading and writing have a token each, which later requests use."""
    server.auth = "bearer"
    client = connect(ADA)
    send(client, REPOSITORY, SMALL, CONFIG)
    client.put_manifest(REPOSITORY, "one", manifest(CONFIG, SMALL))
    for _ in range(3):
        assert client.has_blob(REPOSITORY, digest(SMALL))
    scopes = [seen.query["scope"] for seen in server.requests_of("GET", "/token")]
    assert scopes == [[f"repository:{REPOSITORY}:pull,push"], [f"repository:{REPOSITORY}:pull"]]
    assert {seen.query["service"][0] for seen in server.requests_of("GET", "/token")} == {
        "the registry"
    }


def test_a_mount_asks_for_a_token_for_both_repositories(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """Each repository is a parameter, as the token specification says."""
    server.auth = "bearer"
    client = connect(ADA)
    send(client, "team/source", SMALL)
    assert client.mount(REPOSITORY, digest(SMALL), "team/source")
    assert server.requests_of("GET", "/token")[-1].query["scope"] == [
        f"repository:{REPOSITORY}:pull,push",
        "repository:team/source:pull",
    ]


def test_a_token_that_expires_in_mid_upload_is_renewed(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """The chunk is sent again, and counted once."""
    server.auth = "bearer"
    server.on("PATCH", "uploads", let_pass, times=2)
    server.on("PATCH", "uploads", run_first(server.tokens.clear))
    assert send(connect(ADA), REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE
    assert server.arrived == len(LARGE)


def test_a_registry_that_refuses_its_own_token_gets_no_other(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """The second refusal is final."""
    server.auth = "bearer"
    challenge = {
        "WWW-Authenticate": f'Bearer realm="http://{server.host}/token",service="the registry"'
    }
    server.on("HEAD", "blobs", refuse_with(401, challenge), times=2)
    with pytest.raises(RegistryDenied):
        connect(ADA).has_blob(REPOSITORY, digest(SMALL))
    assert len(server.requests_of("GET", "/token")) == 1


@pytest.mark.parametrize("said", [b"<html>", b"[]", b"{}", b'{"token": null}', b'{"token": 7}'])
def test_a_login_service_without_a_token_is_an_error(
    server: HttpRegistryServer, connect: Connect, said: bytes
) -> None:
    """Any other response has no token."""
    server.auth = "bearer"
    server.on("GET", "/token", respond_with(200, {}, said))
    with pytest.raises(RegistryDenied, match="no token"):
        connect(ADA).has_blob(REPOSITORY, digest(SMALL))


def test_credentials_are_sent_to_the_registry_alone(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """Another host to which the registry redirects gets none, even if it requests them."""
    with HttpRegistryServer(auth="basic").serve() as storage:
        server.auth = "basic"
        server.on(
            "GET",
            "blobs",
            respond_with(
                307,
                {"Location": f"http://{storage.host}/v2/{REPOSITORY}/blobs/{digest(SMALL)}"},
                b"",
            ),
        )
        server.uploads_at = storage.host
        client = connect(ADA)
        with pytest.raises(RegistryDenied):
            client.download(REPOSITORY, digest(SMALL))
        with pytest.raises(RegistryRefused, match="another address"):
            send(client, REPOSITORY, SMALL)
        assert len(storage.seen) == 1
        assert not any(seen.authorization for seen in storage.seen)


def test_redirects_of_the_registry_are_followed(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """Registries keep blobs on other hosts; the start of an upload moves within the registry."""
    with HttpRegistryServer().serve() as storage:
        send(connect(host=storage.host), REPOSITORY, SMALL)
        where = f"http://{storage.host}/v2/{REPOSITORY}/blobs"
        server.on("GET", "blobs", respond_with(307, {"Location": f"{where}/{digest(SMALL)}"}, b""))
        with connect().download(REPOSITORY, digest(SMALL)) as blob:
            assert blob.read() == SMALL
    moved = {"Location": f"/v2/{REPOSITORY}/moved/blobs/uploads/"}
    for data in (SMALL, LARGE):
        server.on("POST", f"{REPOSITORY}/blobs", respond_with(307, moved, b""))
        assert send(connect(), REPOSITORY, data) == len(data)
        assert server.blobs[f"{REPOSITORY}/moved", digest(data)] == data


def test_a_redirected_part_of_an_upload_is_sent_again_and_counted_once(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """Its body is a part of a file."""
    here = f"http://{server.host}/v2/{REPOSITORY}/blobs/uploads/0123?secret=x"
    server.uploads["0123"] = bytearray()
    server.on("PATCH", "uploads", respond_with(307, {"Location": here}, b""))
    assert send(connect(), REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE


# --- mounts


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_refused_mount_returns_false(
    server: HttpRegistryServer, client: HttpRegistry, status: int
) -> None:
    """An account without access to the other repository can still push to this one."""
    server.on("POST", "uploads", refuse_with(status))
    assert not client.mount(REPOSITORY, digest(SMALL), "team/secret")
    send(client, REPOSITORY, SMALL)
    assert client.has_blob(REPOSITORY, digest(SMALL))


def test_a_mount_without_a_token_returns_false(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """A login service can refuse the token for a mount."""
    server.auth = "bearer"
    server.on("GET", "/token", refuse_with(403))
    client = connect(ADA)
    assert not client.mount(REPOSITORY, digest(SMALL), "team/secret")
    send(client, REPOSITORY, SMALL)
    assert client.has_blob(REPOSITORY, digest(SMALL))


@pytest.mark.parametrize("status", [204, 401, 403, 404, 405, 500])
def test_an_upload_in_place_of_a_mount_is_cancelled(
    server: HttpRegistryServer, client: HttpRegistry, waits: list[float], status: int
) -> None:
    """The mount just did not work, whether the upload can be cancelled or not."""
    if status != 204:
        server.on("DELETE", "uploads", refuse_with(status))
    assert not client.mount(REPOSITORY, digest(SMALL), "team/absent")
    assert len(server.requests_of("DELETE")) == 1
    assert not waits
    assert bool(server.uploads) == (status != 204)


# --- uploads


@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_an_upload_continues_at_the_registrys_location(
    server: HttpRegistryServer, client: HttpRegistry, form: str
) -> None:
    """The URL can be full or relative, and its query is sent back."""
    server.relative = form == "relative"
    for data in (SMALL, LARGE):
        send(client, REPOSITORY, data)
        assert server.blobs[REPOSITORY, digest(data)] == data
    assert starts(server) == [0, PART, 2 * PART, 3 * PART, 4 * PART]


def test_an_upload_without_a_location_is_an_error(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The missing header is an error of the registry."""
    server.on("POST", "uploads", respond_with(202, {}, b""))
    with pytest.raises(RegistryRefused, match="did not say where"):
        send(client, REPOSITORY, SMALL)


@pytest.mark.parametrize("kept", [0, 1000, PART])
def test_a_broken_upload_resumes_at_the_registrys_offset(
    server: HttpRegistryServer, client: HttpRegistry, kept: int
) -> None:
    """Bytes that arrived are not sent again, and are counted once."""
    server.on("PATCH", "uploads", let_pass, times=2)
    server.on("PATCH", "uploads", cut_after(kept))
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE
    assert server.arrived == len(LARGE)
    assert starts(server)[:4] == [0, PART, 2 * PART, 2 * PART + kept]
    assert len(server.requests_of("POST")) == 1


def test_a_chunk_whose_response_was_lost_is_not_sent_again(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The client requests the offset from the registry."""
    server.on("PATCH", "uploads", cut_response)
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert starts(server) == [0, PART, 2 * PART, 3 * PART, 4 * PART]
    assert server.arrived == len(LARGE)


def test_an_upload_with_another_offset_is_corrected(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """After a refused range the client requests the offset."""

    def lose_some() -> None:
        (held,) = server.uploads.values()
        del held[PART + 10 :]

    server.on("PATCH", "uploads", let_pass, times=2)
    server.on("PATCH", "uploads", run_first(lose_some))
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE
    assert starts(server)[:4] == [0, PART, 2 * PART, PART + 10]


@pytest.mark.parametrize("parts_before", [1, 3, 4])
def test_an_upload_that_the_registry_lost_restarts(
    server: HttpRegistryServer, client: HttpRegistry, parts_before: int
) -> None:
    """It is sent from the start, in chunks, and counted once."""
    server.on("PATCH", "uploads", let_pass, times=parts_before)
    server.on("PATCH", "uploads", run_first(server.lose_uploads))
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE
    assert starts(server)[parts_before + 1 :] == [0, PART, 2 * PART, 3 * PART, 4 * PART]


def test_an_upload_that_is_lost_before_its_end_restarts(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """This holds even after all bytes were sent."""
    server.on("PUT", "uploads", run_first(server.lose_uploads))
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE


def test_an_upload_that_is_lost_each_time_is_given_up(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """Reaching the same offset again is not progress."""
    for _ in range(ATTEMPTS):
        server.on("PATCH", "uploads", let_pass, times=2)
        server.on("PATCH", "uploads", run_first(server.lose_uploads))
    with pytest.raises(RegistryNotFound):
        send(client, REPOSITORY, LARGE)
    assert len(server.requests_of("POST")) == ATTEMPTS


def test_an_upload_succeeds_though_every_chunk_breaks(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The upload continues as long as there is progress."""
    server.on("PATCH", "uploads", cut_after(PART // 2), times=2 * ATTEMPTS)
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.arrived == len(LARGE)


def test_an_upload_without_progress_is_given_up(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """Only bytes that arrived stay counted."""
    server.on("PATCH", "uploads", let_pass, times=1)
    server.on("PATCH", "uploads", cut_after(0), times=ATTEMPTS)
    counts: list[int] = []
    with pytest.raises(RegistryUnreachable):
        client.upload(
            REPOSITORY, digest(LARGE), len(LARGE), partial(io.BytesIO, LARGE), counts.append
        )
    assert sum(counts) == PART
    assert not server.blobs


def test_an_upload_whose_last_response_was_lost_succeeds(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The blob exists, so nothing is sent again."""
    server.on("PUT", "uploads", cut_response)
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.arrived == len(LARGE)


@pytest.mark.parametrize("status", [400, 404, 405, 411, 413, 501])
def test_a_registry_without_chunks_gets_the_whole_blob(
    server: HttpRegistryServer, client: HttpRegistry, status: int
) -> None:
    """One refused chunk is enough."""
    server.refuses_chunks = status
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE
    assert len(server.requests_of("PATCH")) == 1
    assert len(server.requests_of("PUT")) == 1


def test_a_registry_without_write_access_is_an_error_at_the_first_chunk(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """A missing permission does not mean a registry without chunks."""
    server.refuses_chunks = 403
    with pytest.raises(RegistryDenied):
        send(client, REPOSITORY, LARGE)
    assert not server.requests_of("PUT")


def test_an_upload_at_once_that_breaks_is_sent_again(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """Its bytes are counted once."""
    server.on("PUT", "uploads", cut_after(1000), times=2)
    server.on("PUT", "uploads", refuse_with(503))
    assert send(client, REPOSITORY, SMALL) == len(SMALL)
    assert server.blobs[REPOSITORY, digest(SMALL)] == SMALL


def test_an_upload_with_a_wrong_offset_restarts(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """An upload that is longer than the blob cannot continue."""
    server.on("PATCH", "uploads", let_pass)
    server.on("PATCH", "uploads", cut_after(10))
    server.on("GET", "uploads", respond_with(204, {"Range": "0-99999999999"}, b""))
    assert send(client, REPOSITORY, LARGE) == len(LARGE)
    assert server.blobs[REPOSITORY, digest(LARGE)] == LARGE


def test_damaged_bytes_are_refused_and_sent_once(
    server: HttpRegistryServer, client: HttpRegistry, waits: list[float]
) -> None:
    """Another upload would not fix them."""
    damaged = bytes(len(LARGE))
    with pytest.raises(RegistryRefused) as caught:
        client.upload(
            REPOSITORY, digest(LARGE), len(LARGE), partial(io.BytesIO, damaged), lambda _: None
        )
    assert "DIGEST_INVALID" in caught.value.detail
    assert server.arrived == len(LARGE)
    assert not waits


# --- lies


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["at once", "in parts"])
def test_other_stored_bytes_are_an_error(
    server: HttpRegistryServer, client: HttpRegistry, data: bytes
) -> None:
    """The reported digest is compared with that of the blob."""
    server.lies = True
    with pytest.raises(BlobCorrupt) as caught:
        send(client, REPOSITORY, data)
    assert digest(data) in caught.value.detail
    assert digest(b"something else") in caught.value.detail


def test_another_stored_manifest_is_an_error(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The digest is compared as for blobs."""
    send(client, REPOSITORY, CONFIG)
    server.lies = True
    with pytest.raises(BlobCorrupt):
        client.put_manifest(REPOSITORY, "one", manifest(CONFIG))


def test_a_manifest_by_digest_is_compared_with_it(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The error has the expected and the actual digest."""
    send(client, REPOSITORY, CONFIG, SMALL)
    honest = manifest(CONFIG, SMALL)
    other = manifest(CONFIG)
    server.manifests[REPOSITORY, digest(honest)] = other
    with pytest.raises(BlobCorrupt) as caught:
        client.get_manifest(REPOSITORY, digest(honest))
    assert digest(honest) in caught.value.detail
    assert digest(other) in caught.value.detail


def test_a_manifest_of_any_size_is_not_read(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """Reading ends at the limit of registries."""
    server.on("GET", "manifests", respond_with(200, {}, bytes((4 << 20) + 1)))
    with pytest.raises(RegistryRefused, match="4 MB"):
        client.get_manifest(REPOSITORY, "one")


# --- a registry without space

FULL = {
    "errors": [
        {
            "code": "UNKNOWN",
            "message": "unknown error",
            "detail": {
                "DriverName": "filesystem",
                "Enclosed": {"Op": "write", "Path": "/var/lib/registry/docker", "Err": 28},
            },
        }
    ]
}


@pytest.mark.parametrize(
    ("method", "text", "ask"),
    [
        ("POST", "uploads", lambda client: send(client, REPOSITORY, SMALL)),
        ("PUT", "uploads", lambda client: send(client, REPOSITORY, SMALL)),
        ("PUT", "uploads", lambda client: send(client, REPOSITORY, LARGE)),
        ("PUT", "manifests", lambda client: client.put_manifest(REPOSITORY, "one", b"{}")),
    ],
    ids=["at the start of an upload", "at its end", "at the end of its parts", "at the manifest"],
)
@pytest.mark.parametrize(
    ("status", "said"),
    [(500, json.dumps(FULL).encode()), (507, b"")],
    ids=["as its driver says", "by its status"],
)
def test_a_registry_without_space_is_an_error_at_once(
    server: HttpRegistryServer,
    client: HttpRegistry,
    waits: list[float],
    method: str,
    text: str,
    ask: Callable[[HttpRegistry], object],
    status: int,
    said: bytes,
) -> None:
    """A retry would not help, and the fix is another than for other failures."""
    server.on(method, text, respond_with(status, {}, said), times=1000)
    with pytest.raises(RegistryRefused, match="no space left") as caught:
        ask(client)
    assert "free some space" in caught.value.next
    assert not waits


@pytest.fixture
def small_registry(
    engine: DockerEngine, parts_image: str, prefix: str, free_port: Callable[[], int]
) -> str:
    """Start a real registry with a disk of four megabytes."""
    api = engine._api
    port = free_port()
    host = api.create_host_config(
        tmpfs={"/var/lib/registry": "size=4m,uid=10001,gid=10001"},
        port_bindings={5000: ("127.0.0.1", port)},
    )
    command = ["docker-registry", "serve", "/etc/docker/registry/config.yml"]
    labels = {"dev.twinship.test": prefix}
    made = api.create_container(
        parts_image,
        command,
        name=f"{prefix}-registry",
        labels=labels,
        ports=[5000],
        host_config=host,
    )
    api.start(made["Id"])
    address = f"127.0.0.1:{port}"
    wait_until(lambda: THIS_MACHINE.registry_answers(address), "the registry answers")
    return address


def test_a_real_registry_with_a_full_disk_keeps_its_images(
    small_registry: str, waits: list[float]
) -> None:
    """The error names the disk; old images stay, and no incomplete image appears."""
    client = HttpRegistry(
        small_registry, chunk_size=1 << 20, retry_policy=RetryPolicy(wait=waits.append)
    )
    send(client, REPOSITORY, CONFIG, SMALL)
    whole = manifest(CONFIG, SMALL)
    client.put_manifest(REPOSITORY, "one", whole)

    for data in (secrets.token_bytes(8 << 20), secrets.token_bytes(5 << 19)):
        with pytest.raises(RegistryRefused, match="no space left") as caught:
            send(client, REPOSITORY, data)
        assert "UNKNOWN" in caught.value.detail
        assert not client.has_blob(REPOSITORY, digest(data))
    assert len(waits) < ATTEMPTS, "it was waited for as for what passes"
    assert client.get_manifest(REPOSITORY, digest(whole)) == whole
    with client.download(REPOSITORY, digest(SMALL)) as blob:
        assert blob.read() == SMALL


# --- answers without end


MUCH = 64 << 20
"""More than the buffers of both ends of a connection hold."""


class Endless:
    """A response without end; with pauses it is a slow one.

    Args:
        status: how it begins.
        headers: and with what.
        pause: seconds between two pieces.
    """

    def __init__(
        self, status: int, headers: Mapping[str, str] | None = None, pause: float = 0.0
    ) -> None:
        self._status = status
        self._headers = headers or {}
        self._pause = pause
        self.sent = 0

    def __call__(self, exchange: Exchange) -> bool:
        _ = exchange.body
        exchange.send_response(self._status)
        for name, value in {**self._headers, "Connection": "close"}.items():
            exchange.send_header(name, value)
        exchange.end_headers()
        piece = b"." if self._pause else bytes(1 << 16)
        with suppress(OSError):
            while self.sent < (
                100 if self._pause else 4 * MUCH
            ) and not exchange.registry.stopping.wait(self._pause):
                exchange.wfile.write(piece)
                exchange.wfile.flush()
                self.sent += len(piece)
        return True


HERE = {"Location": f"/v2/{REPOSITORY}/blobs/uploads/0123"}


@pytest.mark.parametrize(
    ("method", "text", "act", "ask"),
    [
        pytest.param("GET", "/v2/", Endless(200), lambda client: client.ping(), id="a ping"),
        pytest.param(
            "POST",
            "uploads",
            Endless(202, HERE),
            lambda client: send(client, REPOSITORY, SMALL),
            id="the start of an upload",
        ),
        pytest.param(
            "POST",
            "uploads",
            Endless(413),
            lambda client: send(client, REPOSITORY, SMALL),
            id="a refusal",
        ),
        pytest.param(
            "GET",
            "blobs",
            Endless(404),
            lambda client: client.download(REPOSITORY, digest(SMALL)),
            id="a refused download",
        ),
        pytest.param(
            "GET",
            "manifests",
            Endless(200),
            lambda client: client.get_manifest(REPOSITORY, "one"),
            id="a manifest",
        ),
        pytest.param(
            "GET",
            "blobs",
            Endless(307, {"Location": "/other"}),
            lambda client: client.download(REPOSITORY, digest(SMALL)),
            id="a redirection",
        ),
    ],
)
def test_an_endless_response_is_not_read(
    server: HttpRegistryServer,
    client: HttpRegistry,
    method: str,
    text: str,
    act: Endless,
    ask: Callable[[HttpRegistry], object],
) -> None:
    """A server cannot fill the client's memory; the connection is closed after a few megabytes."""
    server.on(method, text, act, times=1000)
    with pytest.raises(RegistryError):
        ask(client)
    assert act.sent < MUCH


def test_a_login_service_without_end_is_not_read_on(
    server: HttpRegistryServer, connect: Connect
) -> None:
    """The login service cannot do so either."""
    server.auth = "bearer"
    act = Endless(200)
    server.on("GET", "/token", act)
    with pytest.raises(RegistryDenied, match="no token"):
        connect(ADA).has_blob(REPOSITORY, digest(SMALL))
    assert act.sent < MUCH


@pytest.mark.parametrize(("text", "ask"), [("/v2/", "ping"), ("manifests", "get_manifest")])
def test_a_slow_response_is_given_up(
    server: HttpRegistryServer, connect: Connect, text: str, ask: str
) -> None:
    """Every byte arrives in time, but the response does not."""
    server.on("GET", text, Endless(200, pause=0.02), times=ATTEMPTS)
    client = connect(read=0.1)
    with pytest.raises(RegistryUnreachable, match="no answer"):
        client.ping() if ask == "ping" else client.get_manifest(REPOSITORY, "one")


def test_a_connection_is_used_for_many_requests(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """Bounded reading does not cost a connection for each response."""
    send(client, REPOSITORY, CONFIG, SMALL)
    client.put_manifest(REPOSITORY, "one", manifest(CONFIG, SMALL))
    for _ in range(5):
        assert client.has_blob(REPOSITORY, digest(SMALL))
        assert client.get_manifest(REPOSITORY, "one")
        assert client.get_manifest(REPOSITORY, "two") is None
        client.ping()
    assert len({seen.connection for seen in server.seen}) == 1


# --- answers that break


def test_a_broken_manifest_is_requested_again(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """A part of a manifest is not used."""
    send(client, REPOSITORY, CONFIG)
    data = manifest(CONFIG)
    client.put_manifest(REPOSITORY, "one", data)
    server.on("GET", "manifests", end_response_early(data[:50], len(data)))
    assert client.get_manifest(REPOSITORY, "one") == data


def read(client: HttpRegistry, size: int = 1000) -> bytes:
    """Read a blob piece by piece."""
    with client.download(REPOSITORY, digest(LARGE)) as blob:
        return b"".join(iter(lambda: blob.read(size), b""))


def ranges(server: HttpRegistryServer) -> list[str]:
    """Return the offsets of the requests for a blob, in order."""
    return [seen.headers.get("Range", "") for seen in server.requests_of("GET", "blobs/sha256")]


def test_a_broken_download_resumes(
    server: HttpRegistryServer, client: HttpRegistry, waits: list[float]
) -> None:
    """No byte arrives twice, however often the connection breaks."""
    send(client, REPOSITORY, LARGE)
    server.on("GET", "blobs/sha256", end_response_early(LARGE[:5000], len(LARGE)))
    for number in range(5, 15):
        server.on(
            "GET",
            "blobs/sha256",
            end_response_early(
                LARGE[1000 * number : 1000 * (number + 1)], len(LARGE) - 1000 * number, 206
            ),
        )
    assert read(client) == LARGE
    assert ranges(server) == ["", *(f"bytes={number}000-" for number in range(5, 16))]
    assert len(waits) == 11


def test_a_download_restarts_where_a_registry_sends_no_ranges(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """The known bytes are skipped, also if the connection breaks again."""
    send(client, REPOSITORY, LARGE)
    server.sends_ranges = False
    for end in (5000, 3000):
        server.on("GET", "blobs/sha256", end_response_early(LARGE[:end], len(LARGE)))
    assert read(client) == LARGE


@pytest.mark.parametrize("parts", [True, False])
def test_a_download_without_progress_is_given_up(
    server: HttpRegistryServer,
    client: HttpRegistry,
    waits: list[float],
    parts: bool,
) -> None:
    """The error is one of this project, wherever the stream is read."""
    server.on("GET", "blobs/sha256", end_response_early(LARGE[:5000], len(LARGE)))
    server.on(
        "GET",
        "blobs/sha256",
        end_response_early(b"" if parts else LARGE[:5000], len(LARGE), 206 if parts else 200),
        times=1000,
    )
    with client.download(REPOSITORY, digest(LARGE)) as blob:
        assert blob.read(5000) == LARGE[:5000]
        with pytest.raises(RegistryUnreachable):
            blob.read(1)
    assert len(waits) == ATTEMPTS - 1


def test_a_registry_that_goes_down_in_a_download_does_not_multiply_its_retries(
    waits: list[float], connect: Connect
) -> None:
    """The attempts of one request are not repeated for each attempt of the download."""
    with HttpRegistryServer().serve() as server:
        server.on("GET", "blobs/sha256", end_response_early(LARGE[:5000], len(LARGE)))
        blob = connect(host=server.host).download(REPOSITORY, digest(LARGE))
        assert blob.read(5000) == LARGE[:5000]
    with pytest.raises(RegistryUnreachable):
        blob.read(1)
    assert len(waits) == ATTEMPTS


def test_a_blob_that_is_deleted_during_a_download_is_an_error(
    server: HttpRegistryServer, client: HttpRegistry
) -> None:
    """A deleted blob is not a transient failure."""
    server.on("GET", "blobs/sha256", end_response_early(LARGE[:5000], len(LARGE)))
    with client.download(REPOSITORY, digest(LARGE)) as blob:
        assert blob.read(5000) == LARGE[:5000]
        with pytest.raises(RegistryNotFound):
            blob.read(1)


# --- secrets


def provoke_errors(server: HttpRegistryServer, client: HttpRegistry) -> Iterator[RegistryError]:
    """Yield an error of each kind, from a registry that repeats the credentials."""
    tries: Mapping[str, Callable[[], object]] = {
        "POST": lambda: send(client, REPOSITORY, SMALL),
        "PUT": lambda: send(client, REPOSITORY, SMALL),
        "PATCH": lambda: send(client, REPOSITORY, LARGE),
        "HEAD": lambda: client.has_blob(REPOSITORY, digest(SMALL)),
        "GET": lambda: client.download(REPOSITORY, digest(SMALL)),
    }
    for method, attempt in tries.items():
        for act in (
            refuse_with(400),
            refuse_with(403),
            refuse_with(404),
            refuse_with(429),
            refuse_with(500),
            cut_after(0),
        ):
            server.faults.clear()
            server.on(method, "blobs", act, times=1000)
            try:
                attempt()
            except RegistryError as error:
                yield error


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_no_error_and_no_log_holds_a_secret(
    server: HttpRegistryServer, connect: Connect, caplog: pytest.LogCaptureFixture, auth: str
) -> None:
    """Passwords, tokens and the secrets in URLs are hidden, even if the registry repeats them."""
    server.auth = auth  # type: ignore[assignment]  # one of the two
    caplog.set_level(logging.DEBUG, "deploy")
    client = connect(ADA)
    client.has_blob(REPOSITORY, digest(SMALL))
    errors = list(provoke_errors(server, client))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("deploy")]
    texts = [
        *ours,
        *("\n".join((str(error), error.on, error.next, error.detail)) for error in errors),
    ]
    pair = next(
        seen.authorization for seen in server.seen if seen.authorization.startswith("Basic")
    ).partition(" ")[2]
    assert len(errors) > 20
    assert any("refused with" in text for text in texts)
    for secret in (ADA.password, pair, "s3cr3t-state", *server.tokens):
        assert not [text for text in texts if secret in text]
