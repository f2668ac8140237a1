"""Errors of the libraries become errors of this project."""

from __future__ import annotations

import http.client

import docker.errors
import pytest
import requests
import urllib3.exceptions
from docker.credentials.errors import StoreError

from deploy.clients.docker.address import EngineAddress
from deploy.clients.docker.errors import (
    build_error,
    engine_error,
    pull_error,
    translate_connection_errors,
    translate_errors,
)
from deploy.errors import (
    BlobCorrupt,
    BuildFailed,
    DiskFull,
    EngineFailed,
    EngineUnavailable,
    ModelUnknown,
    PortTaken,
    RegistryDenied,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
    ReleaseError,
)

REFERENCE = f"registry.example/team/app@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "broken",
    [
        docker.errors.DockerException("gone"),
        requests.ConnectionError("gone"),
        urllib3.exceptions.ProtocolError("gone"),
        http.client.IncompleteRead(b""),
        ConnectionResetError("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_engine_that_ends_in_a_response_is_unavailable(broken: Exception) -> None:
    """Any of the libraries can notice it first."""
    with pytest.raises(EngineUnavailable) as caught, translate_errors("replica-1"):
        raise broken
    assert caught.value.on == "replica-1"


@pytest.mark.parametrize(
    ("name", "displayed"),
    [
        ("f2a79ebd1710" + 52 * "0", "f2a79ebd1710"),
        ("f2a79ebd1710" + 52 * "0" + ":/state/1.json", "f2a79ebd1710:/state/1.json"),
        ("sha256:" + 64 * "0", "sha256:" + 64 * "0"),
        (REFERENCE, REFERENCE),
    ],
)
def test_a_container_is_displayed_by_its_short_id(name: str, displayed: str) -> None:
    """A container's id is that of `docker ps`; digests of images stay whole."""
    with pytest.raises(EngineUnavailable) as caught, translate_errors(name):
        raise ConnectionResetError("gone")
    assert caught.value.on == displayed


def test_a_refusal_of_the_engine_keeps_its_message() -> None:
    """The detail has the engine's message."""
    with pytest.raises(EngineFailed, match="refused") as caught, translate_errors("replica-1"):
        raise docker.errors.APIError("500 error", explanation="invalid mount")
    assert "invalid mount" in caught.value.detail


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_credential_helper_that_fails_is_named(wrapped: bool) -> None:
    """The SDK runs it in a request to the engine, which has not failed."""
    failure: Exception = StoreError('docker-credential-pass exited with "locked".')
    if wrapped:
        outer = docker.errors.DockerException("Credentials store error")
        outer.__cause__ = failure
        failure = outer
    with pytest.raises(RegistryDenied) as caught, translate_errors("Dockerfile"):
        raise failure
    assert "docker-credential-pass" in caught.value.detail
    assert "config.json" in caught.value.what


@pytest.mark.parametrize(
    ("address", "cure"),
    [
        (EngineAddress(), "invoke up"),
        (EngineAddress("tcp://far.example:2376", "DOCKER_HOST"), "unset DOCKER_HOST"),
    ],
)
def test_an_engine_that_is_down_is_named(address: EngineAddress, cure: str) -> None:
    """Only the engine of this machine can be started from here."""
    with pytest.raises(EngineUnavailable) as caught, translate_connection_errors(address):
        raise requests.ConnectionError("refused")
    assert address.url in caught.value.on
    assert cure in caught.value.next


def test_errors_of_this_project_pass() -> None:
    """They need no translation."""
    with pytest.raises(ModelUnknown), translate_errors("replica-1"):
        raise ModelUnknown("none", on="store", next="publish it")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("unauthorized: authentication required", RegistryDenied),
        (
            'Get "https://registry.example/v2/team/app/manifests/1": no basic auth credentials',
            RegistryDenied,
        ),
        (
            (
                "pull access denied for registry.example/team/app, repository does "
                "not exist or may require 'docker login'"
            ),
            RegistryDenied,
        ),
        (
            (
                f"failed to resolve reference: {REFERENCE}: pull access denied, "
                "server message: insufficient_scope: authorization failed"
            ),
            RegistryDenied,
        ),
        (
            f"manifest for {REFERENCE} not found: manifest unknown: manifest unknown",
            RegistryNotFound,
        ),
        (
            (
                "repository registry.example/team/app not found: name unknown: "
                "repository name not known"
            ),
            RegistryNotFound,
        ),
        ("unknown blob", RegistryNotFound),
        ("toomanyrequests: You have reached your pull rate limit", RegistryRefused),
        ("received unexpected HTTP status: 503 Service Unavailable", RegistryRefused),
        (
            (
                'Get "https://registry.example/v2/": dial tcp 10.0.0.1:443: connect: '
                "connection refused"
            ),
            RegistryUnreachable,
        ),
        (
            'Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
            RegistryUnreachable,
        ),
        (
            (
                "download failed after attempts=6: read tcp 10.0.0.1:57564: read: "
                "connection reset by peer"
            ),
            RegistryUnreachable,
        ),
        (
            'Get "https://registry.example/v2/": net/http: TLS handshake timeout',
            RegistryUnreachable,
        ),
        (
            'Get "https://registry.example/v2/": x509: certificate signed by unknown authority',
            RegistryUnreachable,
        ),
        ("filesystem layer verification failed for digest sha256:00", BlobCorrupt),
        ("manifest verification failed for digest sha256:00", BlobCorrupt),
        (
            (
                "commit failed: unexpected commit digest sha256:00, expected "
                "sha256:01: failed precondition"
            ),
            BlobCorrupt,
        ),
        ("commit failed: failed size validation: 1000 != 1002: failed precondition", BlobCorrupt),
        (
            (
                "unexpected status from HEAD request to "
                "https://registry.example/v2/team/app/manifests/sha256:00: 403 Forbidden"
            ),
            RegistryDenied,
        ),
        ("failed to register layer: write /model/model.onnx: no space left on device", DiskFull),
        ("invalid reference format", EngineFailed),
    ],
)
def test_a_failed_pull_is_known_by_the_engines_message(
    message: str, kind: type[ReleaseError]
) -> None:
    """They are the same errors as those of the registry's client."""
    error = pull_error(message, REFERENCE, None)
    assert type(error) is kind
    assert error.on == REFERENCE
    assert message in error.detail


@pytest.mark.parametrize(
    "message",
    [
        "could not find an available, non-overlapping IPv4 address pool among the defaults",
        "all predefined address pools have been fully subnetted",
    ],
)
def test_an_engine_without_addresses_for_a_network_names_its_pools(message: str) -> None:
    """Each of its networks takes a part of them."""
    error = engine_error(message, "network twinship-a-local")
    assert type(error) is EngineFailed
    assert "default-address-pools" in error.next


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_known_by_the_engines_status(status: int) -> None:
    """With containerd's image store the message is only what the registry said."""
    error = pull_error("error from registry: no", REFERENCE, None, status)
    assert type(error) is RegistryDenied


@pytest.mark.parametrize("name", ["denied", "timeout/unauthorized", "x509:"])
def test_a_repositorys_name_does_not_decide_over_its_errors(name: str) -> None:
    """A repository can have the name of a failure."""
    reference = f"registry.example/{name}@sha256:{'0' * 64}"
    assert (
        type(pull_error(f"manifest for {reference} not found: manifest unknown", reference, None))
        is RegistryNotFound
    )
    message = f'Get "https://registry.example/v2/{name}/manifests/sha256:00": toomanyrequests: wait'
    assert type(pull_error(message, reference, None)) is RegistryRefused


def test_credentials_that_the_engine_repeats_are_hidden() -> None:
    """A registry can repeat the header of the request."""
    error = pull_error(
        "unauthorized: refused with Basic YWRhOm9wZW4tc2VzYW1l, ada, open-sesame",
        REFERENCE,
        ("ada", "open-sesame"),
    )
    assert "unauthorized: refused with Basic …, ada, …" in error.detail


@pytest.mark.parametrize(
    "line",
    [
        "Error processing tar file(exit status 1): write /wheels/a.whl: no space left on device",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    ],
)
def test_a_build_that_fills_the_disk_is_no_fault_of_the_dockerfile(line: str) -> None:
    """The engine reports it, or a program of the build."""
    lines = [
        *(f"line {number}" for number in range(30)),
        line,
        "The command returned a non-zero code: 1",
    ]
    error = build_error("Dockerfile", lines)
    assert type(error) is DiskFull
    assert line in error.detail
    assert type(build_error("Dockerfile", [*lines[:-2], lines[-1]])) is BuildFailed


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("write /var/lib/docker/overlay2/link: no space left on device", DiskFull),
        ("Bind for 127.0.0.1:8080 failed: port is already allocated", PortTaken),
        ("listen tcp4 127.0.0.1:8080: bind: address already in use", PortTaken),
        ("invalid mount", EngineFailed),
    ],
)
def test_a_refusal_with_its_own_fix_is_an_error_of_its_own(
    message: str, kind: type[ReleaseError]
) -> None:
    """A full disk and a taken port have advice of their own."""
    error = engine_error(message, "replica-1", "the engine could not start the image")
    assert type(error) is kind
    assert (error.on, error.detail) == ("replica-1", f"  {message}")
    assert (error.what == "the engine could not start the image") == (kind is EngineFailed)
