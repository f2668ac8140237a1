"""What can go wrong with a Docker engine, in this project's terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deploy.errors import (
    BuildFailed,
    DiskFull,
    EngineDenied,
    EngineFailed,
    EngineUnavailable,
    PortTaken,
    RegistryDenied,
    RegistryNotFound,
    ReleaseError,
)

_TAIL = 15


def build_failed(dockerfile: str, lines: Iterable[str]) -> BuildFailed:
    """The error of a build, with the end of what the builder said."""
    tail = "\n".join(f"  {line}" for line in list(lines)[-_TAIL:])
    return BuildFailed("the app image did not build", on=dockerfile, next="mend what the last lines show, then run again", detail=tail)


def pull_failed(message: str, reference: str) -> ReleaseError:
    """The error of a pull, from what the engine says of it."""
    # The engine passes the registry's refusal on as text only.
    if "unauthorized" in message or "denied" in message or "authentication" in message:
        return RegistryDenied("the engine may not pull the image", on=reference, next="log in with `docker login`", detail=f"  {message}")
    if "not found" in message or "unknown" in message:
        return RegistryNotFound("the registry has no such image", on=reference, next="push it first", detail=f"  {message}")
    return failed(message, reference)


def failed(message: str, on: str) -> ReleaseError:
    """The error of any other request, from what the engine says of it."""
    # The engine has no code for these two, only its message.
    if "no space left on device" in message:
        return DiskFull(
            "the engine has no space left", on=on, next="remove images that no release needs (`docker image ls`)", detail=f"  {message}"
        )
    if "port is already allocated" in message or "address already in use" in message:
        return PortTaken(
            "another program listens on the port", on=on, next="stop it, or set another port in pipeline.toml", detail=f"  {message}"
        )
    return EngineFailed(
        "the container engine refused what it was asked",
        on=on,
        next="see the message; `invoke doctor` checks the engine",
        detail=f"  {message}",
    )


@contextmanager
def connecting(on: str) -> Iterator[None]:
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
        raise EngineUnavailable("no container engine answers", on=on, next="start Docker, or run `invoke up`") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that it wraps, also where a library passes errors as arguments."""
    while error is not None:
        yield error
        for argument in error.args:
            if isinstance(argument, BaseException):
                yield from _chain(argument)
        error = error.__cause__ or error.__context__


@contextmanager
def asking(on: str) -> Iterator[None]:
    """Turns the SDK's errors into this project's."""
    import docker.errors

    try:
        yield
    except docker.errors.APIError as error:
        raise failed(str(error.explanation or error), on) from error
    except breaks() as error:
        raise gone(on) from error


def breaks() -> tuple[type[Exception], ...]:
    """What the SDK, and the libraries below it, raise when the engine ends in the middle of an answer."""
    import http.client

    import docker.errors
    import requests
    import urllib3.exceptions

    return docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError


def gone(on: str) -> EngineUnavailable:
    """The error of an engine that was there and is not any more."""
    return EngineUnavailable(
        "the container engine stopped answering", on=on, next="see that it runs (`invoke doctor`), then run the same command again"
    )
