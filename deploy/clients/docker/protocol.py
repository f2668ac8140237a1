"""A container engine, as a protocol over small values; `client.py` implements it with Docker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, Protocol

from deploy.clients.log_lines import TimedLine
from deploy.platforms import format_platform
from deploy.records import Exit, Image

OOM_KILLED = "OOMKilled"
"""Why a process ended that needed more memory than its limit, in the word of Kubernetes."""
_KILLED = 137
_MEMORY = 1 << 30
_PIDS = 512


@dataclass(frozen=True)
class Limits:
    """What the processes of a container may use together.

    Attributes:
        memory: Its bytes of memory; 0 for no limit.
        pids: Its number of processes and threads.
    """

    memory: int = _MEMORY
    pids: int = _PIDS


@dataclass(frozen=True)
class Spec:
    """The specification of a container.

    Attributes:
        name: Its name, unique on the engine.
        image: A reference or an image id.
        labels: The labels by which it is found.
        command: Replaces the image's own command.
        environment: Additional variables; some may be secret.
        network: The network that it joins; empty for none.
        ip: Its fixed address in that network.
        ports: Pairs of host address and host port, by container port.
        volumes: Pairs of path and read-only, by volume name.
        writable: Paths of small file systems in memory.
        user: Replaces the image's own user.
        restart: Whether the engine restarts it when it ends, and when the engine itself starts.
        limits: What its processes may use.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    network: str = ""
    ip: str = ""
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    volumes: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    writable: tuple[str, ...] = ("/tmp",)  # noqa: S108 - a path in the container
    user: str = ""
    restart: bool = False
    limits: Limits = Limits()


@dataclass(frozen=True)
class Container:
    """The present state of a container.

    Attributes:
        id: Its id.
        name: Its name.
        image: The id of its image.
        labels: Its labels.
        status: What the engine calls its state.
        exit_code: The exit code of its last process that ended.
        restarts: How many times the engine has started it again.
        started: When its last process started; None if none has.
        out_of_memory: Whether its last process was killed because of its limit of memory.
        ended: When its last process ended; None if none has.
        environment: The variables of its process, with those of its image; some may be secret.
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    status: str
    exit_code: int
    restarts: int
    started: datetime | None = None
    out_of_memory: bool = False
    ended: datetime | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def last_exit(self) -> Exit | None:
        """How its last process ended, as far as its state shows that; None if it does not.

        While another process runs, only the lack of memory is left in it.
        """
        reason = OOM_KILLED if self.out_of_memory else ""
        if self.running:
            return Exit(code=_KILLED, reason=reason) if self.restarts and reason else None
        return Exit(code=self.exit_code, at=self.ended, reason=reason) if self.ended else None

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self.status == "running"


class Engine(Protocol):
    """A container engine. A missing object gives None; other failures are errors."""

    @property
    def product(self) -> str:
        """The name of the engine, such as Docker."""

    @property
    def version(self) -> str:
        """The version of the engine."""

    @property
    def is_local(self) -> bool:
        """Whether the engine shares this machine's network, and so its loopback ports."""

    @property
    def architecture(self) -> str:
        """The processor architecture, in OCI's terms."""

    def image_id(self, image: str) -> str | None:
        """Return the id of an image, or None if the engine does not have it."""

    def platform(self, image: str) -> str | None:
        """Return the platform of an image, such as `linux/amd64`; None if there is no image."""

    def import_image(self, archive: IO[bytes], name: str, changes: tuple[str, ...]) -> None:
        """Create an image of one layer from a file system in a tar."""

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        """Return the diff ids of an image's layers, the lowest first; None if there is no image.

        An engine that stores OCI content gives none of an image whose layers it had in another
        compression: it runs that image without its blobs.
        """

    def layer_chains(self) -> Iterable[tuple[str, ...]]:
        """Return the diff ids of the layers of every image."""

    def build(
        self,
        context: IO[bytes],
        *,
        dockerfile: str,
        args: Mapping[str, str],
        tag: str,
        platform: str = "",
        on_line: Callable[[str], None],
    ) -> str:
        """Build a context (a tar) with the classic builder; return the image's id.

        The image is for the engine's own platform if none is given.
        """

    def save(self, image: str) -> Iterator[bytes]:
        """Yield the bytes of an image as the tar of `docker save`."""

    def load(self, archive: Iterable[bytes]) -> None:
        """Load images from a tar of `docker save` or of the OCI layout.

        The tar may lack layers that the engine already has.
        """

    def pull(
        self,
        reference: str,
        login: tuple[str, str] | None,
        on_line: Callable[[str], None],
        platform: str = "",
    ) -> None:
        """Pull an image from its registry, with a user and password if there is a login.

        The image is for the engine's own platform if none is given.
        The user `<token>` means that the password is an identity token.
        """

    def tag(self, image: str, name: str) -> None:
        """Give an image an additional name."""

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        """Return the containers that have all these labels, running or not."""

    def create(self, spec: Spec) -> Container:
        """Create a container without starting it."""

    def start(self, container: str) -> None:
        """Start a container."""

    def stop(self, container: str, grace: int) -> None:
        """Stop a container, and kill it after `grace` seconds; a missing one is no error."""

    def remove(self, container: str) -> None:
        """Remove a container and its anonymous volumes, and kill it if it runs.

        A missing one is no error.
        """

    def enable_restart(self, container: str) -> None:
        """Let the engine restart a container when it ends, and when the engine itself starts."""

    def disable_restart(self, container: str) -> None:
        """Let the engine not restart a container."""

    def logs(self, container: str, lines: int) -> str:
        """Return the last lines that a container wrote."""

    def read_log(
        self, container: str, since: datetime | None = None, lines: int | None = None
    ) -> Iterator[TimedLine]:
        """Yield the lines that a container wrote, with their times; a missing one has none.

        Args:
            container: Its name or id.
            since: The time of the first line; the last whole second before it may be the limit.
            lines: The number of lines at the end that are enough.
        """

    def find_last_exit(self, container: Container) -> Exit | None:
        """Return how the last process of a container ended; None if none has, or it is not known.

        Of a process that was started again since, only the engine's events have that, and the
        engine keeps few of them.
        """

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        """Run a command in a running container; return its exit code and output."""

    def signal(self, container: str, name: str) -> None:
        """Send a signal to a container's first process; the restart policy stays as it is."""

    def put_file(self, container: str, path: str, data: bytes) -> None:
        """Write a file into a volume of a container, running or not."""

    def files(self, container: str, folder: str) -> dict[str, bytes] | None:
        """Return the regular files of a container's folder by name; None without such a folder."""

    def ensure_network(self, name: str, labels: Mapping[str, str]) -> str:
        """Create a network with fixed addresses unless it exists; return its subnet."""

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a volume unless it exists."""

    def remove_labelled(self, labels: Mapping[str, str]) -> list[str]:
        """Remove containers, networks and volumes with all these labels; return their names."""

    def start_tied(self, spec: Spec) -> Any:  # noqa: ANN401 - the engine's own handle
        """Start a container that ends with this process; return None if its name is taken.

        The container runs as long as the returned handle is referenced.
        """

    def end_tied(self, handle: Any) -> None:  # noqa: ANN401 - as above
        """End a container that `start_tied` has started."""


def find_image_id(engine: Engine, image: Image) -> str | None:
    """Return the id of a joined image on an engine, or None if the engine does not have it.

    The id is the digest of the image's config. An engine that stores OCI content has the digest of
    the image manifest instead.
    """
    return next((found for found in (image.config, image.digest) if engine.image_id(found)), None)


def own_platform(engine: Engine) -> str:
    """Return the platform of the images that an engine runs without emulation."""
    return format_platform("linux", engine.architecture)
