"""The check of what a release needs on this machine; it changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy import progress
from deploy.clients.docker.protocol import Engine
from deploy.errors import ClusterError, EngineUnavailable, PlatformError
from deploy.machine.base_image import find_base_image
from deploy.machine.host import THIS_MACHINE, Host, cache_folder, is_loopback
from deploy.settings.environments import Environment, Kubernetes
from deploy.settings.reading import ImageBuild, Settings


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report. `cure` is empty where nothing is missing."""

    part: str
    found: str
    cure: str = ""

    @property
    def ok(self) -> bool:
        """Whether the part is there."""
        return not self.cure


def check_machine(
    settings: Settings, environment: str, here: Host = THIS_MACHINE, directory: Path = Path()
) -> tuple[Check, ...]:
    """What a release to that environment needs on this machine, and whether it is there; changes nothing.

    Args:
        settings: the application's.
        environment: where to.
        here: this machine.
        directory: the folder of pipeline.toml.
    """
    return tuple(_checks(settings, settings.environment(environment), here, directory))


def _checks(settings: Settings, env: Environment, here: Host, directory: Path) -> Iterator[Check]:
    git = shutil.which("git")
    yield Check(
        "git",
        git or "",
        "" if git else "sudo apt-get install git; without it a release is marked unversioned",
    )
    try:
        found = here.connect_engine()
    except PlatformError as error:
        able = (
            isinstance(error, EngineUnavailable)
            and here.system.is_debian()
            and here.system.root_prefix() is not None
        )
        yield Check(
            "container engine", "", "`invoke up` installs and starts it" if able else error.next
        )
        yield Check("base image", "not asked: no engine", "`invoke up` pulls or makes it")
    else:
        yield Check("container engine", f"Docker {found.version}")
        yield from _image_checks(found, settings.image)
    yield _registry_check(env.registry, here)
    if isinstance(env, Kubernetes):
        yield _cluster_check(env, here, directory)
    free = shutil.disk_usage(
        cache_folder().parent if cache_folder().parent.exists() else Path.home()
    ).free
    yield Check(
        "disk", f"{progress.format_size(free)} free", "" if free > 3e9 else "free at least 3 GB"
    )


def _image_checks(found: Engine, build: ImageBuild) -> Iterator[Check]:
    here = find_base_image(found, build)
    made = ", or makes it from Debian's packages" if build.debian else ""
    yield Check(
        "base image", here.partition("@")[0], "" if here else f"`invoke build` pulls it{made}"
    )


def _registry_check(host: str, here: Host) -> Check:
    if here.registry_answers(host):
        return Check("registry", host)
    return Check(
        "registry",
        "",
        f"`invoke up` starts one on {host}"
        if is_loopback(host)
        else f"see that {host} can be reached from here",
    )


def _cluster_check(env: Kubernetes, here: Host, directory: Path) -> Check:
    try:
        cluster = here.connect_cluster(env.kubeconfig_from(directory), env.context, env.namespace)
        lacking = [
            kind
            for kind in ("Lease", "Deployment", "Service")
            if not cluster.is_allowed("create", kind)
        ]
        version = cluster.version()
        if not lacking:
            cluster.require_access()
    except ClusterError as error:
        return Check("cluster", "", f"{error.what}: {error.next}")
    if lacking:
        return Check(
            "cluster",
            "",
            f"this account may not create {', '.join(lacking)} in {env.namespace}; see deploy/manifests/rbac.yaml",
        )
    return Check("cluster", f"Kubernetes {version}, namespace {env.namespace}")
