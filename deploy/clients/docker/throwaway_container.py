"""A throwaway container, started for a test and removed afterwards, through testcontainers.

testcontainers gets the engine, a configuration and a home folder from here, and nothing that a user
has set for tests of his own. Its reaper is off: the next start finds by label what a killed process
has left, and removes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from deploy.clients.docker.address import find_engine_address, library_variables
from deploy.clients.docker.client import limit_options
from deploy.clients.docker.errors import published_elsewhere_error, translate_errors
from deploy.clients.docker.protocol import Limits
from deploy.clients.network import is_taken
from deploy.machine.process import ProcessId, has_ended, machine_id

LABEL = "dev.twinship.trial"
MACHINE = "dev.twinship.machine"
_ADDRESS = "127.0.0.1"
_FORWARDED_WITHIN = 5.0
_POLL = 0.1

StartContainer = Callable[
    [str, int, Limits, Mapping[str, str]], "AbstractContextManager[ThrowawayContainer]"
]


@dataclass(frozen=True)
class ThrowawayContainer:
    """A running container.

    Attributes:
        url: The address at which it answers.
        is_running: Returns whether its process is running.
        read_log: Returns the end of its log.
        was_out_of_memory: Returns whether its process was killed because of its limit of memory.
    """

    url: str
    is_running: Callable[[], bool]
    read_log: Callable[[], str]
    was_out_of_memory: Callable[[], bool]


@contextmanager
def throwaway_container(
    image: str,
    port: int,
    limits: Limits,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[ThrowawayContainer]:
    """Run an image as in a release: read-only, without capabilities, on the loopback address.

    Args:
        image: The id of an image of the engine.
        port: The port on which its process listens.
        limits: What its processes may use.
        environment: Its variables, besides the image's own.

    Raises:
        EngineFailed, DiskFull: The container cannot be started, or its port is on another machine.
        EngineUnavailable: The engine ended meanwhile.
    """
    with translate_errors(image, "the engine could not start the image"), ExitStack() as stack:
        # testcontainers reads variables and files when it is imported and when it starts something.
        with library_variables(find_engine_address()):
            container = stack.enter_context(_create(image, port, limits, environment))
        wrapped = container.get_wrapped_container()
        published = _published_port(wrapped, port)
        if published:
            _require_here(published, lambda: _is_running(wrapped))
        yield ThrowawayContainer(
            url=f"http://{_ADDRESS}:{published}",
            is_running=lambda: _is_running(wrapped),
            read_log=lambda: wrapped.logs(tail=20).decode("utf-8", "replace"),
            was_out_of_memory=lambda: _was_out_of_memory(wrapped),
        )


def _create(image: str, port: int, limits: Limits, environment: Mapping[str, str]) -> Any:  # noqa: ANN401 - testcontainers is imported lazily
    """Return a container that is to be started; what killed processes left is removed first."""
    from testcontainers.core.container import DockerContainer

    labels = {LABEL: str(ProcessId.current()), MACHINE: machine_id()}
    hardened = {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "labels": labels,
        **limit_options(limits),
    }
    container = DockerContainer(image).with_kwargs(**hardened).with_tmpfs_mount("/tmp", "size=64m")  # noqa: S108 - a path in the container
    for name, value in environment.items():
        container.with_env(name, value)
    # The methods of testcontainers publish a port on every address of the machine.
    container.ports = {f"{port}/tcp": (_ADDRESS, None)}  # type: ignore[dict-item]  # its type has no addresses
    client = container.get_docker_client().client
    client.api.trust_env = False
    _remove_leftovers(client)
    return container


def _require_here(port: int, is_running: Callable[[], bool]) -> None:
    """Raise if a published port stays free on this machine although the container runs.

    An engine in a virtual machine may forward its ports a moment later.

    Raises:
        EngineFailed: The engine publishes ports in another place.
    """
    deadline = time.monotonic() + _FORWARDED_WITHIN
    while not is_taken(_ADDRESS, port) and is_running():
        if time.monotonic() > deadline:
            raise published_elsewhere_error(f"{_ADDRESS}:{port}")
        time.sleep(_POLL)


def _published_port(container: Any, port: int) -> int:  # noqa: ANN401 - the SDK's model is untyped
    """Return the port of this machine that leads to one of the container; 0 if it has ended."""
    container.reload()
    found = container.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")
    return int(found[0]["HostPort"]) if found else 0


def _is_running(container: Any) -> bool:  # noqa: ANN401 - as above
    container.reload()
    return bool(container.status == "running")


def _was_out_of_memory(container: Any) -> bool:  # noqa: ANN401 - as above
    container.reload()
    return bool(container.attrs["State"]["OOMKilled"])


def _remove_leftovers(client: Any) -> None:  # noqa: ANN401 - as above
    """Remove containers whose processes have ended; those of other machines stay."""
    import docker.errors

    # Containers of other processes can end while the engine lists them.
    for container in client.containers.list(
        all=True, filters={"label": LABEL}, ignore_removed=True
    ):
        labels: Mapping[str, str] = container.labels
        if has_ended(labels[LABEL], labels.get(MACHINE, "")):
            try:
                container.remove(force=True, v=True)
            except docker.errors.APIError:
                continue
