"""What a release needs of a container engine, as a protocol over small values; `docker.py` beside it is the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from deploy.records import Image


@dataclass(frozen=True)
class Spec:
    """A container to be made.

    Args:
        name: unique on the engine.
        image: a reference or an image id.
        labels: how it will be found again.
        command: instead of the image's own.
        environment: additional variables.
        network, ip: the network to join, and the fixed address there; empty for no network.
        ports: container port to (host address, host port).
        volumes: volume name to (path, read-only).
        writable: paths that get a small file system in memory.
        user: instead of the image's own.
        restart: whether the engine starts it again when it ends, or when the engine itself starts, also after a crash of its own.
        grace: seconds between the signal to stop and the kill.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    ip: str = ""
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    volumes: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    writable: tuple[str, ...] = ("/tmp",)  # noqa: S108 - a path in the container
    user: str = ""
    restart: bool = False
    grace: int = 10


@dataclass(frozen=True)
class Container:
    """A container as it is now. `exit_code` and `restarts` count from its first start."""

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    status: str
    exit_code: int
    restarts: int

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self.status == "running"


class Engine(Protocol):
    """What a release needs of a container engine. A thing that is not there gives None; the rest are errors."""

    @property
    def version(self) -> str:
        """The engine's version."""

    @property
    def is_local(self) -> bool:
        """Whether the engine shares this machine's network, so that a loopback port here is one there."""

    @property
    def architecture(self) -> str:
        """The processor architecture in the terms of OCI."""

    def image_id(self, image: str) -> str | None:
        """The id of an image, or None if the engine does not hold it; `held` tells that of a joined one."""

    def import_image(self, archive: IO[bytes], name: str, changes: tuple[str, ...]) -> None:
        """Makes an image of one layer from a file system in a tar."""

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        """The layers of an image by diff id, lowest first."""

    def layer_chains(self) -> Iterable[tuple[str, ...]]:
        """The layers of every image that the engine holds."""

    def build(
        self,
        context: IO[bytes],
        *,
        dockerfile: str,
        args: Mapping[str, str],
        tag: str,
        said: Callable[[str], None],
    ) -> str:
        """Builds a context (a tar) with the classic builder; returns the image's id."""

    def save(self, image: str) -> Iterator[bytes]:
        """An image as the tar of `docker save`."""

    def load(self, archive: Iterable[bytes]) -> None:
        """Takes images from such a tar, or one in the OCI layout; layers that the engine holds already may be left out of it."""

    def pull(
        self, reference: str, login: tuple[str, str] | None, said: Callable[[str], None]
    ) -> None:
        """Takes an image from its registry."""

    def tag(self, image: str, name: str) -> None:
        """Gives an image another name."""

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        """The containers, running or not, that carry all these labels."""

    def create(self, spec: Spec) -> Container:
        """Makes a container without starting it."""

    def start(self, container: str) -> None:
        """Starts a container."""

    def stop(self, container: str, grace: int) -> None:
        """Asks a container to stop and kills it after `grace` seconds; one that is stopped or gone is no error."""

    def remove(self, container: str) -> None:
        """Removes a container, killing it if it runs; one that is gone is no error."""

    def enable_restart(self, container: str) -> None:
        """Has the engine start the container again whenever it ends, and whenever the engine itself starts."""

    def disable_restart(self, container: str) -> None:
        """Has the engine not start the container again by itself."""

    def logs(self, container: str, lines: int) -> str:
        """The last lines that a container wrote."""

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        """Runs a command in a running container; its exit code and output."""

    def signal(self, container: str, name: str) -> None:
        """Sends a signal to a container's first process; whether the engine starts that again stays as it was."""

    def put_file(self, container: str, path: str, data: bytes) -> None:
        """Writes a file into a volume of a container, running or not."""

    def files(self, container: str, folder: str) -> dict[str, bytes] | None:
        """The plain files of a folder of a container by name, or None if there is no such folder."""

    def ensure_network(self, name: str, labels: Mapping[str, str]) -> str:
        """Makes sure of a network in which containers may have fixed addresses; returns its subnet."""

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Makes sure of a volume."""

    def remove_labelled(self, labels: Mapping[str, str]) -> list[str]:
        """Removes containers, networks and volumes that carry all these labels; returns their names."""

    def start_tied(self, spec: Spec) -> Any:  # noqa: ANN401 - whatever must stay referenced for the hold to last
        """Starts a container that ends when this process does; None if its name is taken."""

    def end_tied(self, held: Any) -> None:  # noqa: ANN401 - what `hold` gave
        """Lets such a container end now."""


def find_image_id(engine: Engine, image: Image) -> str | None:
    """The id by which an engine holds an image, or None if it does not.

    It is the digest of the image's config, or that of its manifest on an engine that keeps images as OCI content.
    """
    return next((found for found in (image.config, image.digest) if engine.image_id(found)), None)
