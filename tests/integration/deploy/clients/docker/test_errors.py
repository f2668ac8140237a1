"""Failed pulls of this machine's engine: the registry or the network fails."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Iterator

import pytest

from deploy.clients.docker.client import DockerEngine
from deploy.errors import (
    BlobCorrupt,
    RegistryDenied,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
    ReleaseError,
)
from tests.fakes.http_registry import Act, HttpRegistryServer, cut_after, respond_with
from tests.fakes.registry import digest, manifest

pytestmark = pytest.mark.integration

REPOSITORY = "team/app"
OCI = "application/vnd.oci.image.manifest.v1+json"
OFTEN = 1000


@pytest.fixture
def server() -> Iterator[HttpRegistryServer]:
    """Start a registry that fails as a test wants."""
    with HttpRegistryServer().serve() as serving:
        yield serving


@pytest.fixture
def image(server: HttpRegistryServer) -> str:
    """Return a new image of the registry."""
    layer = secrets.token_bytes(1000)
    rootfs = {"type": "layers", "diff_ids": [digest(layer)]}
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    ).encode()
    whole = manifest(config, layer)
    for data in (config, layer):
        server.blobs[REPOSITORY, digest(data)] = data
    server.manifests[REPOSITORY, digest(whole)] = whole
    return f"{server.host}/{REPOSITORY}@{digest(whole)}"


def refuse_with_code(status: int, code: str) -> Act:
    """Return an act that refuses with an error code."""
    said = {"errors": [{"code": code, "message": "refused", "detail": None}]}
    return respond_with(status, {"Content-Type": "application/json"}, json.dumps(said).encode())


def change_blobs(server: HttpRegistryServer) -> None:
    """Change a byte of every blob of the registry."""
    for name, data in server.blobs.items():
        server.blobs[name] = data[:-1] + bytes([data[-1] ^ 1])


def pull_failure(
    engine: DockerEngine, image: str, login: tuple[str, str] | None = None
) -> ReleaseError:
    """Return the error of a pull that must fail."""
    with pytest.raises(ReleaseError) as caught:
        engine.pull(image, login, lambda _: None)
    assert caught.value.on == image
    return caught.value


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (refuse_with_code(401, "UNAUTHORIZED"), RegistryDenied),
        (refuse_with_code(403, "DENIED"), RegistryDenied),
        (refuse_with_code(404, "MANIFEST_UNKNOWN"), RegistryNotFound),
        (refuse_with_code(404, "NAME_UNKNOWN"), RegistryNotFound),
        (refuse_with_code(429, "TOOMANYREQUESTS"), RegistryRefused),
        (refuse_with_code(503, "UNAVAILABLE"), RegistryRefused),
        (cut_after(0), RegistryUnreachable),
        (respond_with(200, {"Content-Type": OCI}, manifest(b"{}", b"other")), BlobCorrupt),
    ],
    ids=[
        "401",
        "403",
        "404, the image",
        "404, the repository",
        "429",
        "503",
        "a reset",
        "another manifest",
    ],
)
def test_a_registrys_failure_is_its_own_error_when_the_engine_meets_it(
    engine: DockerEngine, server: HttpRegistryServer, image: str, act: Act, kind: type[ReleaseError]
) -> None:
    """The exit code is that of a failed request by the suite itself."""
    for method in ("HEAD", "GET"):
        server.on(method, "manifests", act, OFTEN)
    assert type(pull_failure(engine, image)) is kind


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("login", [None, ("ada", "wrong-sesame")])
def test_a_refused_login_of_the_engine_is_an_error_without_secrets(
    engine: DockerEngine,
    server: HttpRegistryServer,
    image: str,
    auth: str,
    login: tuple[str, str] | None,
) -> None:
    """The registry repeats the header, and the engine repeats the message."""
    server.auth = auth  # type: ignore[assignment]  # one of the two
    error = pull_failure(engine, image, login)
    assert type(error) is RegistryDenied
    pairs = [
        seen.authorization.removeprefix("Basic ") for seen in server.seen if seen.authorization
    ]
    assert bool(pairs) == bool(login)
    assert not [secret for secret in (*pairs, "wrong-sesame") if secret in error.detail]


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(change_blobs, BlobCorrupt), (lambda server: server.blobs.clear(), RegistryNotFound)],
    ids=["changed", "lost"],
)
def test_an_image_that_a_registry_has_damaged_is_refused(
    engine: DockerEngine,
    server: HttpRegistryServer,
    image: str,
    damage: Callable[[HttpRegistryServer], None],
    kind: type[ReleaseError],
) -> None:
    """The engine verifies every digest, and keeps no part of the image."""
    damage(server)
    assert type(pull_failure(engine, image)) is kind
    assert engine.image_id(image) is None


def test_a_registry_that_the_engine_cannot_reach_is_an_error(engine: DockerEngine) -> None:
    """No process listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert (
            type(pull_failure(engine, f"127.0.0.1:{port}/{REPOSITORY}@sha256:{'0' * 64}"))
            is RegistryUnreachable
        )
