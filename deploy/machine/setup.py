"""Setup of this machine for releases: the engine, the services' image, the local registry.

`up` uses what exists and installs or starts the rest where that is possible; `down` stops it.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from deploy.clients.docker.protocol import Container, Engine
from deploy.errors import DiskFull, EngineDenied, EngineUnavailable
from deploy.machine import services
from deploy.machine.host import THIS_MACHINE, Host, ensure_cache_folder, is_loopback
from deploy.machine.labels import APP, LABEL
from deploy.settings.reading import Settings

log = logging.getLogger(__name__)

_ENGINE_TIMEOUT = 60.0


def ensure_engine(host: Host = THIS_MACHINE) -> Engine:
    """Return the container engine; on Debian, install and start it if necessary.

    Raises:
        PlatformError: there is no engine, and none can be started.
    """
    try:
        return host.connect_engine()
    except EngineDenied:
        _restart_in_engine_group(host)
        raise
    except EngineUnavailable as error:
        # The user chose that engine: another one is no replacement.
        if host.find_engine_address().is_named:
            raise
        return _start_engine(error, host)


def _start_engine(reason: EngineUnavailable, host: Host) -> Engine:
    if host.system.find_program("dockerd") is None:
        if not host.system.is_debian():
            raise reason
        log.info("no container engine here: installing Debian's docker.io")
        host.system.install("docker.io", "dockerd")
    if not _engine_answers(host):
        log.info("starting the container engine")
        host.system.start_engine(
            ensure_cache_folder() / "dockerd.log",
            _pid_file(),
            lambda: _engine_answers(host),
            _ENGINE_TIMEOUT,
        )
    return ensure_engine(host)


def _engine_answers(host: Host) -> bool:
    """Return whether an engine answers, even if this user may not use it yet."""
    try:
        host.connect_engine()
    except EngineDenied:
        return True
    except EngineUnavailable:
        return False
    return True


def _restart_in_engine_group(host: Host) -> None:
    """Run the same command as a member of the engine's group, if this user can join it."""
    changed = "TWINSHIP_GROUP_CHANGED"
    if (
        changed in os.environ
        or host.system.find_program("sg") is None
        or not host.system.join_engine_group()
    ):
        return
    log.info("you are now in the group `docker`; the command continues as a member of it")
    os.environ[changed] = "1"
    host.system.restart_as_member()


def _pid_file() -> Path:
    return ensure_cache_folder() / "dockerd.pid"


def up(
    settings: Settings,
    environment: str,
    host: Host = THIS_MACHINE,
    engine: Engine | None = None,
) -> Engine:
    """Set up all that a release to an environment needs here; existing parts stay unchanged.

    Args:
        settings: the settings of the application.
        environment: the name of the environment.
        host: this machine.
        engine: its engine, if that was started before.

    Raises:
        ReleaseError: something is missing and cannot be installed; the text says how to get it.
    """
    env = settings.environment(environment)
    engine = engine or ensure_engine(host)
    if env.needs_proxy:
        services.ensure_services_image(engine, settings.image, host)
    if is_loopback(env.registry):
        services.ensure_registry(engine, settings.image, env.registry, host)
    return engine


def down(settings: Settings, *, purge: bool, host: Host = THIS_MACHINE) -> list[str]:
    """Stop what `up` and this application's releases started here.

    What other applications still use keeps running.

    Args:
        settings: the application's settings.
        purge: also delete the history of releases, and the local registry's images.
        host: this machine.

    Returns:
        The names of what was stopped or removed.
    """
    stopped: list[str] = []
    others: list[Container] = []
    with suppress(EngineUnavailable):
        engine = host.connect_engine()
        own = {LABEL: "yes", APP: settings.app.name}
        stopped += _stop(engine, own, purge=purge)
        others = [
            container
            for container in engine.containers({LABEL: "yes"})
            if container.labels[APP] != settings.app.name
        ]
        if not any(container.running for container in others):
            # The registry still has the images of applications that are stopped.
            registry = {services.SERVICE_LABEL: "registry"}
            stopped += _stop(engine, registry, purge=purge and not others)
    if any(container.running for container in others):
        log.info("the registry and the engine keep running: other applications use them")
    elif not host.find_engine_address().is_named and host.system.stop_engine(_pid_file()):
        stopped.append("dockerd")
    return stopped


def _stop(engine: Engine, labels: dict[str, str], *, purge: bool) -> list[str]:
    """Stop containers, which keeps their volumes and the history; with `purge`, remove all."""
    if purge:
        return engine.remove_labelled(labels)
    running = [container for container in engine.containers(labels) if container.running]
    for container in running:
        # On a full disk this setting cannot be written: then the container is stopped only until
        # the engine starts again.
        with suppress(DiskFull):
            engine.disable_restart(container.id)
        engine.stop(container.id, 10)
    return [container.name for container in running]
