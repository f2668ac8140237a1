"""The failures of a Docker engine, as errors of this project."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.clients.causes import causes
from deploy.clients.docker.address import EngineAddress, find_engine_address
from deploy.clients.docker.configuration import DockerConfiguration
from deploy.errors import (
    BlobCorrupt,
    BuildFailed,
    DiskFull,
    EngineDenied,
    EngineFailed,
    EngineUnavailable,
    PortTaken,
    RegistryDenied,
    RegistryNotFound,
    RegistryRefused,
    RegistryUnreachable,
    ReleaseError,
)
from deploy.text import hide_secrets

if TYPE_CHECKING:
    import docker.errors

_TAIL = 15
_FULL = "no space left on device"
_REFUSED = "the container engine refused the request"
_DENIED = (401, 403)
_CHANGING = "data changed during operation"
_NO_POOL = ("address pool", "fully subnetted")
_CONTAINER = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}\b")
# Texts of failed pulls: an engine passes on failures of the registry and the network as text.
_PULL_FAILURES: tuple[tuple[type[ReleaseError], tuple[str, ...], str, str], ...] = (
    (
        RegistryDenied,
        (
            "unauthorized",
            "denied",
            "authentication",
            "no basic auth credentials",
            "authorization failed",
            "403 forbidden",
        ),
        "the engine may not pull the image",
        "log in with `docker login`",
    ),
    (
        BlobCorrupt,
        ("verification failed", "unexpected commit digest", "failed size validation"),
        "the registry gave the engine other bytes than it requested",
        "the registry's storage is damaged; push the release again, or use another registry",
    ),
    (
        RegistryUnreachable,
        (
            "connection re",
            "no such host",
            "timeout",
            "deadline exceeded",
            "no route to host",
            "network is unreachable",
            "x509:",
            "tls:",
        ),
        "the engine cannot reach the registry",
        (
            "check the address and the network; for a certificate of your own, "
            "see the engine's /etc/docker/certs.d"
        ),
    ),
    (
        RegistryRefused,
        ("toomanyrequests", "unexpected http status", "unexpected status"),
        "the registry refused the engine",
        "run again later; if it fails again, see the registry's log",
    ),
    (
        RegistryNotFound,
        ("not found", "manifest unknown", "name unknown", "blob unknown", "unknown blob"),
        "the registry has no such image",
        "push it first",
    ),
)


def build_error(dockerfile: str, lines: Iterable[str]) -> ReleaseError:
    """Return the error of a failed build, with the end of the builder's output."""
    tail = "\n".join(f"  {line}" for line in list(lines)[-_TAIL:])
    if _FULL in tail.lower():
        return _disk_full(tail, dockerfile)
    return BuildFailed(
        "the app image did not build",
        on=dockerfile,
        next="fix what the last lines show, then run again",
        detail=tail,
    )


def pull_error(
    message: str, reference: str, login: tuple[str, str] | None, status: int | None = None
) -> ReleaseError:
    """Return the error of a failed pull, without credentials that a registry may have repeated.

    Args:
        message: The engine's message.
        reference: The image.
        login: The user and password that the engine sent to the registry.
        status: The HTTP status of the engine's response, if it had not begun to pull.
    """
    if login:
        pair = base64.b64encode(":".join(login).encode()).decode()
        message = hide_secrets(message, (pair, login[1]))
    repository = reference.partition("@")[0]
    # A repository can have one of these texts as its name.
    path = f"/{repository.partition('/')[2]}/"
    text = message.replace(repository, "").replace(path, "").lower()
    for kind, phrases, what, advice in _PULL_FAILURES if _FULL not in text else ():
        is_denied = kind is RegistryDenied and status in _DENIED
        if is_denied or any(phrase in text for phrase in phrases):
            return kind(what, on=reference, next=advice, detail=f"  {message}")
    return engine_error(message, reference)


def _disk_full(detail: str, on: str) -> DiskFull:
    return DiskFull(
        "the engine has no space left",
        on=on,
        next="remove images that no release needs (`docker image ls`)",
        detail=detail,
    )


def engine_error(message: str, on: str, what: str = _REFUSED) -> ReleaseError:
    """Return the error of any other failed request, from the engine's message."""
    # The engine has no code for these failures.
    if _FULL in message:
        return _disk_full(f"  {message}", on)
    if "port is already allocated" in message or "address already in use" in message:
        return PortTaken(
            "another program listens on the port",
            on=on,
            next="stop it, or set another port in pipeline.toml",
            detail=f"  {message}",
        )
    advice = "see the message; `invoke doctor` checks the engine"
    if any(phrase in message for phrase in _NO_POOL):
        advice = (
            "remove networks that nothing uses (`docker network prune`), or add "
            "`default-address-pools` to the engine's daemon.json"
        )
    return EngineFailed(what, on=on, next=advice, detail=f"  {message}")


@contextmanager
def translate_connection_errors(address: EngineAddress) -> Iterator[None]:
    """Translate a failed connection: no engine answers, or this user may not use it."""
    import docker.errors
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
        if any(isinstance(cause, PermissionError) for cause in causes(error)):
            raise EngineDenied(
                "the container engine is running, but this user may not use it",
                on=str(address),
                next="join its group (`sudo usermod -aG docker $USER`, then log in again), "
                "or run as root",
            ) from error
        raise EngineUnavailable(
            "no container engine answers",
            on=str(address),
            next="start that engine, or choose that of this machine: unset DOCKER_HOST and "
            "DOCKER_CONTEXT, or `docker context use default`"
            if address.is_named
            else "start Docker, or run `invoke up`",
            detail=f"  {[*causes(error)][-1]}" if address.is_named else "",
        ) from error


def is_changing(error: docker.errors.APIError) -> bool:
    """Return whether an engine asks to repeat a request, because what it read has changed."""
    return _CHANGING in str(error.explanation)


@contextmanager
def translate_errors(on: str, what: str = _REFUSED) -> Iterator[None]:
    """Translate the SDK's errors.

    Args:
        on: To what a request is made; a container's id is shortened as in `docker ps`.
        what: What happened if the engine refuses it.
    """
    import docker.errors
    from docker.credentials.errors import StoreError

    on = _CONTAINER.sub(r"\1", on)
    try:
        yield
    except docker.errors.APIError as error:
        raise engine_error(str(error.explanation or error), on, what) from error
    except _request_errors() as error:
        found = next((cause for cause in causes(error) if isinstance(cause, StoreError)), None)
        raise (_helper_error(str(found), on) if found else _engine_ended_error(on)) from error


def _helper_error(message: str, on: str) -> RegistryDenied:
    """Return the error of a credential helper that fails; its message names it."""
    return RegistryDenied(
        f"a credential helper of {DockerConfiguration.read().file} failed",
        on=on,
        next="log in again (`docker login`), or remove the helper from that file",
        detail=f"  {message}",
    )


def published_elsewhere_error(address: str) -> EngineFailed:
    """Return the error of a published port that nothing on this machine has.

    Args:
        address: The address and port that the engine published.
    """
    return EngineFailed(
        "what the engine publishes cannot be reached from here",
        on=f"{address}, of the engine at {find_engine_address()}",
        next="the engine is on another machine, or outside of the container in which this runs: "
        "give that container the network of its host (`--network host`), "
        "or run an engine in it",
    )


def _request_errors() -> tuple[type[Exception], ...]:
    """Return the types that the SDK and its libraries raise when a request is not answered.

    The engine may have ended in a response; or a credential helper failed before the request.
    """
    import http.client

    import docker.errors
    import requests
    import urllib3.exceptions
    from docker.credentials.errors import StoreError

    return (
        docker.errors.DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
        StoreError,
    )


def _engine_ended_error(on: str) -> EngineUnavailable:
    """Return the error of an engine that answered before and no longer does."""
    return EngineUnavailable(
        "the container engine stopped answering",
        on=on,
        next="see that it runs (`invoke doctor`), then run the same command again",
    )
