"""The services that a Docker host runs for releases: the proxy's image and the local registry."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

from deploy import progress
from deploy.archive import pack_files
from deploy.clients.docker.errors import published_elsewhere_error
from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.errors import PartMissing, PortTaken, ReleaseError
from deploy.machine.base_image import ensure_base_image
from deploy.machine.host import THIS_MACHINE, Host
from deploy.settings.image import ImageBuild

log = logging.getLogger(__name__)

SERVICE_LABEL = "dev.twinship.part"
REGISTRY_NAME = "twinship-registry"
_FOLDER = Path(__file__).parent
_FILES = ("Dockerfile", "registry.yml")
_REGISTRY_PORT = 5000
_ADDRESS = "127.0.0.1"
# A published port is there when its container starts; that of an engine in a virtual machine is
# forwarded a moment later.
_FORWARDED_WITHIN = 5.0


def ensure_services_image(engine: Engine, build: ImageBuild, host: Host = THIS_MACHINE) -> str:
    """Make sure that the engine has the image of the proxy and the local registry.

    It is always built on Debian, whatever the application is based on.

    Returns:
        The image's tag.

    Raises:
        BaseUnavailable, BuildFailed: the image cannot be built.
    """
    own = build.for_parts
    files = {name: (_FOLDER / name).read_bytes() for name in _FILES}
    content = b"".join(name.encode() + data for name, data in files.items())
    key = hashlib.sha256(content + own.base.encode()).hexdigest()[:12]
    tag = f"twinship/parts:{key}"
    if engine.image_id(tag) is None:
        log.info("building the image of the proxy and the local registry")
        engine.build(
            pack_files(files),
            dockerfile="Dockerfile",
            args={"BASE": ensure_base_image(engine, own, host)},
            tag=tag,
            on_line=progress.report,
        )
    return tag


def ensure_registry(
    engine: Engine,
    build: ImageBuild,
    address: str,
    host: Host = THIS_MACHINE,
    timeout: float = 20.0,
) -> None:
    """Make sure that a registry answers at a loopback address; an existing one is used.

    Args:
        engine: the engine that runs it.
        build: the settings of image builds.
        address: host and port.
        host: this machine.
        timeout: seconds until a registry that was started has to answer.

    Raises:
        PortTaken: another program listens there.
        PlatformError, ImageError: the registry cannot be started.
    """
    if host.registry_answers(address):
        return
    port = int(address.rpartition(":")[2])
    name = REGISTRY_NAME if port == _REGISTRY_PORT else f"{REGISTRY_NAME}-{port}"
    existing = [
        container
        for container in engine.containers({SERVICE_LABEL: "registry"})
        if container.name == name
    ]
    if not existing:
        host.require_free_port(_ADDRESS, port)
        log.info("starting a local registry on %s", address)
        image = ensure_services_image(engine, build, host)
        existing = [_create_registry(engine, image, name, port)]
    registry = existing[0]
    engine.start(registry.id)
    engine.enable_restart(registry.id)
    started = time.monotonic()
    while not host.registry_answers(address):
        waited = time.monotonic() - started
        if waited > timeout or (waited > _FORWARDED_WITHIN and not _has_listener(port, host)):
            raise _silent_error(engine, name, port, host)
        time.sleep(0.1)


def _silent_error(engine: Engine, name: str, port: int, host: Host) -> ReleaseError:
    """Return the error of a registry that was started and does not answer."""
    listens = _has_listener(port, host)
    now = engine.containers({SERVICE_LABEL: "registry"})
    if not listens and any(container.name == name and container.running for container in now):
        return published_elsewhere_error(f"{_ADDRESS}:{port}")
    seen = "what listens there gives no answer" if listens else "nothing listens there"
    return PartMissing(
        f"the local registry did not start: {seen}",
        on=f"{_ADDRESS}:{port}",
        next=f"see `docker logs {name}`",
        detail=engine.logs(name, 10),
    )


def _has_listener(port: int, host: Host) -> bool:
    try:
        host.require_free_port(_ADDRESS, port)
    except PortTaken:
        return True
    return False


def _create_registry(engine: Engine, image: str, name: str, port: int) -> Container:
    labels = {SERVICE_LABEL: "registry"}
    engine.ensure_volume(name, labels)
    return engine.create(
        Spec(
            name=name,
            image=image,
            labels=labels,
            command=("docker-registry", "serve", "/etc/docker/registry/config.yml"),
            network="bridge",
            ports={_REGISTRY_PORT: (_ADDRESS, port)},
            volumes={name: ("/var/lib/registry", False)},
            restart=True,
        )
    )
