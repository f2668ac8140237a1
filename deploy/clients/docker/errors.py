"""What can go wrong with a Docker engine, in this project's terms."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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

_TAIL = 15
_FULL = "no space left on device"
_CONTAINER = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}\b")
# What engines say of a pull; they pass on as text what the registry, or the way to it, refused.
_PULLS: tuple[tuple[type[ReleaseError], tuple[str, ...], str, str], ...] = (
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
        "the registry gave the engine other bytes than it was asked for",
        "the registry's storage is damaged or it lies; push the release again, or use another registry",
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
        "check the address and the network; for a certificate of your own, see the engine's /etc/docker/certs.d",
    ),
    (
        RegistryRefused,
        ("toomanyrequests", "unexpected http status", "unexpected status"),
        "the registry refused the engine",
        "run again later; see the registry's log if it stays so",
    ),
    (
        RegistryNotFound,
        ("not found", "manifest unknown", "name unknown", "blob unknown", "unknown blob"),
        "the registry has no such image",
        "push it first",
    ),
)


def build_error(dockerfile: str, lines: Iterable[str]) -> ReleaseError:
    """The error of a build, with the end of what the builder said."""
    tail = "\n".join(f"  {line}" for line in list(lines)[-_TAIL:])
    if _FULL in tail.lower():
        return _disk_full(tail, dockerfile)
    return BuildFailed(
        "the app image did not build",
        on=dockerfile,
        next="mend what the last lines show, then run again",
        detail=tail,
    )


def pull_error(message: str, reference: str, login: tuple[str, str] | None) -> ReleaseError:
    """The error of a pull, from what the engine says of it, without the credentials that a registry may have repeated."""
    for secret in (base64.b64encode(":".join(login).encode()).decode(), login[1]) if login else ():
        message = message.replace(secret, "…") if secret else message
    repository = reference.partition("@")[0]
    # A repository may be called by one of the words.
    said = message.replace(repository, "").replace(f"/{repository.partition('/')[2]}/", "").lower()
    for kind, words, what, advice in _PULLS if _FULL not in said else ():
        if any(word in said for word in words):
            return kind(what, on=reference, next=advice, detail=f"  {message}")
    return engine_error(message, reference)


def _disk_full(detail: str, on: str) -> DiskFull:
    return DiskFull(
        "the engine has no space left",
        on=on,
        next="remove images that no release needs (`docker image ls`)",
        detail=detail,
    )


def engine_error(
    message: str, on: str, what: str = "the container engine refused what it was asked"
) -> ReleaseError:
    """The error of any other request, from what the engine says of it."""
    # The engine has no code for these two, only its message.
    if _FULL in message:
        return _disk_full(f"  {message}", on)
    if "port is already allocated" in message or "address already in use" in message:
        return PortTaken(
            "another program listens on the port",
            on=on,
            next="stop it, or set another port in pipeline.toml",
            detail=f"  {message}",
        )
    return EngineFailed(
        what,
        on=on,
        next="see the message; `invoke doctor` checks the engine",
        detail=f"  {message}",
    )


@contextmanager
def translate_connection_errors(on: str) -> Iterator[None]:
    """Tells an engine that is not there from one that this user may not use."""
    import docker.errors
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
        causes = list(_chain(error))
        if any(isinstance(cause, PermissionError) for cause in causes):
            raise EngineDenied(
                "the container engine is running, but this user may not use it",
                on="the engine's socket",
                next="join its group (`sudo usermod -aG docker $USER`, then log in again), or run as root",
            ) from error
        raise EngineUnavailable(
            "no container engine answers", on=on, next="start Docker, or run `invoke up`"
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that it wraps, also where a library passes errors as arguments."""
    while error is not None:
        yield error
        for argument in error.args:
            if isinstance(argument, BaseException):
                yield from _chain(argument)
        error = error.__cause__ or error.__context__


@contextmanager
def translate_errors(on: str) -> Iterator[None]:
    """Turns the SDK's errors into this project's; a container's id is told as `docker ps` shows it."""
    import docker.errors

    on = _CONTAINER.sub(r"\1", on)
    try:
        yield
    except docker.errors.APIError as error:
        raise engine_error(str(error.explanation or error), on) from error
    except connection_errors() as error:
        raise engine_ended_error(on) from error


def connection_errors() -> tuple[type[Exception], ...]:
    """What the SDK, and the libraries below it, raise when the engine ends in the middle of an answer."""
    import http.client

    import docker.errors
    import requests
    import urllib3.exceptions

    return (
        docker.errors.DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
    )


def engine_ended_error(on: str) -> EngineUnavailable:
    """The error of an engine that was there and is not any more."""
    return EngineUnavailable(
        "the container engine stopped answering",
        on=on,
        next="see that it runs (`invoke doctor`), then run the same command again",
    )
