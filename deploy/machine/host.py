"""This machine as a release sees it: its container engine, its operating system, its network, and the clusters it knows.

They come as one value, so that what is found, made and started is decided the same on any of them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.clients.docker.protocol import Engine
from deploy.clients.kubernetes.protocol import Cluster
from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.http import RetryPolicy
from deploy.errors import EngineDenied, PortTaken, RegistryError, SettingsInvalid
from deploy.machine import debian

_GLANCE = RetryPolicy(connect=5.0, read=10.0)


class OperatingSystem(Protocol):
    """What a release needs of the operating system; the module `deploy.machine.debian` is the real one."""

    def is_debian(self) -> bool:
        """Whether packages of Debian's kind can be installed here."""

    def root_prefix(self) -> list[str] | None:
        """What to put before a command to run it as root, or None."""

    def find_program(self, program: str) -> str | None:
        """Where a program is."""

    def install(self, package: str, program: str) -> None:
        """Installs a package if its program is missing."""

    def start_engine(
        self, log: Path, pid: Path, answers: Callable[[], bool], within: float
    ) -> None:
        """Starts the container engine."""

    def stop_engine(self, pid: Path) -> bool:
        """Stops an engine that was started here; False if there is none."""

    def join_engine_group(self) -> bool:
        """Makes this user one who may use the engine; False if that cannot be arranged."""

    def restart_as_member(self) -> None:
        """Replaces this process by the same command, run as a member of the engine's group."""

    def make_base_archive(self, suite: str, target: Path) -> None:
        """Writes a small file system as a tar."""


def connect_engine() -> Engine:
    """The engine that this user can use now.

    Raises:
        EngineUnavailable, EngineDenied: there is none.
    """
    from deploy.clients.docker.client import DockerEngine

    try:
        return DockerEngine()
    except EngineDenied:
        # Whoever was made a member after logging in becomes one only in a new process.
        if debian.has_joined_engine_group():
            debian.restart_as_member()
        raise


def connect_cluster(kubeconfig: str, context: str, namespace: str) -> Cluster:
    """The namespace of a cluster that this user reaches by that kubeconfig and context.

    Raises:
        ClusterError: there is no such context, or its login failed.
    """
    from deploy.clients.kubernetes.client import connect

    return connect(kubeconfig, context, namespace)


def registry_answers(host: str, patience: RetryPolicy = _GLANCE) -> bool:
    """Whether an OCI registry listens there; who takes a connection and says nothing is none."""
    with suppress(RegistryError):
        HttpRegistry(host, patience=patience).ping()
        return True
    return False


def is_loopback(host: str) -> bool:
    """Whether a registry's host is this machine."""
    return host.rpartition(":")[0] in ("127.0.0.1", "localhost")


def require_free_port(address: str, port: int) -> None:
    """Makes sure that this machine has an address, and that nobody listens on a port of it; port 0 asks for the address alone.

    Raises:
        SettingsInvalid: the address is none of this machine's.
        PortTaken: somebody listens there.
    """
    taken = PortTaken(
        "another program listens on the port",
        on=f"{address}:{port}",
        next=f"stop it (`ss -ltnp sport = :{port}` names it), or set another port in pipeline.toml",
    )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            # The engine may listen where this user may not; whoever is there already takes a connection.
            if probe.connect_ex((address, port)) == 0:
                raise taken from None
        except (OSError, OverflowError, ValueError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise taken from error
            raise SettingsInvalid(
                f"nothing can listen there: {getattr(error, 'strerror', None) or error}",
                on=f"{address}:{port}" if port else address,
                next="name an address of this machine (`ip -brief address` lists them) and a port below 65536 in pipeline.toml",
            ) from error


def cache_folder() -> Path:
    """Where this user's cache is: TWINSHIP_HOME, else the place that the XDG base directory specification names."""
    named = os.environ.get("TWINSHIP_HOME")
    return (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinship"
    )


@dataclass(frozen=True)
class Host:
    """A machine.

    Args:
        connect: gives the engine, or raises EngineUnavailable or EngineDenied.
        system: its operating system.
        registry_answers: whether an OCI registry listens at an address.
        require_free: raises PortTaken if somebody listens on a port.
        cluster: gives a namespace of a cluster, or raises ClusterError.
    """

    connect_engine: Callable[[], Engine] = connect_engine
    system: OperatingSystem = debian
    registry_answers: Callable[[str], bool] = registry_answers
    require_free_port: Callable[[str, int], None] = require_free_port
    connect_cluster: Callable[[str, str, str], Cluster] = connect_cluster


THIS_MACHINE = Host()
