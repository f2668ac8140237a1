"""A machine in memory: its operating system, engine, network and clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy.clients.azure.identity import Identity
from deploy.clients.docker.protocol import Engine
from deploy.clients.kubernetes.protocol import Cluster
from deploy.errors import (
    ClusterUnknown,
    EngineDenied,
    EngineUnavailable,
    PartMissing,
    PortTaken,
    RegistryError,
    RegistryUnreachable,
)
from deploy.machine.host import Host
from deploy.machine.services import SERVICE_LABEL
from deploy.settings.image import DEBIAN
from tests.fakes.engine import FakeEngine


class MemoryMachine:
    """A machine in memory; unless changed, it is a new Debian.

    Attributes:
        engine: the engine that answers once it is started.
        running: whether the engine is started.
        member: whether this user may use the engine.
        debian: whether Debian packages can be installed.
        root: whether commands can run as root.
        programs: the installed programs.
        clusters: the clusters by context; the empty context is the current one.
        connections: the kubeconfig, context and namespace of each connection to a cluster.
        identities: the identity of each connection to a cluster.
        registries: addresses at which an OCI registry answers.
        listening: ports on which other programs listen.
        publishes_here: whether ports that the engine publishes are ports of this machine.
        actions: what was done to the machine, in order.
    """

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine()
        self.running = engine is not None
        self.member = True
        self.debian = True
        self.root = True
        self.programs: set[str] = {"dockerd"} if engine else set()
        self.clusters: dict[str, Cluster] = {}
        self.identities: list[Identity | None] = []
        self.connections: list[tuple[str, str, str]] = []
        self.registries: set[str] = set()
        self.listening: set[int] = set()
        self.publishes_here = True
        self.actions: list[str] = []

    @property
    def host(self) -> Host:
        """The machine as the code under test sees it."""
        return Host(
            self.connect_engine,
            self,
            self.find_registry_problem,
            self.require_free_port,
            self.connect_cluster,
            send=self.engine.send,
        )

    def connect_engine(self) -> Engine:
        if not self.running:
            raise EngineUnavailable(
                "no container engine answers", on="memory", next="start Docker, or run `invoke up`"
            )
        if not self.member:
            raise EngineDenied(
                "this user may not use it", on="the engine's socket", next="join its group"
            )
        return self.engine

    def find_registry_problem(self, address: str) -> RegistryError | None:
        if self.registry_answers(address):
            return None
        return RegistryUnreachable("the registry cannot be reached", on=address, next="start it")

    def registry_answers(self, address: str) -> bool:
        ports = self._published({SERVICE_LABEL: "registry"})
        return address in self.registries | {f"127.0.0.1:{port}" for port in ports}

    def _published(self, labels: dict[str, str]) -> set[int]:
        """Return the ports of this machine that lead to running containers with these labels."""
        started = self.engine.containers(labels) if self.running and self.publishes_here else []
        return {
            port
            for found in started
            if found.running
            for _, port in self.engine.all_containers[found.name].spec.ports.values()
        }

    def require_free_port(self, address: str, port: int) -> None:
        if port in self.listening | self._published({}):
            raise PortTaken(
                "another program listens on the port", on=f"{address}:{port}", next="stop it"
            )

    def connect_cluster(
        self, kubeconfig: str, context: str, namespace: str, identity: Identity | None = None
    ) -> Cluster:
        self.identities.append(identity)
        self.connections.append((kubeconfig, context, namespace))
        if context not in self.clusters:
            raise ClusterUnknown(
                f"there is no context {context!r}", on="memory", next="name one that there is"
            )
        return self.clusters[context]

    # --- the operating system

    def is_debian(self) -> bool:
        return self.debian

    def root_prefix(self) -> list[str] | None:
        return [] if self.root else None

    def find_program(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.programs else None

    def install(self, package: str, program: str) -> None:
        if program in self.programs:
            return
        if not (self.debian and self.root):
            raise PartMissing(
                f"{program} is not installed",
                on="this machine",
                next=f"sudo apt-get install {package}",
            )
        self.actions.append(f"install {package}")
        self.programs.add(program)

    def start_engine(
        self, log: Path, pid: Path, is_ready: Callable[[], bool], timeout: float
    ) -> None:
        self.actions.append("start the engine")
        pid.write_text("1", encoding="utf-8")
        self.running = True
        assert is_ready()

    def stop_engine(self, pid: Path) -> bool:
        if not pid.exists():
            return False
        pid.unlink()
        self.actions.append("stop the engine")
        self.running = False
        return True

    def join_engine_group(self) -> bool:
        if self.root:
            self.actions.append("join the group")
        return self.root

    def restart_as_member(self) -> None:
        self.actions.append("restart as a member")

    def platform(self) -> str:
        return "linux/amd64"

    def make_base_archive(self, suite: str, target: Path) -> None:
        self.install("mmdebstrap", "mmdebstrap")
        self.actions.append(f"make {suite}")
        target.write_bytes(f"the files of {suite}".encode())


def machine_with_engine() -> MemoryMachine:
    """Return a machine with a running engine that has the base image."""
    engine = FakeEngine()
    engine.add_image(DEBIAN, b"debian")
    return MemoryMachine(engine)
