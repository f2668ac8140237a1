"""The check of what a release needs on this machine; it changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy import progress
from deploy.clients.azure.names import SECRET
from deploy.clients.docker.protocol import Engine
from deploy.clients.kubernetes.protocol import Cluster
from deploy.clients.secrets import read_variables
from deploy.errors import (
    ClusterError,
    EngineUnavailable,
    PlatformError,
    ReleaseError,
    SettingsInvalid,
)
from deploy.machine.base_image import find_base_image
from deploy.machine.host import NAME_CACHE, THIS_MACHINE, Host, cache_folder, is_loopback
from deploy.settings.environments import ClusterAddress
from deploy.settings.image import ImageBuild
from deploy.settings.reading import Settings

# Kinds that a role for releases must let an account create; it has the other rights with them.
_KINDS = ("Lease", "Deployment", "Service")


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    Attributes:
        part: what was checked.
        found: what was found; empty if it is missing.
        cure: how to get it; empty if it is there.
    """

    part: str
    found: str
    cure: str = ""

    @property
    def ok(self) -> bool:
        """Whether the part is there."""
        return not self.cure


def check_machine(
    settings: Settings, environment: str, host: Host = THIS_MACHINE, directory: Path = Path()
) -> tuple[Check, ...]:
    """Check what a release to an environment needs on this machine; change nothing.

    Args:
        settings: the application's settings.
        environment: the environment's name.
        host: this machine.
        directory: the folder of pipeline.toml.
    """
    return tuple(_checks(settings, environment, host, directory))


def _checks(settings: Settings, environment: str, host: Host, directory: Path) -> Iterator[Check]:
    env = settings.environment(environment)
    git = shutil.which("git") or ""
    cure = "sudo apt-get install git; without it a release is marked unversioned"
    yield Check("git", git, "" if git else cure)
    try:
        engine = host.connect_engine()
    except (PlatformError, SettingsInvalid) as error:
        yield Check("container engine", "", _engine_cure(error, host))
        yield Check("base image", "not checked: no engine", "`invoke up` pulls or makes it")
    else:
        yield Check("container engine", f"{engine.product} {engine.version}")
        yield _base_image_check(engine, settings.image)
    yield _registry_check(env.registry, host)
    names = {key: name for key, name in env.secrets.items() if not name.startswith(SECRET)}
    if names:
        yield _secrets_check(names, f"[environments.{environment}.secrets]")
    address = env.cluster_address(directory)
    if address:
        yield _cluster_check(address, host, has_secrets=bool(env.secrets))
    yield _disk_check()


def _engine_cure(error: ReleaseError, host: Host) -> str:
    installable = (
        isinstance(error, EngineUnavailable)
        and not host.find_engine_address().is_named
        and host.system.is_debian()
        and host.system.root_prefix() is not None
    )
    if installable:
        return "`invoke up` installs and starts it"
    return f"{error.what}: {error.next}" if isinstance(error, SettingsInvalid) else error.next


def _base_image_check(engine: Engine, build: ImageBuild) -> Check:
    name = find_base_image(engine, build, build.platform)
    made = ", or makes it from Debian's packages" if build.debian else ""
    return Check(
        "base image", name.partition("@")[0], "" if name else f"`invoke build` pulls it{made}"
    )


def _registry_check(address: str, host: Host) -> Check:
    problem = host.find_registry_problem(address)
    if problem is None:
        return Check("registry", address)
    if is_loopback(address):
        return Check("registry", "", f"`invoke up` starts one on {address}")
    return Check("registry", "", f"{address}: {problem.what}; {problem.next}")


def _secrets_check(names: Mapping[str, str], table: str) -> Check:
    """Check whether the variables are set that hold the application's secrets."""
    try:
        found = read_variables(names, os.environ, on=table)
    except SettingsInvalid as error:
        return Check("secrets", "", f"{error.what}: {error.next}")
    return Check("secrets", ", ".join(found))


def _cluster_check(address: ClusterAddress, host: Host, *, has_secrets: bool) -> Check:
    try:
        cluster = host.connect_cluster(*address)
        lacking = lacking_kinds(cluster, has_secrets=has_secrets)
        version = cluster.version()
        if not lacking:
            cluster.require_access()
    except ClusterError as error:
        return Check("cluster", "", f"{error.what}: {error.next}")
    if lacking:
        cure = (
            f"this account may not create {', '.join(lacking)} in {address.namespace}; "
            "see deploy/manifests/rbac.yaml"
        )
        return Check("cluster", "", cure)
    return Check("cluster", f"Kubernetes {version}, namespace {address.namespace}")


def lacking_kinds(cluster: Cluster, *, has_secrets: bool) -> list[str]:
    """Return the kinds of objects that a release creates and that the account may not.

    Args:
        cluster: the namespace.
        has_secrets: whether the application gets secrets, which an object of their own holds.
    """
    kinds = (*_KINDS, "Secret") if has_secrets else _KINDS
    return [kind for kind in kinds if not cluster.is_allowed("create", kind)]


def _disk_check() -> Check:
    try:
        cache = cache_folder()
    except SettingsInvalid as error:
        return Check("disk", "", error.next)
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        return Check("disk", "", f"this user may not write to {existing}; {NAME_CACHE}")
    free = shutil.disk_usage(existing).free
    cure = "" if free > 3e9 else "free at least 3 GB"
    return Check("disk", f"{progress.format_size(free)} free", cure)
