"""What a release needs on this machine: a container engine, a base image, a local registry, the proxy's image.

Each is found, or made and started where that is possible, or named with the command that brings it. `doctor` only looks.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from deploy.clients.docker.protocol import Container, Engine
from deploy.errors import DiskFull, EngineDenied, EngineUnavailable
from deploy.machine import services
from deploy.machine.host import THIS_MACHINE, Host, cache_folder, is_loopback
from deploy.settings.environments import Docker
from deploy.settings.reading import Settings

log = logging.getLogger(__name__)

_ENGINE_WITHIN = 60.0


def ensure_engine(here: Host = THIS_MACHINE) -> Engine:
    """The container engine; it is installed and started if it is missing and this is Debian.

    Raises:
        PlatformError: there is none, and none can be had.
    """
    try:
        return here.connect_engine()
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
        here.connect_engine()
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
    here.system.restart_as_member()


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
    from deploy.targets.docker.names import APP, LABEL

    stopped: list[str] = []
    others: list[Container] = []
    with suppress(EngineUnavailable):
        found = here.connect_engine()
        mine = {LABEL: "yes", APP: settings.app.name}
        stopped += _stopped(found, mine, purge=purge)
        others = [
            container
            for container in found.containers({LABEL: "yes"})
            if container.labels[APP] != settings.app.name
        ]
        if not any(container.running for container in others):
            # Applications that are stopped have their images in the registry still.
            stopped += _stopped(
                found, {services.SERVICE_LABEL: "registry"}, purge=purge and not others
            )
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
