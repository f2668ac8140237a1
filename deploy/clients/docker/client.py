"""A Docker engine behind the docker SDK's low-level client.

Containers that are started here have a read-only root file system, no capabilities, and no way to gain privileges.
Source: Docker Engine API 1.41.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from deploy.archive import pack_files
from deploy.clients.docker.errors import (
    build_error,
    engine_error,
    pull_error,
    translate_connection_errors,
    translate_errors,
)
from deploy.clients.docker.protocol import Container, Spec

# "unless-stopped" would not do: an engine that has crashed stops what still runs when it is back, and takes that for its user's wish.
_ALWAYS = "always"
_NEVER = "no"
_TIMEOUT = 300
_CHUNK = 1 << 20


class DockerEngine:
    """The engine that DOCKER_HOST or the current Docker context names.

    Raises:
        EngineUnavailable: none answers.
        EngineDenied: this user may not use its socket.
    """

    def __init__(self) -> None:
        import docker

        with translate_connection_errors(str(_where().get("base_url", "the default socket"))):
            self._api: Any = docker.APIClient(**_where(), version="auto", timeout=_TIMEOUT)
            self._api.ping()

    @property
    def version(self) -> str:
        return str(self._api.version(api_version=False)["Version"])

    @property
    def local(self) -> bool:
        return str(self._api.base_url).startswith(
            ("http+docker://", "http://localhost", "http://127.")
        )

    @property
    def architecture(self) -> str:
        return str(self._api.version(api_version=False)["Arch"])

    # --- images

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        from docker.errors import ImageNotFound

        with translate_errors(image):
            try:
                return tuple(self._api.inspect_image(image)["RootFS"].get("Layers") or ())
            except ImageNotFound:
                return None

    def image_id(self, image: str) -> str | None:
        from docker.errors import ImageNotFound

        with translate_errors(image):
            try:
                return str(self._api.inspect_image(image)["Id"])
            except ImageNotFound:
                return None

    def chains(self) -> Iterable[tuple[str, ...]]:
        with translate_errors("images"):
            found = {image["Id"] for image in self._api.images(all=False)}
        return [layers for image in found if (layers := self.diff_ids(image))]

    def build(
        self,
        context: IO[bytes],
        *,
        dockerfile: str,
        args: Mapping[str, str],
        tag: str,
        said: Callable[[str], None],
    ) -> str:
        lines: list[str] = []
        with translate_errors(dockerfile):
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
                    raise build_error(dockerfile, [*lines, str(event["error"])])
        built = self.image_id(tag)
        if built is None:
            raise build_error(dockerfile, lines)
        return built

    def save(self, image: str) -> Iterator[bytes]:
        with translate_errors(image):
            yield from self._api.get_image(image, chunk_size=_CHUNK)

    def load(self, archive: Iterable[bytes]) -> None:
        with translate_errors("image"):
            for event in self._api.load_image(iter(archive)):
                said = str(event.get("error", event.get("stream", "")))
                # Docker 28 and later take an image that they cannot unpack, and only say so.
                if "error" in event or said.startswith("Error unpacking image"):
                    raise engine_error(said.strip(), "image")

    def pull(
        self, reference: str, login: tuple[str, str] | None, said: Callable[[str], None]
    ) -> None:
        from docker.errors import APIError

        repository, _, digest = reference.partition("@")
        auth = {"username": login[0], "password": login[1]} if login else None
        with translate_errors(reference):
            try:
                for event in self._api.pull(
                    repository, tag=digest or None, stream=True, decode=True, auth_config=auth
                ):
                    if "error" in event:
                        raise pull_error(str(event["error"]), reference, login)
                    said(
                        " ".join(
                            str(event[key])
                            for key in ("id", "status", "progress")
                            if event.get(key)
                        )
                    )
            except APIError as error:
                raise pull_error(str(error.explanation or error), reference, login) from error

    def import_image(self, archive: IO[bytes], name: str, changes: tuple[str, ...]) -> None:
        with translate_errors(name):
            repository, _, tag = name.partition(":")
            # As an iterator: a file would be sent with a length, while the SDK announces chunks.
            chunks = iter(lambda: archive.read(_CHUNK), b"")
            self._api.import_image_from_stream(
                chunks, repository=repository, tag=tag or "latest", changes=list(changes)
            )

    def tag(self, image: str, name: str) -> None:
        repository, _, tag = name.rpartition(":")
        with translate_errors(image):
            self._api.tag(image, repository, tag)

    # --- containers

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        from docker.errors import NotFound

        wanted = [f"{key}={value}" for key, value in labels.items()]
        found = []
        with translate_errors("containers"):
            for listed in self._api.containers(all=True, filters={"label": wanted}):
                try:
                    found.append(_container(self._api.inspect_container(listed["Id"])))
                except NotFound:
                    continue
        return sorted(found, key=lambda container: container.name)

    def create(self, spec: Spec) -> Container:
        with translate_errors(spec.name):
            made = self._api.create_container(**self._made_of(spec))
            return _container(self._api.inspect_container(made["Id"]))

    def _made_of(self, spec: Spec, *, auto_remove: bool = False) -> dict[str, Any]:
        api = self._api
        host = api.create_host_config(
            port_bindings=dict(spec.ports),
            binds={
                volume: {"bind": path, "mode": "ro" if read_only else "rw"}
                for volume, (path, read_only) in spec.volumes.items()
            },
            tmpfs=dict.fromkeys(spec.writable, "rw,noexec,nosuid,size=64m,mode=1777"),
            restart_policy={"Name": _ALWAYS} if spec.restart else None,
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
            "networking_config": api.create_networking_config({spec.network: endpoint})
            if endpoint
            else None,
        }

    def start(self, container: str) -> None:
        with translate_errors(container):
            self._api.start(container)

    def stop(self, container: str, grace: int) -> None:
        from docker.errors import NotFound

        with translate_errors(container):
            try:
                self._api.stop(container, timeout=grace)
            except NotFound:
                return

    def remove(self, container: str) -> None:
        from docker.errors import APIError, NotFound

        with translate_errors(container):
            try:
                self._api.remove_container(container, force=True, v=False)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != 409:
                    raise

    def keep_running(self, container: str) -> None:
        self._restart(container, _ALWAYS)

    def keep_stopped(self, container: str) -> None:
        self._restart(container, _NEVER)

    def _restart(self, container: str, policy: str) -> None:
        with translate_errors(container):
            # The engine writes every update to its disk, which may be full just when an old replica is to serve again.
            if (
                self._api.inspect_container(container)["HostConfig"]["RestartPolicy"]["Name"]
                or _NEVER
            ) != policy:
                self._api.update_container(container, restart_policy={"Name": policy})

    def logs(self, container: str, lines: int) -> str:
        from docker.errors import NotFound

        with translate_errors(container):
            try:
                return bytes(self._api.logs(container, tail=lines)).decode("utf-8", "replace")
            except NotFound:
                return ""

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        with translate_errors(container):
            made = self._api.exec_create(container, list(command))
            output = bytes(self._api.exec_start(made["Id"]))
            return int(self._api.exec_inspect(made["Id"])["ExitCode"] or 0), output.decode(
                "utf-8", "replace"
            )

    def signal(self, container: str, name: str) -> None:
        # From inside: a container that gets a signal of any kind from the engine is not started again when it ends.
        code, said = self.execute(container, ("sh", "-c", f"kill -{name.removeprefix('SIG')} 1"))
        if code != 0:
            raise engine_error(said.strip(), container, f"{name} could not be sent")

    def put_file(self, container: str, path: str, data: bytes) -> None:
        packed = pack_files({posixpath.basename(path): data})
        with translate_errors(f"{container}:{path}"):
            self._api.put_archive(container, posixpath.dirname(path), packed.read())

    def files(self, container: str, folder: str) -> dict[str, bytes] | None:
        from docker.errors import NotFound

        with translate_errors(f"{container}:{folder}"):
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

        with translate_errors(f"network {name}"):
            probe = f"{name}-probe"
            for found in self._api.networks(names=[name]):
                if found["Name"] == name:
                    return str(found["IPAM"]["Config"][0]["Subnet"])
                if found["Name"] == probe:
                    # Whoever asked before was killed, or the engine was.
                    self._api.remove_network(found["Id"])
            # Fixed addresses need a subnet that was asked for by name: the engine is first asked for a free one.
            free = self._api.create_network(probe, labels=dict(labels))["Id"]
            try:
                subnet = str(self._api.inspect_network(free)["IPAM"]["Config"][0]["Subnet"])
            finally:
                self._api.remove_network(free)
            pool = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
            self._api.create_network(name, ipam=pool, labels=dict(labels), check_duplicate=True)
            return subnet

    def volume(self, name: str, labels: Mapping[str, str]) -> None:
        with translate_errors(f"volume {name}"):
            self._api.create_volume(name, labels=dict(labels))

    def remove_labelled(self, labels: Mapping[str, str]) -> list[str]:
        names = []
        wanted = {"label": [f"{key}={value}" for key, value in labels.items()]}
        for container in self.containers(labels):
            self.remove(container.id)
            names.append(container.name)
        with translate_errors("networks and volumes"):
            for network in self._api.networks(filters=wanted):
                self._api.remove_network(network["Id"])
                names.append(network["Name"])
            for volume in self._api.volumes(filters=wanted)["Volumes"] or ():
                self._api.remove_volume(volume["Name"])
                names.append(volume["Name"])
        return names

    # --- a lock that dies with its holder

    def start_tied(self, spec: Spec) -> Any:  # noqa: ANN401 - the SDK's socket
        from docker.errors import APIError

        with translate_errors(spec.name):
            try:
                # Nobody has to wait for it, least of all an engine that was killed and ends what is left before it begins.
                made_of = self._made_of(spec, auto_remove=True) | {"stop_signal": "SIGKILL"}
                made = self._api.create_container(**made_of, stdin_open=True)
            except APIError as error:
                if error.status_code == 409:
                    return None
                raise
            # The container reads its standard input; when this process ends, however it ends, the engine closes that.
            socket = self._api.attach_socket(made["Id"], params={"stdin": 1, "stream": 1})
            self._api.start(made["Id"])
            return made["Id"], socket

    def end_tied(self, held: Any) -> None:  # noqa: ANN401 - what `hold` gave
        from docker.errors import NotFound

        container, socket = held
        # The SDK hangs the response on its socket; closing that first leaves nothing for Python 3.13 to complain of later.
        getattr(socket, "_response", socket).close()
        socket.close()
        self.remove(container)
        with translate_errors(container):
            try:
                # The engine removes it by itself as well: whichever does, its name is free when this returns.
                self._api.wait(container, timeout=_TIMEOUT, condition="removed")
            except NotFound:
                return


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
