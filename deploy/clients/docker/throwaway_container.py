"""A throwaway container, started for a test and removed afterwards, through testcontainers.

The reaper of testcontainers is off, because not every machine can pull its image. The next start
finds by label what a killed process has left, and removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from deploy.clients.docker.errors import connection_errors, engine_ended_error, engine_error
from deploy.machine.process import ProcessId, has_ended, machine_id

LABEL = "dev.twinship.trial"
MACHINE = "dev.twinship.machine"

StartContainer = Callable[[str, int], "AbstractContextManager[ThrowawayContainer]"]


@dataclass(frozen=True)
class ThrowawayContainer:
    """A running container.

    Attributes:
        url: The address at which it answers.
        is_running: Returns whether its process is running.
        read_log: Returns the end of its log.
    """

    url: str
    is_running: Callable[[], bool]
    read_log: Callable[[], str]


@contextmanager
def throwaway_container(image: str, port: int) -> Iterator[ThrowawayContainer]:
    """Run an image as in a release: read-only, without capabilities, on the loopback address.

    Args:
        image: The id of an image of the engine.
        port: The port on which its process listens.

    Raises:
        EngineFailed, DiskFull: The container cannot be started.
        EngineUnavailable: The engine ended meanwhile.
    """
    import docker.errors
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True
    testcontainers_config.tc_host_override = "localhost"
    labels = {LABEL: str(ProcessId.current()), MACHINE: machine_id()}
    hardened = {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "labels": labels,
    }
    container = DockerContainer(image).with_kwargs(**hardened).with_tmpfs_mount("/tmp", "size=64m")  # noqa: S108 - a path in the container
    # The methods of testcontainers publish a port on every address of the machine.
    container.ports = {f"{port}/tcp": ("127.0.0.1", None)}  # type: ignore[dict-item]
    try:
        _remove_leftovers(container.get_docker_client().client)
        with container as running:
            wrapped = running.get_wrapped_container()
            yield ThrowawayContainer(
                url=f"http://127.0.0.1:{_published_port(wrapped, port)}",
                is_running=lambda: _is_running(wrapped),
                read_log=lambda: wrapped.logs(tail=20).decode("utf-8", "replace"),
            )
    except docker.errors.APIError as error:
        raise engine_error(
            str(error.explanation or error), image, "the engine could not start the image"
        ) from error
    except connection_errors() as error:
        raise engine_ended_error(image) from error


def _published_port(container: object, port: int) -> int:
    """Return the port of this machine that leads to one of the container; 0 if it has ended."""
    container.reload()  # type: ignore[attr-defined]  # the SDK's model is untyped
    found = container.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")  # type: ignore[attr-defined]
    return int(found[0]["HostPort"]) if found else 0


def _is_running(container: object) -> bool:
    container.reload()  # type: ignore[attr-defined]  # the SDK's model is untyped
    return bool(container.status == "running")  # type: ignore[attr-defined]


def _remove_leftovers(client: object) -> None:
    """Remove containers whose processes have ended; those of other machines stay."""
    import docker.errors

    # Containers of other processes can end while the engine lists them.
    for container in client.containers.list(  # type: ignore[attr-defined]
        all=True, filters={"label": LABEL}, ignore_removed=True
    ):
        labels: Mapping[str, str] = container.labels
        if has_ended(labels[LABEL], labels.get(MACHINE, "")):
            try:
                container.remove(force=True)
            except docker.errors.APIError:
                continue
