"""What a release needs on this machine: a container engine, a base image, a local registry, the proxy's image.

Each is found, or made and started where that is possible, or named with the command that brings it. `doctor` only looks.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy import progress
from deploy.clients import debian
from deploy.clients.oci import HttpRegistry
from deploy.errors import (
    BaseUnavailable,
    EngineDenied,
    EngineUnavailable,
    PartMissing,
    PlatformError,
    PortTaken,
    RegistryError,
    ReleaseError,
)
from deploy.settings import Environment, ImageBuild, Settings

if TYPE_CHECKING:
    from deploy.clients.engine import DockerEngine

log = logging.getLogger(__name__)

PART = "dev.twinship.part"
REGISTRY = "twinship-registry"
_PARTS = Path(__file__).parent / "parts"
_ENGINE_WITHIN = 60.0
_REGISTRY_WITHIN = 20.0
_REGISTRY_PORT = 5000


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
    from deploy.clients.engine import DockerEngine

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


# --- the base image


def base(engine: DockerEngine, build: ImageBuild) -> str:
    """The base image: by its digest where it can be pulled, else a stand-in of the same content made from packages.

    Returns:
        The reference to build from.

    Raises:
        BaseUnavailable: neither works here.
    """
    stand_in = _stand_in(build)
    for reference in (build.base, stand_in):
        if engine.image_id(reference):
            return reference
    refused = _pulled(engine, build.base)
    if refused is None:
        return build.base
    log.info("%s cannot be pulled: making the same from Debian's packages", build.base.partition("@")[0])
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "base.tar"
            debian.make_base(build.suite, target)
            with target.open("rb") as archive:
                engine.import_image(archive, stand_in, ('CMD ["bash"]',))
    except PlatformError as error:
        raise BaseUnavailable(
            "the base image can neither be pulled nor made here",
            on=build.base,
            next="give the engine access to a registry that has it, or run once on Debian",
            detail=f"  pulling: {refused.detail.strip() or refused.what}\n  making: {error}",
        ) from error
    return stand_in


def _stand_in(build: ImageBuild) -> str:
    return f"twinship/base:{build.suite}"


def _pulled(engine: DockerEngine, reference: str) -> ReleaseError | None:
    log.info("pulling %s", reference.partition("@")[0])
    try:
        engine.pull(reference, None, progress.note)
    except ReleaseError as error:
        return error
    return None


def parts_image(engine: DockerEngine, build: ImageBuild) -> str:
    """The image of the proxy and the local registry; it is built if the engine lacks it.

    Raises:
        BaseUnavailable, BuildFailed: it cannot be.
    """
    files = {path.name: path.read_bytes() for path in sorted(_PARTS.iterdir()) if path.is_file()}
    key = hashlib.sha256(b"".join(name.encode() + data for name, data in files.items()) + build.base.encode()).hexdigest()[:12]
    tag = f"twinship/parts:{key}"
    if engine.image_id(tag) is None:
        log.info("building the image of the proxy and the local registry")
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        context.seek(0)
        engine.build(context, dockerfile="Dockerfile", args={"BASE": base(engine, build)}, tag=tag, said=progress.note)
    return tag


# --- the local registry


def registry(engine: DockerEngine, build: ImageBuild, host: str) -> None:
    """Makes sure that a registry answers at a loopback address; one that is there already is used.

    Raises:
        PortTaken: something else listens there.
        PlatformError, ImageError: it cannot be started.
    """
    if registry_answers(host):
        return
    port = int(host.rpartition(":")[2])
    name = REGISTRY if port == _REGISTRY_PORT else f"{REGISTRY}-{port}"
    existing = [container for container in engine.containers({PART: "registry"}) if container.name == name]
    if not existing:
        require_free("127.0.0.1", port)
        log.info("starting a local registry on %s", host)
        existing = [_created_registry(engine, build, name, port)]
    engine.start(existing[0].id)
    deadline = time.monotonic() + _REGISTRY_WITHIN
    while not registry_answers(host):
        if time.monotonic() > deadline:
            raise PartMissing(
                "the local registry did not come up", on=host, next=f"see `docker logs {name}`", detail=engine.logs(existing[0].id, 10)
            )
        time.sleep(0.1)


def _created_registry(engine: DockerEngine, build: ImageBuild, name: str, port: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from deploy.clients.engine import Spec

    labels = {PART: "registry"}
    engine.volume(name, labels)
    return engine.create(
        Spec(
            name=name,
            image=parts_image(engine, build),
            labels=labels,
            command=("docker-registry", "serve", "/etc/docker/registry/config.yml"),
            network="bridge",
            ports={_REGISTRY_PORT: ("127.0.0.1", port)},
            volumes={name: ("/var/lib/registry", False)},
            restart=True,
        )
    )


def registry_answers(host: str) -> bool:
    """Whether an OCI registry listens there."""
    with suppress(RegistryError):
        HttpRegistry(host).ping()
        return True
    return False


def is_loopback(host: str) -> bool:
    """Whether a registry's host is this machine."""
    return host.rpartition(":")[0] in ("127.0.0.1", "localhost")


def require_free(address: str, port: int) -> None:
    """Makes sure that nobody listens on a port.

    Raises:
        PortTaken: somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise PortTaken(
                "another program listens on the port",
                on=f"{address}:{port}",
                next=f"stop it (`ss -ltnp sport = :{port}` names it), or set another port in pipeline.toml",
            ) from error


# --- all of it


def up(settings: Settings, environment: str) -> DockerEngine:
    """Makes sure of all that a release to that environment needs on this machine; what is there is left as it is.

    Raises:
        ReleaseError: something is missing and cannot be had; the text says how to get it.
    """
    env = settings.environment(environment)
    found = engine()
    parts_image(found, settings.image)
    if is_loopback(env.registry):
        registry(found, settings.image, env.registry)
    return found


def down(*, purge: bool) -> list[str]:
    """Stops what `up` and releases started here; returns the names of what was stopped or removed.

    Args:
        purge: also forget the releases' history and the local registry's images.
    """
    from deploy.targets.docker import LABEL

    stopped: list[str] = []
    with suppress(EngineUnavailable):
        found = connect()
        for container in found.containers({LABEL: "yes"}) + found.containers({PART: "registry"}):
            # The front door stays, stopped: the history is in its volume.
            found.stop(container.id, 10)
            stopped.append(container.name)
        if purge:
            stopped += found.forget({LABEL: "yes"}) + found.forget({PART: "registry"})
    if debian.stop_engine(_pid_file()):
        stopped.append("dockerd")
    return stopped


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
    here = next((name for name in (build.base, _stand_in(build)) if found.image_id(name)), "")
    yield Check("base image", here.partition("@")[0], "" if here else "`invoke up` pulls it, or makes it from Debian's packages")


def _registry_check(host: str) -> Check:
    if registry_answers(host):
        return Check("registry", host)
    return Check("registry", "", f"`invoke up` starts one on {host}" if is_loopback(host) else f"see that {host} can be reached from here")
