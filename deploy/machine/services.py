"""The images and services beside the application: the base image, the proxy's image, the local registry.

Each is used if it is there, pulled if it can be, and made from Debian's packages if not.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tarfile
import time
from pathlib import Path

from deploy import progress
from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.errors import PartMissing
from deploy.machine.base_image import ensure_base_image
from deploy.machine.host import THIS_MACHINE, Host
from deploy.settings.reading import ImageBuild

log = logging.getLogger(__name__)

SERVICE_LABEL = "dev.twinship.part"
REGISTRY_NAME = "twinship-registry"
_FOLDER = Path(__file__).parent
_FILES = ("Dockerfile", "registry.yml")
_REGISTRY_WITHIN = 20.0
_REGISTRY_PORT = 5000


def ensure_services_image(engine: Engine, build: ImageBuild, here: Host = THIS_MACHINE) -> str:
    """The image of the proxy and the local registry; it is built if the engine lacks it, whatever the application is based on.

    Raises:
        BaseUnavailable, BuildFailed: it cannot be.
    """
    own = build.for_parts
    files = {name: (_FOLDER / name).read_bytes() for name in _FILES}
    key = hashlib.sha256(
        b"".join(name.encode() + data for name, data in files.items()) + own.base.encode()
    ).hexdigest()[:12]
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
        engine.build(
            context,
            dockerfile="Dockerfile",
            args={"BASE": ensure_base_image(engine, own, here)},
            tag=tag,
            said=progress.report,
        )
    return tag


def ensure_registry(
    engine: Engine, build: ImageBuild, host: str, here: Host = THIS_MACHINE
) -> None:
    """Makes sure that a registry answers at a loopback address; one that is there already is used.

    Raises:
        PortTaken: something else listens there.
        PlatformError, ImageError: it cannot be started.
    """
    if here.registry_answers(host):
        return
    port = int(host.rpartition(":")[2])
    name = REGISTRY_NAME if port == _REGISTRY_PORT else f"{REGISTRY_NAME}-{port}"
    existing = [
        container
        for container in engine.containers({SERVICE_LABEL: "registry"})
        if container.name == name
    ]
    if not existing:
        here.require_free_port("127.0.0.1", port)
        log.info("starting a local registry on %s", host)
        existing = [
            _created_registry(engine, ensure_services_image(engine, build, here), name, port)
        ]
    engine.start(existing[0].id)
    engine.keep_running(existing[0].id)
    deadline = time.monotonic() + _REGISTRY_WITHIN
    while not here.registry_answers(host):
        if time.monotonic() > deadline:
            raise PartMissing(
                "the local registry did not come up",
                on=host,
                next=f"see `docker logs {name}`",
                detail=engine.logs(existing[0].id, 10),
            )
        time.sleep(0.1)


def _created_registry(engine: Engine, parts: str, name: str, port: int) -> Container:
    labels = {SERVICE_LABEL: "registry"}
    engine.volume(name, labels)
    return engine.create(
        Spec(
            name=name,
            image=parts,
            labels=labels,
            command=("docker-registry", "serve", "/etc/docker/registry/config.yml"),
            network="bridge",
            ports={_REGISTRY_PORT: ("127.0.0.1", port)},
            volumes={name: ("/var/lib/registry", False)},
            restart=True,
        )
    )
