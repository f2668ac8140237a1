"""A Docker engine, through the low-level client of the docker SDK.

Containers have a read-only root file system, no capabilities, and cannot gain privileges.
Source: Docker Engine API 1.41.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import IO, Any, cast

from deploy.archive import pack_files
from deploy.clients.docker.address import (
    EngineAddress,
    find_engine_address,
    library_variables,
)
from deploy.clients.docker.errors import (
    build_error,
    engine_error,
    is_changing,
    pull_error,
    translate_connection_errors,
    translate_errors,
)
from deploy.clients.docker.protocol import OOM_KILLED, Container, Limits, Spec
from deploy.clients.log_lines import TimedLine, parse_timed_lines
from deploy.clients.oci.credentials import TOKEN_USER
from deploy.errors import RegistryNotFound, ReleaseError
from deploy.platforms import format_platform
from deploy.records import Exit

# Not "unless-stopped": after a crash the engine stops the containers that still run, and would not
# restart them, because they count as stopped by the user.
_ALWAYS = "always"
_NEVER = "no"
_TIMEOUT = 300
_CHUNK = 1 << 20
_INSPECTIONS = 20
_UNTIL_CHANGED = 0.1


class DockerEngine:
    """The engine that DOCKER_HOST or the current Docker context names, or that of this machine.

    Raises:
        SettingsInvalid: What names the engine names none that can be used.
        EngineUnavailable: No engine answers.
        EngineDenied: This user may not use its socket.
    """

    def __init__(self) -> None:
        address = find_engine_address()
        with translate_connection_errors(address):
            self._api = _connect(address)
            self._api.ping()

    @cached_property
    def _description(self) -> Mapping[str, Any]:
        """What the engine says of itself; asked once, as it collects that for milliseconds."""
        return cast("Mapping[str, Any]", self._api.version(api_version=False))

    @property
    def product(self) -> str:
        components = self._description.get("Components") or ()
        names = [str(component.get("Name", "")) for component in components]
        return "Podman" if any(name.startswith("Podman") for name in names) else "Docker"

    @property
    def version(self) -> str:
        return str(self._description["Version"])

    @property
    def is_local(self) -> bool:
        return str(self._api.base_url).startswith(
            ("http+docker://", "http://localhost", "http://127.")
        )

    @property
    def architecture(self) -> str:
        return str(self._description["Arch"])

    # --- images

    def diff_ids(self, image: str) -> tuple[str, ...] | None:
        found = self._inspect_image(image)
        return tuple(found["RootFS"].get("Layers") or ()) if found else None

    def image_id(self, image: str) -> str | None:
        found = self._inspect_image(image)
        return str(found["Id"]) if found else None

    def _inspect_image(self, image: str) -> Mapping[str, Any] | None:
        from docker.errors import APIError, ImageNotFound

        with translate_errors(image):
            left = _INSPECTIONS
            while True:
                left -= 1
                try:
                    return cast("Mapping[str, Any]", self._api.inspect_image(image))
                except ImageNotFound:
                    return None
                except APIError as error:
                    # An engine that stores OCI content, while another process changes the image.
                    if not left or not is_changing(error):
                        raise
                time.sleep(_UNTIL_CHANGED)

    def platform(self, image: str) -> str | None:
        found = self._inspect_image(image)
        if found is None:
            return None
        return format_platform(found["Os"], found["Architecture"], found.get("Variant", ""))

    def layer_chains(self) -> Iterable[tuple[str, ...]]:
        with translate_errors("images"):
            ids = {image["Id"] for image in self._api.images(all=False)}
        return [layers for image in ids if (layers := self.diff_ids(image))]

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
        lines: list[str] = []
        with translate_errors(dockerfile):
            for event in self._api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                buildargs=dict(args),
                tag=tag,
                platform=platform or None,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                for line in str(event.get("stream", "")).splitlines():
                    if line.strip():
                        lines.append(line)
                        on_line(line)
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
                message = str(event.get("error", event.get("stream", "")))
                # Docker 28 and later report an image that they cannot unpack without an error.
                if "error" in event or message.startswith("Error unpacking image"):
                    raise engine_error(message.strip(), "image")

    def pull(
        self,
        reference: str,
        login: tuple[str, str] | None,
        on_line: Callable[[str], None],
        platform: str = "",
    ) -> None:
        from docker.errors import APIError

        repository, _, digest = reference.partition("@")
        with translate_errors(reference):
            try:
                for event in self._api.pull(
                    repository,
                    tag=digest or None,
                    stream=True,
                    decode=True,
                    auth_config=_auth(login),
                    platform=platform or None,
                ):
                    if "error" in event:
                        raise pull_error(str(event["error"]), reference, login)
                    keys = [key for key in ("id", "status", "progress") if event.get(key)]
                    on_line(" ".join(str(event[key]) for key in keys))
            except APIError as error:
                raise self._explain_pull(error, reference, login) from error

    def _explain_pull(
        self,
        error: Any,  # noqa: ANN401 - the SDK's error
        reference: str,
        login: tuple[str, str] | None,
    ) -> ReleaseError:
        """Return the error of a pull that the engine refused."""
        from docker.errors import APIError

        found = pull_error(str(error.explanation or error), reference, login, error.status_code)
        if type(found) is not RegistryNotFound:
            return found
        # The containerd store says "not found" also where the registry gave no response.
        try:
            self._api.inspect_distribution(reference, auth_config=_auth(login))
        except APIError as asked:
            if asked.status_code != 404:
                text = str(asked.explanation or asked)
                return pull_error(text, reference, login, asked.status_code)
        return found

    def import_image(self, archive: IO[bytes], name: str, changes: tuple[str, ...]) -> None:
        with translate_errors(name):
            # An iterator: the SDK announces chunks, but would send a file with a length.
            chunks = iter(lambda: archive.read(_CHUNK), b"")
            # The name has its tag in it: Podman ignores one beside it.
            self._api.import_image_from_stream(chunks, repository=name, changes=list(changes))

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
            created = self._api.create_container(**self._create_options(spec))
            return _container(self._api.inspect_container(created["Id"]))

    def _create_options(self, spec: Spec, *, auto_remove: bool = False) -> dict[str, Any]:
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
            **limit_options(spec.limits),
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
                # With its anonymous volumes: each `VOLUME` of a Dockerfile makes one.
                self._api.remove_container(container, force=True, v=True)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != 409:
                    raise

    def enable_restart(self, container: str) -> None:
        self._set_restart_policy(container, _ALWAYS)

    def disable_restart(self, container: str) -> None:
        self._set_restart_policy(container, _NEVER)

    def _set_restart_policy(self, container: str, policy: str) -> None:
        with translate_errors(container):
            # The engine writes every update to its disk. The disk can be full when an undo has to
            # start an old replica, so unchanged policies are not written.
            present = self._api.inspect_container(container)["HostConfig"]["RestartPolicy"]["Name"]
            if (present or _NEVER) != policy:
                self._api.update_container(container, restart_policy={"Name": policy})

    def logs(self, container: str, lines: int) -> str:
        from docker.errors import NotFound

        with translate_errors(container):
            try:
                return bytes(self._api.logs(container, tail=lines)).decode("utf-8", "replace")
            except NotFound:
                return ""

    def read_log(
        self, container: str, since: datetime | None = None, lines: int | None = None
    ) -> Iterator[TimedLine]:
        from docker.errors import NotFound

        # A stream can be long, and has no limit of time; a few lines come as one response.
        is_stream = lines is None
        with translate_errors(container):
            try:
                found = self._api.logs(
                    container,
                    stream=is_stream,
                    follow=False,
                    timestamps=True,
                    tail="all" if lines is None else lines,
                    since=None if since is None else since.timestamp(),
                )
            except NotFound:
                return
            # A stream has a line, or a part of a very long one, at a time.
            parts = found if is_stream else found.split(b"\n")
            yield from parse_timed_lines(map(_decode_line, parts))

    def find_last_exit(self, container: Container) -> Exit | None:
        if not (container.running and container.restarts):
            return container.last_exit
        wanted = {"type": "container", "container": container.id, "event": ["die", "oom"]}
        with translate_errors(container.name):
            now = f"{time.time():.6f}"
            events = list(self._api.events(since="1", until=now, filters=wanted, decode=True))
        return find_exit(events) or container.last_exit

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        with translate_errors(container):
            started = self._api.exec_create(container, list(command))
            output = bytes(self._api.exec_start(started["Id"])).decode("utf-8", "replace")
            return int(self._api.exec_inspect(started["Id"])["ExitCode"] or 0), output

    def signal(self, container: str, name: str) -> None:
        # From inside: the engine does not restart a container after it has sent it any signal.
        code, output = self.execute(container, ("sh", "-c", f"kill -{name.removeprefix('SIG')} 1"))
        if code != 0:
            raise engine_error(output.strip(), container, f"{name} could not be sent")

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

    def ensure_network(self, name: str, labels: Mapping[str, str]) -> str:
        from docker.types import IPAMConfig, IPAMPool

        with translate_errors(f"network {name}"):
            probe = f"{name}-probe"
            for found in self._api.networks(names=[name]):
                if found["Name"] == name:
                    return str(found["IPAM"]["Config"][0]["Subnet"])
                if found["Name"] == probe:
                    # An earlier process, or the engine, was killed before it removed the probe.
                    self._api.remove_network(found["Id"])
            # Fixed addresses need an explicit subnet: a probe network shows a free one.
            probe_id = self._api.create_network(probe, labels=dict(labels))["Id"]
            try:
                subnet = str(self._api.inspect_network(probe_id)["IPAM"]["Config"][0]["Subnet"])
            finally:
                self._api.remove_network(probe_id)
            pool = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
            self._api.create_network(name, ipam=pool, labels=dict(labels), check_duplicate=True)
            return subnet

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
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

    # --- containers that end with this process

    def start_tied(self, spec: Spec) -> Any:  # noqa: ANN401 - the SDK's socket
        from docker.errors import APIError

        with translate_errors(spec.name):
            try:
                # SIGKILL: an engine that restarts after a crash does not wait for this container.
                options = self._create_options(spec, auto_remove=True)
                options["stop_signal"] = "SIGKILL"
                created = self._api.create_container(**options, stdin_open=True)
            except APIError as error:
                if error.status_code == 409:
                    return None
                raise
            # The container reads its standard input; the engine closes that with this process.
            socket = self._api.attach_socket(created["Id"], params={"stdin": 1, "stream": 1})
            self._api.start(created["Id"])
            return created["Id"], socket

    def end_tied(self, handle: Any) -> None:  # noqa: ANN401 - what `start_tied` returned
        from docker.errors import NotFound

        container, socket = handle
        # The SDK keeps the response in its socket; Python 3.13 warns if the socket is closed first.
        getattr(socket, "_response", socket).close()
        socket.close()
        self.remove(container)
        with translate_errors(container):
            try:
                # The engine removes it as well: its name is free after either removal.
                self._api.wait(container, timeout=_TIMEOUT, condition="removed")
            except NotFound:
                return


def _connect(address: EngineAddress) -> Any:  # noqa: ANN401 - the SDK is imported lazily
    """Return the SDK's client of an engine; it takes nothing else from this process's variables."""
    import docker
    from docker.utils import kwargs_from_env

    with library_variables(address):
        client = docker.APIClient(**kwargs_from_env(), version="auto", timeout=_TIMEOUT)
    # The library below the SDK would replace the engine's CA by that of other servers.
    client.trust_env = False
    return client


def limit_options(limits: Limits) -> dict[str, int | None]:
    """Return limits as the SDK has them."""
    return {
        "mem_limit": limits.memory or None,
        # As much as without swap: what swaps is slow for every client, and for the host.
        "memswap_limit": limits.memory or None,
        "pids_limit": limits.pids,
    }


def _auth(login: tuple[str, str] | None) -> dict[str, str] | None:
    """Return a login as the engine's API has it; an identity token has a user of its own."""
    if login is None:
        return None
    user, password = login
    if user == TOKEN_USER:
        return {"identitytoken": password}
    return {"username": user, "password": password}


def _container(found: Mapping[str, Any]) -> Container:
    """Return a container from the engine's description of it."""
    state = found["State"]
    return Container(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        image=found["Image"],
        labels=found["Config"]["Labels"] or {},
        status=state["Status"],
        exit_code=int(state["ExitCode"]),
        restarts=int(found.get("RestartCount") or 0),
        started=_parse_time(state["StartedAt"]),
        out_of_memory=bool(state.get("OOMKilled")),
        ended=_parse_time(state["FinishedAt"]),
        environment=_parse_environment(found["Config"].get("Env") or ()),
    )


def _parse_environment(items: Iterable[str]) -> dict[str, str]:
    """Return variables by name from items such as NAME=VALUE."""
    pairs = (item.partition("=") for item in items)
    return {name: value for name, _, value in pairs}


def find_exit(events: list[Mapping[str, Any]]) -> Exit | None:
    """Return the last exit among the events of a container, oldest first."""
    found = None
    reason = ""
    for event in events:
        if event["Action"] == "oom":
            reason = OOM_KILLED
            continue
        at = datetime.fromtimestamp(event["timeNano"] / 1e9, UTC)
        code = int(event["Actor"]["Attributes"]["exitCode"])
        found = Exit(code=code, at=at, reason=reason)
        reason = ""
    return found


def _decode_line(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


def _parse_time(text: str) -> datetime | None:
    """Return a time of the engine; None for its zero, the year 1."""
    found = datetime.fromisoformat(text)
    return found if found.year > 1 else None
