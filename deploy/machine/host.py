"""This machine as a release sees it: its engine, operating system, network and clusters.

They come as one value, so that tests can replace the machine.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deploy.clients import http
from deploy.clients.docker.address import EngineAddress, find_engine_address
from deploy.clients.docker.protocol import Engine, own_platform
from deploy.clients.home import require_home
from deploy.clients.kubernetes.protocol import Cluster
from deploy.clients.oci.client import HttpRegistry
from deploy.clients.oci.http import RetryPolicy
from deploy.errors import (
    EngineDenied,
    FileRefused,
    PlatformError,
    PortTaken,
    RegistryError,
    SettingsInvalid,
    disk_full_error,
    is_disk_full,
)
from deploy.machine import debian

if TYPE_CHECKING:
    from deploy.clients.azure.identity import Identity

NAME_CACHE = "set TWINSHIP_HOME to a folder that this user may write to"
_ONE_ATTEMPT = RetryPolicy(connect=5.0, read=10.0)


class ConnectCluster(Protocol):
    """Returns a namespace of a cluster, as `connect_cluster` does."""

    def __call__(
        self, kubeconfig: str, context: str, namespace: str, identity: Identity | None = None
    ) -> Cluster:
        """Return it, or raise ClusterError."""


class OperatingSystem(Protocol):
    """What a release needs of the operating system; `deploy.machine.debian` implements it."""

    def is_debian(self) -> bool:
        """Return whether Debian packages can be installed here."""

    def root_prefix(self) -> list[str] | None:
        """Return the words before a command that run it as root, or None if that is impossible."""

    def find_program(self, program: str) -> str | None:
        """Return the path of a program."""

    def install(self, package: str, program: str) -> None:
        """Install a package if its program is missing."""

    def start_engine(
        self, log: Path, pid: Path, is_ready: Callable[[], bool], timeout: float
    ) -> None:
        """Start the container engine."""

    def stop_engine(self, pid: Path) -> bool:
        """Stop an engine that was started here; return False if there is none."""

    def join_engine_group(self) -> bool:
        """Add this user to the engine's group; return False if that is impossible."""

    def restart_as_member(self) -> None:
        """Replace this process by the same command, run as a member of the engine's group."""

    def make_base_archive(self, suite: str, target: Path) -> None:
        """Write a small file system for this machine's processor as a tar file."""

    def platform(self) -> str:
        """Return the platform of the programs of this machine, if they run in a container."""


def connect_engine() -> Engine:
    """Return the engine that this user can use.

    Raises:
        EngineUnavailable, EngineDenied: there is none.
    """
    from deploy.clients.docker.client import DockerEngine

    try:
        return DockerEngine()
    except EngineDenied:
        # A user who joins the group after login is a member only in new processes.
        if debian.has_joined_engine_group():
            debian.restart_as_member()
        raise


def connect_cluster(
    kubeconfig: str, context: str, namespace: str, identity: Identity | None = None
) -> Cluster:
    """Return the namespace of a cluster that this user reaches by a kubeconfig and a context.

    The identity logs in to clusters on AKS.

    Raises:
        ClusterError: there is no such context, or its login failed.
    """
    from deploy.clients.kubernetes.client import connect

    return connect(kubeconfig, context, namespace, identity)


def find_registry_problem(
    address: str, retry_policy: RetryPolicy = _ONE_ATTEMPT
) -> RegistryError | None:
    """Return why no OCI registry answers there, or None if one does.

    A connection without an answer is a problem.
    """
    try:
        HttpRegistry(address, retry_policy=retry_policy).ping()
    except RegistryError as error:
        return error
    return None


def engine_platform(host: Host) -> str:
    """Return the platform of the engine's own images; without an engine, that of this machine."""
    try:
        return own_platform(host.connect_engine())
    except PlatformError:
        return host.system.platform()


def is_loopback(address: str) -> bool:
    """Return whether a registry's address is on this machine."""
    return address.rpartition(":")[0] in ("127.0.0.1", "localhost")


def require_free_port(address: str, port: int) -> None:
    """Raise unless this machine has the address and the port is free; 0 checks the address alone.

    Raises:
        SettingsInvalid: the address is not one of this machine.
        PortTaken: another program listens on the port.
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
            # The engine may listen where this user may not: only a connection shows a listener.
            if probe.connect_ex((address, port)) == 0:
                raise taken from None
        except (OSError, OverflowError, ValueError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise taken from error
            raise SettingsInvalid(
                f"nothing can listen there: {getattr(error, 'strerror', None) or error}",
                on=f"{address}:{port}" if port else address,
                next="name an address of this machine (`ip -brief address` lists them) "
                "and a port below 65536 in pipeline.toml",
            ) from error


def cache_folder() -> Path:
    """Return this user's cache folder: TWINSHIP_HOME, or that of the XDG specification.

    Raises:
        SettingsInvalid: neither is set, and this user has no home folder.
    """
    named = os.environ.get("TWINSHIP_HOME")
    if named:
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME") or require_home(NAME_CACHE) / ".cache"
    return Path(caches) / "twinship"


def ensure_cache_folder() -> Path:
    """Return this user's cache folder, created if it is missing.

    Raises:
        SettingsInvalid: this user has no home folder, and no variable names another place.
        FileRefused: this user may not create the folder, or may not write into it.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full_error(str(folder)) from error
        raise _cache_refused(folder, error.strerror or str(error)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _cache_refused(folder, "this user may not write into it")
    return folder


def _cache_refused(folder: Path, why: str) -> FileRefused:
    return FileRefused(f"the cache cannot be there: {why}", on=str(folder), next=NAME_CACHE)


@dataclass(frozen=True)
class Host:
    """A machine.

    Attributes:
        connect_engine: returns the engine, or raises EngineUnavailable or EngineDenied.
        system: the operating system.
        find_registry_problem: returns why no OCI registry answers at an address, or None.
        require_free_port: raises PortTaken if another program listens on a port.
        connect_cluster: returns a namespace of a cluster, or raises ClusterError.
        find_engine_address: returns which engine is used, or raises SettingsInvalid.
        send: sends one request to an endpoint, or raises NoResponse.
    """

    connect_engine: Callable[[], Engine] = connect_engine
    system: OperatingSystem = debian
    find_registry_problem: Callable[[str], RegistryError | None] = find_registry_problem
    require_free_port: Callable[[str, int], None] = require_free_port
    connect_cluster: ConnectCluster = connect_cluster
    find_engine_address: Callable[[], EngineAddress] = find_engine_address
    send: http.SendOnce = http.send

    def registry_answers(self, address: str) -> bool:
        """Return whether an OCI registry answers at an address."""
        return self.find_registry_problem(address) is None

    def with_identity(self, find_identity: Callable[[], Identity]) -> Host:
        """Return this machine with an identity that logs in to clusters on AKS."""

        def connect(
            kubeconfig: str, context: str, namespace: str, identity: Identity | None = None
        ) -> Cluster:
            return self.connect_cluster(kubeconfig, context, namespace, identity or find_identity())

        return replace(self, connect_cluster=connect)


THIS_MACHINE = Host()
