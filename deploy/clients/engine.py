"""A Docker engine: images, containers, networks and volumes, as small values.

Source: Docker Engine API 1.41 and the docker SDK's low-level client. Containers that are started here never run as root,
have a read-only root file system, no capabilities, and no way to gain privileges.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from deploy.errors import BuildFailed, DiskFull, EngineDenied, EngineFailed, EngineUnavailable, PortTaken, RegistryDenied, RegistryNotFound

_TIMEOUT = 300
_TAIL = 15
_CHUNK = 1 << 20


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
        restart: whether the engine starts it again when it ends, or when the engine itself starts.
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
    writable: tuple[str, ...] = ("/tmp",)  # noqa: S108  a path in the container
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

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        """The layers of an image by diff id, lowest first."""

    def chains(self) -> Iterable[tuple[str, ...]]:
        """The layers of every image that the engine holds."""

    def build(self, context: IO[bytes], *, dockerfile: str, args: Mapping[str, str], tag: str, said: Callable[[str], None]) -> str:
        """Builds a context (a tar) with the classic builder; returns the image's id."""

    def save(self, image: str) -> Iterator[bytes]:
        """An image as the tar of `docker save`."""

    def load(self, archive: Iterable[bytes]) -> None:
        """Takes images from such a tar; layers that the engine holds already may be left out of it."""

    def pull(self, reference: str, login: tuple[str, str] | None, said: Callable[[str], None]) -> None:
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

    def keep_running(self, container: str) -> None:
        """Has the engine start the container again whenever it ends."""

    def logs(self, container: str, lines: int) -> str:
        """The last lines that a container wrote."""

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        """Runs a command in a running container; its exit code and output."""

    def signal(self, container: str, name: str) -> None:
        """Sends a signal to a container's first process."""

    def put_file(self, container: str, path: str, data: bytes) -> None:
        """Writes a file into a volume of a container, running or not."""

    def files(self, container: str, folder: str) -> dict[str, bytes] | None:
        """The plain files of a folder of a container by name, or None if there is no such folder."""

    def network(self, name: str, labels: Mapping[str, str]) -> str:
        """Makes sure of a network in which containers may have fixed addresses; returns its subnet."""

    def volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Makes sure of a volume."""

    def hold(self, spec: Spec) -> Any:  # noqa: ANN401  whatever must stay referenced for the hold to last
        """Starts a container that ends when this process does; None if its name is taken."""

    def release(self, held: Any) -> None:  # noqa: ANN401  what `hold` gave
        """Lets such a container end now."""


class DockerEngine:
    """The engine that DOCKER_HOST or the current Docker context names.

    Raises:
        EngineUnavailable: none answers.
        EngineDenied: this user may not use its socket.
    """

    def __init__(self) -> None:
        import docker

        with _connecting():
            self._api: Any = docker.APIClient(**_where(), version="auto", timeout=_TIMEOUT)
            self._api.ping()

    @property
    def version(self) -> str:
        """The engine's version."""
        return str(self._api.version(api_version=False)["Version"])

    @property
    def local(self) -> bool:
        """Whether the engine shares this machine's network, so that a loopback port here is one there."""
        return str(self._api.base_url).startswith(("http+docker://", "http://localhost", "http://127."))

    @property
    def machine(self) -> str:
        """The processor architecture in the terms of OCI."""
        return str(self._api.version(api_version=False)["Arch"])

    # --- images

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        from docker.errors import ImageNotFound

        with _asking(image):
            try:
                return tuple(self._api.inspect_image(image)["RootFS"].get("Layers") or ())
            except ImageNotFound:
                return None

    def image_id(self, image: str) -> str | None:
        """The id of an image, or None if the engine does not hold it."""
        from docker.errors import ImageNotFound

        with _asking(image):
            try:
                return str(self._api.inspect_image(image)["Id"])
            except ImageNotFound:
                return None

    def chains(self) -> Iterable[tuple[str, ...]]:
        with _asking("images"):
            found = {image["Id"] for image in self._api.images(all=False)}
        return [layers for image in found if (layers := self.diff_ids(image))]

    def build(self, context: IO[bytes], *, dockerfile: str, args: Mapping[str, str], tag: str, said: Callable[[str], None]) -> str:
        lines: list[str] = []
        with _asking(dockerfile):
            for event in self._api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                buildargs=dict(args),
                tag=tag,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                for line in str(event.get("stream", "")).splitlines():
                    if line.strip():
                        lines.append(line)
                        said(line)
                if "error" in event:
                    raise build_failed(dockerfile, [*lines, str(event["error"])])
        built = self.image_id(tag)
        if built is None:
            raise build_failed(dockerfile, lines)
        return built

    def save(self, image: str) -> Iterator[bytes]:
        with _asking(image):
            yield from self._api.get_image(image, chunk_size=_CHUNK)

    def load(self, archive: Iterable[bytes]) -> None:
        with _asking("image"):
            for event in self._api.load_image(iter(archive)):
                if "error" in event:
                    raise _failed(str(event["error"]), "image")

    def pull(self, reference: str, login: tuple[str, str] | None, said: Callable[[str], None]) -> None:
        from docker.errors import NotFound

        repository, _, digest = reference.partition("@")
        auth = {"username": login[0], "password": login[1]} if login else None
        with _asking(reference):
            try:
                for event in self._api.pull(repository, tag=digest or None, stream=True, decode=True, auth_config=auth):
                    if "error" in event:
                        raise _pull_failed(str(event["error"]), reference)
                    said(" ".join(str(event[key]) for key in ("id", "status", "progress") if event.get(key)))
            except NotFound as error:
                raise _pull_failed(str(error.explanation), reference) from error

    def import_image(self, archive: IO[bytes], name: str, changes: tuple[str, ...]) -> None:
        """Makes an image of one layer from a file system in a tar."""
        with _asking(name):
            repository, _, tag = name.partition(":")
            # As an iterator: a file would be sent with a length, while the SDK announces chunks.
            chunks = iter(lambda: archive.read(_CHUNK), b"")
            self._api.import_image_from_stream(chunks, repository=repository, tag=tag or "latest", changes=list(changes))

    def tag(self, image: str, name: str) -> None:
        repository, _, tag = name.rpartition(":")
        with _asking(image):
            self._api.tag(image, repository, tag)

    # --- containers

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        from docker.errors import NotFound

        wanted = [f"{key}={value}" for key, value in labels.items()]
        found = []
        with _asking("containers"):
            for listed in self._api.containers(all=True, filters={"label": wanted}):
                try:
                    found.append(_container(self._api.inspect_container(listed["Id"])))
                except NotFound:
                    continue
        return sorted(found, key=lambda container: container.name)

    def create(self, spec: Spec) -> Container:
        with _asking(spec.name):
            made = self._api.create_container(**self._made_of(spec))
            return _container(self._api.inspect_container(made["Id"]))

    def _made_of(self, spec: Spec, *, auto_remove: bool = False) -> dict[str, Any]:
        api = self._api
        host = api.create_host_config(
            port_bindings=dict(spec.ports),
            binds={volume: {"bind": path, "mode": "ro" if read_only else "rw"} for volume, (path, read_only) in spec.volumes.items()},
            tmpfs=dict.fromkeys(spec.writable, "rw,noexec,nosuid,size=64m,mode=1777"),
            restart_policy={"Name": "unless-stopped"} if spec.restart else None,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode=spec.network or "none",
            log_config={"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
            auto_remove=auto_remove,
            init=False,
        )
        endpoint = api.create_endpoint_config(ipv4_address=spec.ip) if spec.ip else None
        return {
            "image": spec.image,
            "name": spec.name,
            "command": list(spec.command) or None,
            "environment": dict(spec.environment),
            "labels": dict(spec.labels),
            "ports": list(spec.ports),
            "user": spec.user or None,
            "stop_signal": None,
            "host_config": host,
            "networking_config": api.create_networking_config({spec.network: endpoint}) if endpoint else None,
        }

    def start(self, container: str) -> None:
        with _asking(container):
            self._api.start(container)

    def stop(self, container: str, grace: int) -> None:
        from docker.errors import NotFound

        with _asking(container):
            try:
                self._api.stop(container, timeout=grace)
            except NotFound:
                return

    def remove(self, container: str) -> None:
        from docker.errors import APIError, NotFound

        with _asking(container):
            try:
                self._api.remove_container(container, force=True, v=False)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != 409:
                    raise

    def keep_running(self, container: str) -> None:
        with _asking(container):
            self._api.update_container(container, restart_policy={"Name": "unless-stopped"})

    def logs(self, container: str, lines: int) -> str:
        from docker.errors import NotFound

        with _asking(container):
            try:
                return bytes(self._api.logs(container, tail=lines)).decode("utf-8", "replace")
            except NotFound:
                return ""

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        with _asking(container):
            made = self._api.exec_create(container, list(command))
            output = bytes(self._api.exec_start(made["Id"]))
            return int(self._api.exec_inspect(made["Id"])["ExitCode"] or 0), output.decode("utf-8", "replace")

    def signal(self, container: str, name: str) -> None:
        with _asking(container):
            self._api.kill(container, name)

    def put_file(self, container: str, path: str, data: bytes) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo(posixpath.basename(path))
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
        with _asking(f"{container}:{path}"):
            self._api.put_archive(container, posixpath.dirname(path), packed.getvalue())

    def files(self, container: str, folder: str) -> dict[str, bytes] | None:
        from docker.errors import NotFound

        with _asking(f"{container}:{folder}"):
            try:
                stream, _ = self._api.get_archive(container, folder)
            except NotFound:
                return None
            packed = io.BytesIO(b"".join(stream))
        with tarfile.open(fileobj=packed) as archive:
            return {
                posixpath.basename(member.name): opened.read()
                for member in archive
                if member.isreg() and (opened := archive.extractfile(member))
            }

    # --- networks and volumes

    def network(self, name: str, labels: Mapping[str, str]) -> str:
        from docker.types import IPAMConfig, IPAMPool

        with _asking(f"network {name}"):
            for found in self._api.networks(names=[name]):
                if found["Name"] == name:
                    return str(found["IPAM"]["Config"][0]["Subnet"])
            # Fixed addresses need a subnet that was asked for by name: the engine is first asked for a free one.
            free = self._api.create_network(f"{name}-probe", labels=dict(labels))["Id"]
            try:
                subnet = str(self._api.inspect_network(free)["IPAM"]["Config"][0]["Subnet"])
            finally:
                self._api.remove_network(free)
            pool = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
            self._api.create_network(name, ipam=pool, labels=dict(labels), check_duplicate=True)
            return subnet

    def volume(self, name: str, labels: Mapping[str, str]) -> None:
        with _asking(f"volume {name}"):
            self._api.create_volume(name, labels=dict(labels))

    def forget(self, labels: Mapping[str, str]) -> list[str]:
        """Removes containers, networks and volumes that carry all these labels; returns their names."""
        names = []
        wanted = {"label": [f"{key}={value}" for key, value in labels.items()]}
        for container in self.containers(labels):
            self.remove(container.id)
            names.append(container.name)
        with _asking("networks and volumes"):
            for network in self._api.networks(filters=wanted):
                self._api.remove_network(network["Id"])
                names.append(network["Name"])
            for volume in self._api.volumes(filters=wanted)["Volumes"] or ():
                self._api.remove_volume(volume["Name"])
                names.append(volume["Name"])
        return names

    # --- a lock that dies with its holder

    def hold(self, spec: Spec) -> Any:  # noqa: ANN401  the SDK's socket
        from docker.errors import APIError

        with _asking(spec.name):
            try:
                made = self._api.create_container(**self._made_of(spec, auto_remove=True), stdin_open=True)
            except APIError as error:
                if error.status_code == 409:
                    return None
                raise
            # The container reads its standard input; when this process ends, however it ends, the engine closes that.
            socket = self._api.attach_socket(made["Id"], params={"stdin": 1, "stream": 1})
            self._api.start(made["Id"])
            return made["Id"], socket

    def release(self, held: Any) -> None:  # noqa: ANN401  what `hold` gave
        container, socket = held
        socket.close()
        self.remove(container)


def _where() -> dict[str, Any]:
    """How to reach the engine: DOCKER_HOST and its companions, else the current Docker context, else the default socket."""
    import os

    from docker.context import ContextAPI
    from docker.utils import kwargs_from_env

    if os.environ.get("DOCKER_HOST"):
        return dict(kwargs_from_env())
    context = ContextAPI.get_current_context()
    return {"base_url": context.Host} if context and context.Host else {}


def _container(found: Mapping[str, Any]) -> Container:
    state = found["State"]
    return Container(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        image=found["Image"],
        labels=found["Config"]["Labels"] or {},
        status=state["Status"],
        exit_code=int(state["ExitCode"]),
        restarts=int(found.get("RestartCount") or 0),
    )


def build_failed(dockerfile: str, lines: Iterable[str]) -> BuildFailed:
    """The error of a build, with the end of what the builder said."""
    tail = "\n".join(f"  {line}" for line in list(lines)[-_TAIL:])
    return BuildFailed("the app image did not build", on=dockerfile, next="mend what the last lines show, then run again", detail=tail)


def _pull_failed(message: str, reference: str) -> Exception:
    # The engine passes the registry's refusal on as text only.
    if "unauthorized" in message or "denied" in message or "authentication" in message:
        return RegistryDenied("the engine may not pull the image", on=reference, next="log in with `docker login`", detail=f"  {message}")
    if "not found" in message or "unknown" in message:
        return RegistryNotFound("the registry has no such image", on=reference, next="push it first", detail=f"  {message}")
    return _failed(message, reference)


def _failed(message: str, on: str) -> Exception:
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
def _connecting() -> Iterator[None]:
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
            "no container engine answers", on=str(_where().get("base_url", "the default socket")), next="start Docker, or run `invoke up`"
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
def _asking(on: str) -> Iterator[None]:
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        raise _failed(str(error.explanation or error), on) from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise EngineUnavailable(
            "the container engine stopped answering", on=on, next="see that it runs (`invoke doctor`), then run the same command again"
        ) from error
