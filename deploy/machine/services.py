"""The images and services beside the application: the base image, the proxy's image, the local registry.

Each is used if it is there, pulled if it can be, and made from Debian's packages if not.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from pathlib import Path

from deploy import progress
from deploy.archive import pack_files
from deploy.clients.docker.protocol import Container, Engine, Spec
from deploy.errors import BaseUnavailable, PartMissing, PlatformError, ReleaseError
from deploy.machine.host import THIS_MACHINE, Host
from deploy.settings.reading import ImageBuild

log = logging.getLogger(__name__)

LABEL = "dev.twinship.part"
REGISTRY = "twinship-registry"
_FILES = Path(__file__).parent
_REGISTRY_WITHIN = 20.0
_REGISTRY_PORT = 5000


def ensure_base_image(engine: Engine, build: ImageBuild, here: Host = THIS_MACHINE) -> str:
    """The base image: by its digest where it can be pulled, else, for Debian's own, one of the same content made from packages.

    Returns:
        The reference to build from.

    Raises:
        BaseUnavailable: neither works here.
    """
    found = find_base_image(engine, build)
    if found:
        return found
    refused = _pulled(engine, build.base)
    if refused is None:
        return build.base
    if not build.debian:
        raise BaseUnavailable(
            "the base image cannot be pulled here",
            on=build.base,
            next="give the engine access to a registry that has it; one of Debian's own images could be made here instead",
            detail=f"  pulling: {refused.detail.strip() or refused.what}",
        )
    log.info(
        "%s cannot be pulled: making the same from Debian's packages", build.base.partition("@")[0]
    )
    try:
        return _made(engine, build, here)
    except PlatformError as error:
        raise BaseUnavailable(
            "the base image can neither be pulled nor made here",
            on=build.base,
            next="give the engine access to a registry that has it, or run once on Debian",
            detail=f"  pulling: {refused.detail.strip() or refused.what}\n  making: {error}",
        ) from error


def find_base_image(engine: Engine, build: ImageBuild) -> str:
    """The base image that the engine holds, the real one or what stands in for it; empty if it holds neither."""
    return next(
        (name for name in (build.base, _stand_in(build)) if name and engine.image_id(name)), ""
    )


def _stand_in(build: ImageBuild) -> str:
    """The name of the base image that is made here where the real one cannot be pulled."""
    return f"twinship/base:{build.debian}" if build.debian else ""


def _made(engine: Engine, build: ImageBuild, here: Host) -> str:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "base.tar"
        here.system.make_base(build.debian, target)
        with target.open("rb") as archive:
            engine.import_image(archive, _stand_in(build), ('CMD ["bash"]',))
    return _stand_in(build)


def _pulled(engine: Engine, reference: str) -> ReleaseError | None:
    log.info("pulling %s", reference.partition("@")[0])
    try:
        engine.pull(reference, None, progress.report)
    except ReleaseError as error:
        return error
    return None


def ensure_services_image(engine: Engine, build: ImageBuild, here: Host = THIS_MACHINE) -> str:
    """The image of the proxy and the local registry; it is built if the engine lacks it, whatever the application is based on.

    Raises:
        BaseUnavailable, BuildFailed: it cannot be.
    """
    own = build.for_parts
    files = {path.name: path.read_bytes() for path in sorted(_FILES.iterdir()) if path.is_file()}
    key = hashlib.sha256(
        b"".join(name.encode() + data for name, data in files.items()) + own.base.encode()
    ).hexdigest()[:12]
    tag = f"twinship/parts:{key}"
    if engine.image_id(tag) is None:
        log.info("building the image of the proxy and the local registry")
        engine.build(
            pack_files(files),
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
    name = REGISTRY if port == _REGISTRY_PORT else f"{REGISTRY}-{port}"
    existing = [
        container for container in engine.containers({LABEL: "registry"}) if container.name == name
    ]
    if not existing:
        here.require_free("127.0.0.1", port)
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
    labels = {LABEL: "registry"}
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
