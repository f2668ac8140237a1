"""What a release needs on this machine: a container engine, a base image, a local registry, the proxy's image.

Each is found, or made and started where that is possible, or named with the command that brings it. `doctor` only looks.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy import parts, progress
from deploy.clients import debian
from deploy.errors import EngineDenied, EngineUnavailable, PlatformError
from deploy.settings import Environment, ImageBuild, Settings

if TYPE_CHECKING:
    from deploy.clients.docker import DockerEngine

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


def home() -> Path:
    """Where this user's cache is: TWINSHIP_HOME, else the place that the XDG base directory specification names."""
    named = os.environ.get("TWINSHIP_HOME")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinship"


def connect() -> DockerEngine:
    """The engine that this user can use now.

    Raises:
        EngineUnavailable, EngineDenied: there is none.
    """
    from deploy.clients.docker import DockerEngine

    return DockerEngine()


def engine() -> DockerEngine:
    """The container engine; it is installed and started if it is missing and this is Debian.

    Raises:
        PlatformError: there is none, and none can be had.
    """
    try:
        return connect()
    except EngineDenied:
        _change_group()
        raise
    except EngineUnavailable as error:
        if os.environ.get("DOCKER_HOST"):
            raise
        return _started_engine(error)


def _started_engine(reason: EngineUnavailable) -> DockerEngine:
    if debian.found("dockerd") is None:
        if not debian.is_debian():
            raise reason
        log.info("no container engine here: installing Debian's docker.io")
        debian.install("docker.io", "dockerd")
    if not _answers():
        log.info("starting the container engine")
        debian.start_engine(home() / "dockerd.log", _pid_file(), _answers, _ENGINE_WITHIN)
    return engine()


def _answers() -> bool:
    """Whether an engine is there, though perhaps not for this user yet."""
    try:
        connect()
    except EngineDenied:
        return True
    except EngineUnavailable:
        return False
    return True


def _change_group() -> None:
    """Runs the same command again as a member of the engine's group, if this user can be made one."""
    changed = "TWINSHIP_GROUP_CHANGED"
    if changed in os.environ or shutil.which("sg") is None or not debian.join_engine_group():
        return
    import shlex

    log.info("you are now in the group `docker`; going on as a member of it")
    os.environ[changed] = "1"
    sys.stderr.flush()
    os.execvp("sg", ["sg", "docker", "-c", shlex.join([sys.executable, *sys.orig_argv[1:]])])  # noqa: S606, S607  the same command again


def _pid_file() -> Path:
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "dockerd.pid"


def up(settings: Settings, environment: str) -> DockerEngine:
    """Makes sure of all that a release to that environment needs on this machine; what is there is left as it is.

    Raises:
        ReleaseError: something is missing and cannot be had; the text says how to get it.
    """
    env = settings.environment(environment)
    found = engine()
    parts.image(found, settings.image)
    if parts.is_loopback(env.registry):
        parts.registry(found, settings.image, env.registry)
    return found


def down(settings: Settings, *, purge: bool) -> list[str]:
    """Stops what `up` and this application's releases started here; what other applications still use stays.

    Args:
        settings: the application's.
        purge: also forget the releases' history, and the local registry's images.

    Returns:
        The names of what was stopped or removed.
    """
    from deploy.targets.docker import APP, LABEL

    stopped: list[str] = []
    alone = True
    with suppress(EngineUnavailable):
        found = connect()
        mine = {LABEL: "yes", APP: settings.app.name}
        stopped += _stopped(found, mine, purge=purge)
        alone = not any(container.running for container in found.containers({LABEL: "yes"}))
        if alone:
            stopped += _stopped(found, {parts.PART: "registry"}, purge=purge)
    if not alone:
        log.info("the registry and the engine stay: other applications are released here")
    elif debian.stop_engine(_pid_file()):
        stopped.append("dockerd")
    return stopped


def _stopped(engine: DockerEngine, labels: dict[str, str], *, purge: bool) -> list[str]:
    """Stops containers, which keeps the front door and with it the history; or removes them with all they hold."""
    if purge:
        return engine.forget(labels)
    running = [container for container in engine.containers(labels) if container.running]
    for container in running:
        engine.stop(container.id, 10)
    return [container.name for container in running]


def doctor(settings: Settings, environment: str) -> tuple[Check, ...]:
    """What a release to that environment needs on this machine, and whether it is there; changes nothing."""
    return tuple(_checks(settings, settings.environment(environment)))


def _checks(settings: Settings, env: Environment) -> Iterator[Check]:
    git = shutil.which("git")
    yield Check("git", git or "", "" if git else "sudo apt-get install git; without it a release is marked unversioned")
    try:
        found = connect()
    except PlatformError as error:
        able = isinstance(error, EngineUnavailable) and debian.is_debian() and debian.administrator() is not None
        yield Check("container engine", "", "`invoke up` installs and starts it" if able else error.next)
        yield Check("base image", "not asked: no engine", "`invoke up` pulls or makes it")
    else:
        yield Check("container engine", f"Docker {found.version}")
        yield from _image_checks(found, settings.image)
    yield _registry_check(env.registry)
    free = shutil.disk_usage(home().parent if home().parent.exists() else Path.home()).free
    yield Check("disk", f"{progress.size(free)} free", "" if free > 3e9 else "free at least 3 GB")


def _image_checks(found: DockerEngine, build: ImageBuild) -> Iterator[Check]:
    here = next((name for name in (build.base, parts.stand_in(build)) if found.image_id(name)), "")
    yield Check("base image", here.partition("@")[0], "" if here else "`invoke up` pulls it, or makes it from Debian's packages")


def _registry_check(host: str) -> Check:
    if parts.registry_answers(host):
        return Check("registry", host)
    return Check(
        "registry",
        "",
        f"`invoke up` starts one on {host}" if parts.is_loopback(host) else f"see that {host} can be reached from here",
    )
