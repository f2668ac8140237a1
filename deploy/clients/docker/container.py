"""A container that is started to be tried out and removed again, through testcontainers.

Its reaper is switched off, because its image cannot be pulled everywhere; what a killed process leaves behind is found by
label and removed by the next trial.
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
    """A running trial: where it answers, whether its process still lives, and the end of its log."""

    url: str
    is_running: Callable[[], bool]
    read_log: Callable[[], str]


@contextmanager
def throwaway_container(image: str, port: int) -> Iterator[ThrowawayContainer]:
    """Runs an image as it will run when released: read-only, without capabilities, reachable on the loopback address.

    Args:
        image: an image id that the engine holds.
        port: where its process listens.

    Raises:
        EngineFailed, DiskFull: it cannot be started.
        EngineUnavailable: the engine ended meanwhile.
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
    # Its own methods publish on every address of the machine.
    container.ports = {f"{port}/tcp": ("127.0.0.1", None)}  # type: ignore[dict-item]
    try:
        _sweep(container.get_docker_client().client)
        with container as running:
            wrapped = running.get_wrapped_container()
            yield ThrowawayContainer(
                url=f"http://127.0.0.1:{_published(wrapped, port)}",
                is_running=lambda: _alive(wrapped),
                read_log=lambda: wrapped.logs(tail=20).decode("utf-8", "replace"),
            )
    except docker.errors.APIError as error:
        raise engine_error(
            str(error.explanation or error), image, "the engine could not start the image"
        ) from error
    except connection_errors() as error:
        raise engine_ended_error(image) from error


def _published(container: object, port: int) -> int:
    """The port here that leads to one in the container; 0, which leads nowhere, if it has ended already."""
    container.reload()  # type: ignore[attr-defined]  # the SDK's model is untyped
    found = container.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")  # type: ignore[attr-defined]
    return int(found[0]["HostPort"]) if found else 0


def _alive(container: object) -> bool:
    container.reload()  # type: ignore[attr-defined]  # the SDK's model is untyped
    return bool(container.status == "running")  # type: ignore[attr-defined]


def _sweep(client: object) -> None:
    """Removes trials whose owners have ended; others are left to those who see the processes of their machine."""
    import docker.errors

    # Trials of others may end while they are being listed.
    for container in client.containers.list(  # type: ignore[attr-defined]
        all=True, filters={"label": LABEL}, ignore_removed=True
    ):
        labels: Mapping[str, str] = container.labels
        if has_ended(labels[LABEL], labels.get(MACHINE, "")):
            try:
                container.remove(force=True)
            except docker.errors.APIError:
                continue
