"""What a release needs on this machine: a container engine, a base image, a local registry, the proxy's image.

Each is found, or made and started where that is possible, or named with the command that brings it. `doctor` only looks.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy import progress
from deploy.clients.docker.protocol import Container, Engine
from deploy.errors import ClusterError, DiskFull, EngineDenied, EngineUnavailable, PlatformError
from deploy.machine import services
from deploy.machine.host import THIS_MACHINE, Host, is_loopback
from deploy.settings.environments import Docker, Environment, Kubernetes
from deploy.settings.reading import ImageBuild, Settings

log = logging.getLogger(__name__)

_ENGINE_WITHIN = 60.0


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


def cache_folder() -> Path:
    """Where this user's cache is: TWINSHIP_HOME, else the place that the XDG base directory specification names."""
    named = os.environ.get("TWINSHIP_HOME")
    return (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinship"
    )


def ensure_engine(here: Host = THIS_MACHINE) -> Engine:
    """The container engine; it is installed and started if it is missing and this is Debian.

    Raises:
        PlatformError: there is none, and none can be had.
    """
    try:
        return here.connect()
    except EngineDenied:
        _change_group(here)
        raise
    except EngineUnavailable as error:
        if os.environ.get("DOCKER_HOST"):
            raise
        return _started_engine(error, here)


def _started_engine(reason: EngineUnavailable, here: Host) -> Engine:
    if here.system.find_program("dockerd") is None:
        if not here.system.is_debian():
            raise reason
        log.info("no container engine here: installing Debian's docker.io")
        here.system.install("docker.io", "dockerd")
    if not _answers(here):
        log.info("starting the container engine")
        here.system.start_engine(
            cache_folder() / "dockerd.log", _pid_file(), lambda: _answers(here), _ENGINE_WITHIN
        )
    return ensure_engine(here)


def _answers(here: Host) -> bool:
    """Whether an engine is there, though perhaps not for this user yet."""
    try:
        here.connect()
    except EngineDenied:
        return True
    except EngineUnavailable:
        return False
    return True


def _change_group(here: Host) -> None:
    """Runs the same command again as a member of the engine's group, if this user can be made one."""
    changed = "TWINSHIP_GROUP_CHANGED"
    if (
        changed in os.environ
        or here.system.find_program("sg") is None
        or not here.system.join_engine_group()
    ):
        return
    log.info("you are now in the group `docker`; going on as a member of it")
    os.environ[changed] = "1"
    here.system.start_again_as_member()


def _pid_file() -> Path:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "dockerd.pid"


def up(settings: Settings, environment: str, here: Host = THIS_MACHINE) -> Engine:
    """Makes sure of all that a release to that environment needs on this machine; what is there is left as it is.

    Raises:
        ReleaseError: something is missing and cannot be had; the text says how to get it.
    """
    env = settings.environment(environment)
    found = ensure_engine(here)
    if isinstance(env, Docker):
        services.ensure_services_image(found, settings.image, here)
    if is_loopback(env.registry):
        services.ensure_registry(found, settings.image, env.registry, here)
    return found


def down(settings: Settings, *, purge: bool, here: Host = THIS_MACHINE) -> list[str]:
    """Stops what `up` and this application's releases started here; what other applications still use stays.

    Args:
        settings: the application's.
        purge: also forget the releases' history, and the local registry's images.
        here: this machine.

    Returns:
        The names of what was stopped or removed.
    """
    from deploy.targets.docker.state import APP, LABEL

    stopped: list[str] = []
    others: list[Container] = []
    with suppress(EngineUnavailable):
        found = here.connect()
        mine = {LABEL: "yes", APP: settings.app.name}
        stopped += _stopped(found, mine, purge=purge)
        others = [
            container
            for container in found.containers({LABEL: "yes"})
            if container.labels[APP] != settings.app.name
        ]
        if not any(container.running for container in others):
            # Applications that are stopped have their images in the registry still.
            stopped += _stopped(found, {services.LABEL: "registry"}, purge=purge and not others)
    if any(container.running for container in others):
        log.info("the registry and the engine stay: other applications are released here")
    elif here.system.stop_engine(_pid_file()):
        stopped.append("dockerd")
    return stopped


def _stopped(engine: Engine, labels: dict[str, str], *, purge: bool) -> list[str]:
    """Stops containers, which keeps the front door and with it the history; or removes them with all they hold."""
    if purge:
        return engine.remove_labelled(labels)
    running = [container for container in engine.containers(labels) if container.running]
    for container in running:
        # Where there is no space to note that, it is stopped all the same, though only until the engine starts again.
        with suppress(DiskFull):
            engine.keep_stopped(container.id)
        engine.stop(container.id, 10)
    return [container.name for container in running]


def doctor(
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
        found = here.connect()
    except PlatformError as error:
        able = (
            isinstance(error, EngineUnavailable)
            and here.system.is_debian()
            and here.system.administrator() is not None
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
    here = services.find_base_image(found, build)
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
        cluster = here.cluster(env.kubeconfig_from(directory), env.context, env.namespace)
        lacking = [
            kind for kind in ("Lease", "Deployment", "Service") if not cluster.may("create", kind)
        ]
        version = cluster.version()
        if not lacking:
            cluster.require()
    except ClusterError as error:
        return Check("cluster", "", f"{error.what}: {error.next}")
    if lacking:
        return Check(
            "cluster",
            "",
            f"this account may not create {', '.join(lacking)} in {env.namespace}; see deploy/manifests/rbac.yaml",
        )
    return Check("cluster", f"Kubernetes {version}, namespace {env.namespace}")
