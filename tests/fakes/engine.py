"""A container engine in memory, whose containers follow the scripts of their images."""

from __future__ import annotations

import copy
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from deploy.clients.docker.protocol import OOM_KILLED, Container, Spec
from deploy.clients.http import Endpoint, NoResponse, Request, Response
from deploy.clients.log_lines import TimedLine
from deploy.clock import REAL
from deploy.errors import EngineFailed, PortTaken
from deploy.records import Exit
from tests.fakes.haproxy import Proxy, usable
from tests.fakes.images import FakeImages


@dataclass(frozen=True)
class Script:
    """How the containers of an image behave.

    Attributes:
        ready_after: The number of health checks that fail before one passes; None for all of them.
        exits: The exit code of a process that ends at its start; None if it runs.
        dies_after: The number of passed health checks after which it ends.
        needs: The bytes of memory with which it starts; above its limit it ends.
        says: Its output at the start.
        on_signal: Exit codes by the names of signals that end it; others are ignored.
    """

    ready_after: int | None = 0
    exits: int | None = None
    dies_after: int | None = None
    needs: int = 0
    says: str = ""
    on_signal: Mapping[str, int] = field(default_factory=dict)


@dataclass
class FakeContainer:
    """The changing state of a container."""

    id: str
    spec: Spec
    script: Script
    status: str = "created"
    exit_code: int = 0
    restarts: int = 0
    restart: bool = False
    checks: int = 0
    log: list[TimedLine] = field(default_factory=list)
    proxy: Proxy | None = None
    forwards: bool = False
    started: datetime | None = None
    out_of_memory: bool = False
    ended: datetime | None = None
    last_exit: Exit | None = None

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self.status == "running"

    @property
    def exceeds_memory(self) -> bool:
        """Whether its process needs more memory than its limit."""
        return self.script.needs > self.spec.limits.memory > 0

    def as_container(self) -> Container:
        """Return its present state in the protocol's form."""
        return Container(
            self.id,
            self.spec.name,
            self.spec.image,
            dict(self.spec.labels),
            self.status,
            self.exit_code,
            self.restarts,
            self.started,
            self.out_of_memory,
            self.ended,
            {"PATH": "/bin", **self.spec.environment},
        )


class FakeEngine(FakeImages):
    """An engine in memory.

    Attributes:
        scripts: The scripts of containers, by the name or id of their image.
        listening: The ports of the machine on which other programs listen.
        all_containers: The containers, by name.
        volumes: The files of each volume, by path.
        network_size: The length of the prefix of every network.
        events: The creations, starts, stops and removals of containers, in order.
        utc: Returns the date and time.
    """

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        super().__init__()
        self.scripts: dict[str, Script] = {}
        self.listening: set[int] = set()
        self.all_containers: dict[str, FakeContainer] = {}
        self.volumes: dict[str, dict[str, bytes]] = {}
        self.networks: dict[str, Mapping[str, str]] = {}
        self.volume_labels: dict[str, Mapping[str, str]] = {}
        self.network_size = 24
        self.events: list[str] = []
        self.utc: Callable[[], datetime] = REAL.utc
        self._count = 0
        for name, script in (scripts or {}).items():
            self.script(name, script)

    def script(self, name: str, script: Script) -> str:
        """Add an image whose containers follow a script; return its id."""
        image = self.add_image(name)
        self.scripts[name] = script
        self.scripts[image] = script
        return image

    def state(self) -> object:
        """Return everything that the engine has, for a comparison."""
        containers = {
            name: (made.as_container(), made.restart) for name, made in self.all_containers.items()
        }
        return copy.deepcopy(
            (containers, self.volumes, self.networks, self.names, sorted(self.images))
        )

    # --- what happens to containers

    def _find(self, container: str) -> FakeContainer | None:
        return next(
            (
                made
                for made in self.all_containers.values()
                if container in (made.id, made.spec.name)
            ),
            None,
        )

    def _container(self, name: str) -> FakeContainer:
        self._check_running()
        found = self._find(name)
        if found is None:
            raise EngineFailed("no such container", on=name, next="list the containers")
        return found

    def _begin(self, made: FakeContainer) -> None:
        """Start its process."""
        made.status = "running"
        made.forwards = True
        made.started = self.utc()
        made.out_of_memory = False
        made.checks = 0
        if made.script.says:
            self.write(made.spec.name, *made.script.says.splitlines())
        if made.spec.command[:1] == ("haproxy",):
            text = self.volumes[next(iter(made.spec.volumes))].get("haproxy.cfg", b"").decode()
            made.proxy = Proxy(text, self._probe) if usable(text) else None
            if made.proxy is None:
                self.write(made.spec.name, "[ALERT] config: cannot be used")
                self._end(made, 1, again=False)
                return
            self.events.append(f"{made.spec.name} opened")
        if made.exceeds_memory:
            self._end(made, 137, again=False)
        if made.script.exits is not None:
            self._end(made, made.script.exits, again=False)

    def _end(self, made: FakeContainer, code: int, *, again: bool = True) -> None:
        """End its process; the engine restarts it if its policy says so."""
        made.status = "exited"
        made.exit_code = code
        made.out_of_memory = made.exceeds_memory
        made.ended = self.utc()
        reason = OOM_KILLED if made.exceeds_memory else ""
        made.last_exit = Exit(code=code, at=made.ended, reason=reason)
        made.proxy = None
        if again and made.restart:
            made.restarts += 1
            self._begin(made)

    def write(self, name: str, *lines: str) -> None:
        """Write lines to the log of a container."""
        self._container(name).log += [(self.utc(), line) for line in lines]

    def end_forwarder(self, name: str) -> None:
        """End the process by which the engine forwards a container's published ports."""
        self._container(name).forwards = False

    def send(self, endpoint: Endpoint, request: Request) -> Response:
        """Respond to a request to a published port, as the proxy behind it does."""
        port = urlsplit(endpoint.url).port
        for made in self.all_containers.values():
            published = {number for _, number in made.spec.ports.values()}
            if made.running and made.forwards and port in published:
                return Response(200 if made.proxy and made.proxy.open_to() else 503)
        raise NoResponse("ConnectionError", 0.0, refused=True)

    def end_process(self, name: str, code: int = 137) -> None:
        """End the process of a container."""
        self._end(self._container(name), code)

    def _probe(self, address: str) -> bool | None:
        """Return the result of a health check of an address; None if no container has it."""
        made = next(
            (
                made
                for made in self.all_containers.values()
                if made.running and made.spec.ip == address
            ),
            None,
        )
        if made is None:
            return None
        made.checks += 1
        after = made.script.ready_after
        passed = after is not None and made.checks > after
        if (
            passed
            and made.script.dies_after is not None
            and made.checks > (after or 0) + made.script.dies_after
        ):
            self._end(made, 1)
            return None
        return passed

    def proxy(self, name: str) -> Proxy:
        """Return the running proxy in a container."""
        found = self._container(name).proxy
        assert found is not None, f"{name} is not a running proxy"
        return found

    # --- the protocol

    def containers(self, labels: Mapping[str, str]) -> list[Container]:
        self._check_running()
        found = (
            made.as_container()
            for made in self.all_containers.values()
            if labels.items() <= made.spec.labels.items()
        )
        return sorted(found, key=lambda container: container.name)

    def create(self, spec: Spec) -> Container:
        self._check_running()
        if spec.name in self.all_containers:
            raise EngineFailed("the name is in use", on=spec.name, next="choose another")
        self._image(spec.image)
        self._count += 1
        script = self.scripts.get(spec.image, Script())
        made = self.all_containers[spec.name] = FakeContainer(
            f"{self._count:064x}", spec, script, restart=spec.restart
        )
        for volume in spec.volumes:
            self.volumes.setdefault(volume, {})
        self.events.append(f"{spec.name} created")
        return made.as_container()

    def start(self, container: str) -> None:
        made = self._container(container)
        if made.running:
            return
        for other in (other for other in self.all_containers.values() if other.running):
            if made.spec.ip and other.spec.ip == made.spec.ip:
                raise EngineFailed(
                    "the address is in use", on=made.spec.name, next="choose another"
                )
            self._refuse_taken(made, {port for _, port in other.spec.ports.values()})
        self._refuse_taken(made, self.listening)
        self.events.append(f"{made.spec.name} started")
        self._begin(made)

    def _refuse_taken(self, made: FakeContainer, taken: set[int]) -> None:
        if taken & {port for _, port in made.spec.ports.values()}:
            raise PortTaken(
                "another program listens on the port", on=made.spec.name, next="stop it"
            )

    def stop(self, container: str, grace: int) -> None:
        self._check_running()
        made = self._find(container)
        if made and made.running:
            self.events.append(f"{made.spec.name} stopped")
            self._end(made, made.script.on_signal.get("SIGTERM", 137), again=False)

    def remove(self, container: str) -> None:
        self._check_running()
        made = self._find(container)
        if made:
            self.events.append(f"{made.spec.name} removed")
            del self.all_containers[made.spec.name]

    def enable_restart(self, container: str) -> None:
        self._container(container).restart = True

    def disable_restart(self, container: str) -> None:
        self._container(container).restart = False

    def logs(self, container: str, lines: int) -> str:
        self._check_running()
        made = self._find(container)
        return "".join(f"{line}\n" for _, line in made.log[-lines:]) if made else ""

    def read_log(
        self, container: str, since: datetime | None = None, lines: int | None = None
    ) -> Iterator[TimedLine]:
        self._check_running()
        made = self._find(container)
        found = made.log[-lines:] if made and lines else made.log if made else []
        # As some engines do, it takes whole seconds.
        first = since.replace(microsecond=0) if since else None
        yield from [line for line in found if first is None or line[0] >= first]

    def find_last_exit(self, container: Container) -> Exit | None:
        self._check_running()
        made = self._find(container.id)
        return made.last_exit if made else None

    def execute(self, container: str, command: tuple[str, ...]) -> tuple[int, str]:
        made = self._container(container)
        if not made.running:
            raise EngineFailed("the container is not running", on=made.spec.name, next="start it")
        sent = re.fullmatch(r"echo '([^']*)' \| socat .*", command[-1])
        if sent:
            return (0, made.proxy.said(sent[1])) if made.proxy else (1, "socat: no such file\n")
        if command[:2] == ("sh", "-c") and command[2] == "kill -TERM 1":
            self._send_signal(made, "SIGTERM")
            return 0, ""
        programs = {"echo": (0, " ".join(command[1:]) + "\n"), "false": (1, ""), "true": (0, "")}
        return programs.get(command[0], (127, f"{command[0]}: not found\n"))

    def signal(self, container: str, name: str) -> None:
        made = self._container(container)
        if not made.running:
            raise EngineFailed("the container is not running", on=made.spec.name, next="start it")
        if made.proxy and name == "SIGUSR2":
            made.proxy.reload(
                self.volumes[next(iter(made.spec.volumes))].get("haproxy.cfg", b"").decode()
            )
            return
        self._send_signal(made, name)

    def _send_signal(self, made: FakeContainer, name: str) -> None:
        if name in made.script.on_signal:
            self._end(made, made.script.on_signal[name])

    def put_file(self, container: str, path: str, data: bytes) -> None:
        files = self._volume_at(self._container(container), posixpath.dirname(path))
        if files is None:
            raise EngineFailed(
                "the root file system is read-only", on=path, next="write into a volume"
            )
        files[posixpath.basename(path)] = data

    def files(self, container: str, folder: str) -> dict[str, bytes] | None:
        self._check_running()
        made = self._find(container)
        found = self._volume_at(made, folder) if made else None
        return None if found is None else dict(found)

    def _volume_at(self, made: FakeContainer, folder: str) -> dict[str, bytes] | None:
        return next(
            (
                self.volumes[volume]
                for volume, (path, _) in made.spec.volumes.items()
                if path == folder
            ),
            None,
        )

    def ensure_network(self, name: str, labels: Mapping[str, str]) -> str:
        self._check_running()
        self.networks.setdefault(name, dict(labels))
        return f"172.30.{list(self.networks).index(name)}.0/{self.network_size}"

    def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self._check_running()
        self.volumes.setdefault(name, {})
        self.volume_labels.setdefault(name, dict(labels))

    def remove_labelled(self, labels: Mapping[str, str]) -> list[str]:
        names = [container.name for container in self.containers(labels)]
        for name in names:
            del self.all_containers[name]
        for table in (self.networks, self.volume_labels):
            for name in [name for name, found in table.items() if labels.items() <= found.items()]:
                del table[name]
                self.volumes.pop(name, None)
                names.append(name)
        return names

    def start_tied(self, spec: Spec) -> Any:
        self._check_running()
        if spec.name in self.all_containers:
            return None
        made = self.create(spec)
        self.start(made.id)
        return made.id

    def end_tied(self, handle: Any) -> None:
        self.remove(handle)

    def kill_tied_process(self, name: str) -> None:
        """Kill the process that a container is tied to."""
        self.remove(name)
